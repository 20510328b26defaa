"""python -m utils.kaggle.merge_labels: the competition's 28 classes as those of another one."""

import pandas as pd
import pytest
from conftest import refuse, succeed, write_labels

from utils.data.labels import CLASS_LISTS

TARGETS = {"a": "0 4 25", "b": "8 9 10 20", "c": "", "d": "27", "e": "15 16 17 14 1", "f": "13 22 18 26"}
NUCLEAR = "Nuclear membrane"
MERGED = {
    "cyto": [
        {"Nucleus", "Cytosol"},
        {"Vesicles"},
        set(),
        {"Cytosol"},
        {"Microtubules", NUCLEAR},
        {"Actin filaments", "Plasma membrane", "Centrosome", "Cytosol"},
    ],
    "hpa2021": [
        {"Nucleoplasm", "Nuclear speckles", "Cytosol"},
        {"Vesicles and punctate cytosolic patterns"},
        {"Negative"},
        {"Vesicles and punctate cytosolic patterns"},
        {"Microtubules", "Mitotic spindle", NUCLEAR},
        {"Actin filaments", "Plasma membrane", "Centrosome", "Vesicles and punctate cytosolic patterns"},
    ],
}


@pytest.mark.parametrize("to", MERGED)
def test_classes_are_merged_as_the_atlas_and_the_competition_order_them(tmp_path, to):
    table = write_labels(tmp_path / "train.csv", TARGETS)
    succeed("utils.kaggle.merge_labels", table, "--to", to, "-o", tmp_path / "merged.csv")
    merged = pd.read_csv(tmp_path / "merged.csv", dtype=str, keep_default_na=False)
    assert merged["Id"].tolist() == list(TARGETS)
    assert [{CLASS_LISTS[to][int(n)] for n in target.split()} for target in merged["Target"]] == MERGED[to]
    refuse("utils.kaggle.merge_labels", table, "--to", to, "-o", table, says="would be overwritten")

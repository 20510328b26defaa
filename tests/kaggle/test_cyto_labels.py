"""python -m utils.kaggle.cyto_labels: the competition's 28 classes as the 13 of the Cyto Challenge."""

import pandas as pd
from conftest import refuse, succeed, write_labels

from utils.data.labels import CYTO_CLASSES


def test_classes_are_merged_as_the_atlas_orders_them(tmp_path):
    targets = {"a": "0 4 25", "b": "8 9 10 20", "c": "", "d": "27", "e": "15 16 17 14 1"}
    table = write_labels(tmp_path / "train.csv", targets)
    succeed("utils.kaggle.cyto_labels", table, "-o", tmp_path / "cyto.csv")
    merged = pd.read_csv(tmp_path / "cyto.csv", dtype=str, keep_default_na=False)
    assert merged["Id"].tolist() == list(targets)
    names = [{CYTO_CLASSES[int(number)] for number in target.split()} for target in merged["Target"]]
    nuclear = {"Microtubules", "Nuclear membrane"}
    assert names == [{"Nucleus", "Cytosol"}, {"Vesicles"}, set(), {"Cytosol"}, nuclear]
    refuse("utils.kaggle.cyto_labels", table, "-o", table, says="would be overwritten")

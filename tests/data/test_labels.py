"""Class lists, and label tables of the single-cell competition of 2021."""

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

from utils.data.labels import CLASS_LISTS, HPA2021_CLASSES, HPA_CLASSES, HPA_TO_2021, encode, merge, read_labels

NAMES_2021 = """Nucleoplasm, Nuclear membrane, Nucleoli, Nucleoli fibrillar center, Nuclear speckles, Nuclear bodies,
Endoplasmic reticulum, Golgi apparatus, Intermediate filaments, Actin filaments, Microtubules, Mitotic spindle, Centrosome,
Plasma membrane, Mitochondria, Aggresome, Cytosol, Vesicles and punctate cytosolic patterns, Negative"""


def test_the_19_classes_have_their_numbers_and_28_have_a_place_in_them():
    assert list(HPA2021_CLASSES) == NAMES_2021.replace("\n", " ").split(", ")
    assert set(HPA_TO_2021) == set(HPA2021_CLASSES) - {"Negative"}
    same = [name for name in HPA_CLASSES if name in HPA2021_CLASSES]
    assert len(same) == 17 and all(HPA_TO_2021[HPA_CLASSES.index(name)] == name for name in same)


@pytest.mark.parametrize("to", ["cyto", "hpa2021"])
def test_a_merged_probability_is_that_of_any(to):
    """Three classes that are Vesicles in both lists: none of them with probability ½ · ½ · ¾."""
    values = np.zeros((1, 28))
    values[0, [8, 9, 10]] = 0.5, 0.5, 0.25
    merged = dict(zip(CLASS_LISTS[to], merge(values, to)[0], strict=True))
    negative = {name: merged.pop(name) for name in ["Negative"] if name in merged}
    assert [name.split()[0] for name, value in merged.items() if value] == ["Vesicles"]
    assert max(merged.values()) == pytest.approx(13 / 16)
    assert negative == ({"Negative": 0.5} if to == "hpa2021" else {})


def test_probabilities_of_classes_that_are_not_merged_stay_apart():
    """1 - (1 - p) would be 0 for all of these."""
    values = np.zeros((3, 28))
    values[:, 0] = 1e-300, 1e-20, 3e-20
    assert merge(values, "hpa2021")[:, 0] == pytest.approx(values[:, 0], rel=1e-12, abs=0)


@pytest.mark.parametrize(
    "text", ["ID,Label\na,16|0\nb,18\nc,\n", "Id,Target\na,16 0\nb,18\nc,\n", "Id,Target\na,16|0\nb,18\nc,\n"]
)
def test_labels_of_2021_become_the_usual_folds(tmp_path, text):
    (tmp_path / "train.csv").write_text(text)
    words = ["--labels", tmp_path / "train.csv", "--folds", 2, "-o", tmp_path / "folds.csv"]
    succeed("make_folds", *words, "--classes", "hpa2021")
    folds = pd.read_csv(tmp_path / "folds.csv", dtype=str, keep_default_na=False)
    assert folds[["Id", "Target"]].values.tolist() == [["a", "0 16"], ["b", "18"], ["c", ""]]
    assert encode(read_labels(tmp_path / "folds.csv", HPA2021_CLASSES)["Target"], HPA2021_CLASSES).sum() == 3
    if "Label" in text:
        refuse("make_folds", *words, says=["ID,Label", "--classes hpa2021"])
    (tmp_path / "train.csv").write_text(text.replace("18", "19"))
    refuse("make_folds", *words, "--classes", "hpa2021", says=["row 3 ('19')", "0 to 18"])

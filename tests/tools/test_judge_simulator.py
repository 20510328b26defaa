"""utils.tools.judge_simulator against AUCs worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, write_labels
from sklearn.metrics import roc_auc_score

from utils.data.labels import CYTO_CLASSES, HPA_CLASSES, HPA_TO_CYTO, encode
from utils.runs.predictions import write_predictions
from utils.tools.judge_simulator import judge, resampled_auc, split_sides

JUDGE = "utils.tools.judge_simulator"
FAMILIES = {  # Cyto class: HPA classes that are the class itself, and all of its family
    "Nucleus": ({0}, {0, 4, 5}),
    "Nuclear membrane": ({1}, {1}),
    "Nucleoli": ({2}, {2, 3}),
    "Endoplasmic reticulum": ({6}, {6}),
    "Golgi apparatus": ({7}, {7}),
    "Vesicles": ({8, 9, 10, 20}, {8, 9, 10, 20}),
    "Intermediate filaments": ({11}, {11}),
    "Actin filaments": ({12}, {12, 13}),
    "Microtubules": ({14}, {14, 15, 16, 17}),
    "Centrosome": ({18, 19}, {18, 19}),
    "Plasma membrane": ({21}, {21, 22}),
    "Mitochondria": ({23}, {23}),
    "Cytosol": ({25}, {24, 25, 26, 27}),
}


def test_every_hpa_class_has_its_place_in_the_hierarchy():
    assert len(HPA_TO_CYTO) == 28 and set(HPA_TO_CYTO) == set(CYTO_CLASSES) == set(FAMILIES)
    single = np.eye(28, dtype=int)
    for name, (itself, family) in FAMILIES.items():
        assert {number for number in range(28) if HPA_TO_CYTO[number] == name} == family
        positive, negative = split_sides(single, name)
        assert set(np.flatnonzero(positive)) == itself and set(np.flatnonzero(~negative)) == family
    both = split_sides(encode(["4 0", "4", "4 25", "25", ""], HPA_CLASSES), "Nucleus")
    assert [side.tolist() for side in both] == [[True, False, False, False, False], [False, False, False, True, True]]


def predictions(path, **columns):
    """A table of probabilities, 0.5 by default; keywords: class names with _ for a space."""
    values = {name.replace("_", " "): column for name, column in columns.items()}
    count = len(next(iter(values.values())))
    table = np.stack([values.get(name, [0.5] * count) for name in CYTO_CLASSES], axis=1)
    write_predictions(path, [f"i{n}" for n in range(count)], table, CYTO_CLASSES)
    return path


def test_auc_as_worked_out_by_hand_relatives_left_out(tmp_path):
    """Nucleoli .8 and .4 against .4 and .1: 3.5 of 4 pairs right. The fibrillar center's .99 is neither."""
    truth = write_labels(tmp_path / "t.csv", {"i0": "2", "i1": "2 0", "i2": "3", "i3": "25", "i4": "0", "extra": "7"})
    seen = predictions(tmp_path / "p.csv", Nucleoli=[0.8, 0.4, 0.99, 0.4, 0.1], Cytosol=[0, 0.6, 0, 0.6, 0])
    out = succeed(JUDGE, seen, "--truth", truth, "-o", tmp_path / "o.csv").out
    table = pd.read_csv(tmp_path / "o.csv").set_index("class")
    assert table.index.tolist() == list(CYTO_CLASSES)
    assert table.loc["Nucleoli", ["positives", "negatives", "auc"]].tolist() == [2, 2, 0.875]
    assert table.loc["Cytosol", ["positives", "negatives", "auc"]].tolist() == [1, 4, 0.875]
    assert table.loc["Nucleus", ["positives", "negatives", "auc"]].tolist() == [2, 3, 0.5]
    assert table["auc"].count() == 3 == (table["low"] <= table["auc"]).sum() == (table["auc"] <= table["high"]).sum()
    assert f"mean of 3 classes{0.75:>36.3f}" in out and out.count("no positives, so no AUC") == 10
    assert "5 images" in out


def test_rows_are_matched_by_id_and_columns_by_name(tmp_path):
    rng = np.random.default_rng(0)
    truth = write_labels(tmp_path / "t.csv", {f"i{n}": str(n % 28) for n in range(84)})
    write_predictions(tmp_path / "p.csv", [f"i{n}" for n in range(84)], rng.random((84, 13)), CYTO_CLASSES)
    succeed(JUDGE, tmp_path / "p.csv", "--truth", truth, "-o", tmp_path / "a.csv")
    table = pd.read_csv(tmp_path / "p.csv", dtype=str)
    table[["Id", *CYTO_CLASSES[::-1]]].to_csv(tmp_path / "p.csv", index=False)
    pd.read_csv(truth, dtype=str).sample(frac=1, random_state=0).to_csv(truth, index=False)
    succeed(JUDGE, tmp_path / "p.csv", "--truth", truth, "-o", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes(), "and the same intervals: seeded"


def test_resamples_are_what_scikit_learn_says_of_repeated_rows():
    rng = np.random.default_rng(0)
    positive, scores = rng.random(40) < 0.3, rng.integers(0, 8, 40) / 8
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=20)
    expected = [roc_auc_score(np.repeat(positive, row), np.repeat(scores, row)) for row in counts]
    assert resampled_auc(counts, positive, scores) == pytest.approx(expected)
    assert np.isnan(resampled_auc(np.where(positive, 0, counts), positive, scores)).all()


def test_intervals_are_as_wide_as_delong_says():
    """DeLong et al. 1988: the AUC's variance from how often each positive beats the negatives, and the reverse."""
    rng = np.random.default_rng(0)
    labels, mitochondria = np.zeros((400, 28), int), CYTO_CLASSES.index("Mitochondria")
    labels[:100, 23], labels[100:, 7] = 1, 1
    scores = rng.standard_normal((400, 13))
    scores[:100, mitochondria] += 1
    table, mean = judge(labels, scores, 1000, 0)
    row = table.iloc[mitochondria]
    beats = scores[:100, mitochondria, None] > scores[100:, mitochondria]
    assert row["auc"] == pytest.approx(beats.mean())
    error = np.sqrt(beats.mean(axis=1).var(ddof=1) / 100 + beats.mean(axis=0).var(ddof=1) / 300)
    assert (row["high"] - row["low"]) / (2 * 1.96) == pytest.approx(error, rel=0.1)
    assert mean[0] == pytest.approx(table["auc"].dropna().mean()) and mean[1] < mean[0] < mean[2]


def test_bad_input_is_refused(tmp_path):
    truth, table = write_labels(tmp_path / "t.csv", {"i0": "2", "i1": "23"}), tmp_path / "o.csv"
    write_predictions(tmp_path / "hpa.csv", ["i0"], [[0.5] * 28], HPA_CLASSES)
    refuse(JUDGE, tmp_path / "hpa.csv", "--truth", truth, says="other classes than the 13 of Cyto")
    seen = predictions(tmp_path / "p.csv", Nucleus=[0.1, 0.2, 0.3])
    refuse(JUDGE, seen, "--truth", truth, says=["t.csv lacks 1 Id", "i2"])
    seen = predictions(tmp_path / "p.csv", Nucleus=[0.1])
    refuse(JUDGE, seen, "--truth", truth, "-o", table, says="no class with both positives and negatives")
    refuse(JUDGE, seen, "--truth", truth, "--draws", 9, says="--draws 9 is out of range")
    assert not table.exists()

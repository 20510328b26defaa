"""python -m utils.tools.confusion: one class for each image, of a network and of a person."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, write_labels
from sklearn import metrics as sk

from utils.data.labels import CYTO_CLASSES, encode
from utils.runs.predictions import read_predictions, write_predictions
from utils.tools.confusion import of_one_class, single_scores


@pytest.fixture
def papers_case(tmp_path):
    """200 images of one class that network and person judge as in the paper's Table 4, and 20 of two classes."""
    rng = np.random.default_rng(0)
    true = np.concatenate([np.arange(13), rng.integers(0, 13, 187)])
    network_right = np.repeat([True, True, False, False], [121, 60, 7, 12])
    person_right = np.repeat([True, False, True, False], [121, 60, 7, 12])
    wrong = (true + rng.integers(1, 13, 200)) % 13
    answers = {"network": np.where(network_right, true, wrong), "person": np.where(person_right, true, wrong)}
    probabilities = rng.random((220, 13)) * 0.5
    probabilities[np.arange(200), answers["network"]] = 0.9
    ids = [f"i{number:03}" for number in range(220)]
    write_predictions(tmp_path / "p.csv", ids, probabilities, list(CYTO_CLASSES))
    write_labels(tmp_path / "truth.csv", dict(zip(ids, [*map(str, true), *["0 1"] * 20], strict=True)))
    write_labels(tmp_path / "human.csv", {ids[row]: str(answers["person"][row]) for row in rng.permutation(200)})
    return tmp_path, true, answers


def command(folder, *more):
    return ["utils.tools.confusion", folder / "p.csv", "--labels", folder / "truth.csv", "--classes", "cyto", *more]


def test_table_3_table_4_and_the_matrices(papers_case):
    folder, true, answers = papers_case
    outputs = ["--plot", folder / "f.png", "-o", folder / "r.json"]
    out = succeed(*command(folder, "--human", folder / "human.csv", *outputs)).out
    found = json.loads((folder / "r.json").read_text())
    for who, own in answers.items():
        assert np.array_equal(found["counts"][who], sk.confusion_matrix(true, own, labels=range(13)))
        scores = found["scores"][who]
        assert scores["accuracy"] == pytest.approx(sk.accuracy_score(true, own))
        for key, score in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
            assert scores[key] == pytest.approx(score(true, own, average="macro", zero_division=0))
    table = pd.read_csv(folder / "truth.csv", dtype=str)  # as a notebook asks for it
    predictions = read_predictions(folder / "p.csv").to_numpy()
    matrix, scores, images = of_one_class(encode(table["Target"], CYTO_CLASSES), predictions)
    assert matrix.tolist() == found["counts"]["network"] and images == 200
    assert scores == pytest.approx(found["scores"]["network"])
    test = found["mcnemar"]
    assert [test[key] for key in ("both", "only_first", "only_second", "neither")] == [121, 60, 7, 12]
    assert f"{test['p']:.0e}" == "2e-10", "as printed in section 4"
    assert "200 images of exactly one class that the person judged, of 220" in out
    assert (folder / "f.png").stat().st_size > 10_000
    assert all(len(line) <= 80 for line in out.splitlines() if "->" not in line)


def test_network_alone_and_a_person_who_judged_a_few(papers_case):
    folder, true, answers = papers_case
    succeed(*command(folder, "-o", folder / "alone.json"))
    alone = json.loads((folder / "alone.json").read_text())
    assert alone["mcnemar"] == {} and np.sum(alone["counts"]["network"]) == 200
    table = pd.read_csv(folder / "human.csv", dtype=str)
    table[table["Id"] < "i050"].to_csv(folder / "few.csv", index=False)
    succeed(*command(folder, "--human", folder / "few.csv", "-o", folder / "few.json"))
    few = json.loads((folder / "few.json").read_text())
    assert few["scores"]["network"]["accuracy"] == pytest.approx((answers["network"] == true)[:50].mean())
    assert np.sum(few["counts"]["person"]) == 50


def test_confusion_refuses(papers_case):
    folder, *_ = papers_case
    write_labels(folder / "two.csv", {"i000": "1", "i001": "2 3"})
    refuse(*command(folder, "--human", folder / "two.csv"), says=["two.csv", "i001", "one class each"])
    write_labels(folder / "mixed.csv", {"i210": "1"})
    refuse(*command(folder, "--human", folder / "mixed.csv"), says="no image of exactly one class")
    refuse(*command(folder, "--classes", "hpa"), says="name the class list with --classes")
    write_labels(folder / "truth.csv", {f"i{number:03}": "1 2" for number in range(220)})
    refuse(*command(folder), says="exactly one class")


def test_both_judges_are_averaged_over_the_same_classes():
    """A class in the answers of only one of them counts for both."""
    true, network, person = np.repeat([0, 1], 5), np.repeat([0, 1], 5), np.array([0] * 4 + [7] + [1] * 4 + [8])
    present = np.unique(np.concatenate([true, network, person]))
    assert single_scores(true, network, present)["f1"] == pytest.approx(0.5), "two of four classes found, all right"
    expected = sk.f1_score(true, person, labels=present, average="macro", zero_division=0)
    assert single_scores(true, person, present)["f1"] == pytest.approx(expected)

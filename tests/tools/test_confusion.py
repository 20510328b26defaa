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
    net_right = np.repeat([True, True, False, False], [121, 60, 7, 12])
    person_right = np.repeat([True, False, True, False], [121, 60, 7, 12])
    wrong = (true + rng.integers(1, 13, 200)) % 13
    said = {"net": np.where(net_right, true, wrong), "person": np.where(person_right, true, wrong)}
    probabilities = rng.random((220, 13)) * 0.5
    probabilities[np.arange(200), said["net"]] = 0.9
    ids = [f"i{number:03}" for number in range(220)]
    write_predictions(tmp_path / "p.csv", ids, probabilities, list(CYTO_CLASSES))
    targets = [*map(str, true), *["0 1"] * 20]
    write_labels(tmp_path / "truth.csv", dict(zip(ids, targets, strict=True)))
    order = rng.permutation(200)
    write_labels(tmp_path / "human.csv", {ids[row]: str(said["person"][row]) for row in order})
    return tmp_path, true, said


def words(place, *more):
    return [place / "p.csv", "--labels", place / "truth.csv", "--classes", "cyto", *more]


def test_table_3_table_4_and_the_matrices(papers_case):
    place, true, said = papers_case
    result = place / "r.json"
    out = succeed(
        "utils.tools.confusion", *words(place, "--human", place / "human.csv", "--plot", place / "f.png", "-o", result)
    ).out
    numbers = json.loads(result.read_text())
    for who, name in (("network", "net"), ("person", "person")):
        assert np.array_equal(numbers["counts"][who], sk.confusion_matrix(true, said[name], labels=range(13)))
        scores = numbers["scores"][who]
        assert scores["accuracy"] == pytest.approx(sk.accuracy_score(true, said[name]))
        for key, score in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
            assert scores[key] == pytest.approx(score(true, said[name], average="macro", zero_division=0))
    table = pd.read_csv(place / "truth.csv", dtype=str)  # as a notebook asks for it
    truth = encode(table["Target"], CYTO_CLASSES)
    matrix, scores, images = of_one_class(truth, read_predictions(place / "p.csv").to_numpy())
    assert matrix.tolist() == numbers["counts"]["network"] and images == 200
    assert scores == pytest.approx(numbers["scores"]["network"])
    test = numbers["mcnemar"]
    assert [test[key] for key in ("both", "only_first", "only_second", "neither")] == [121, 60, 7, 12]
    assert f"{test['p']:.0e}" == "2e-10", "as printed in section 4"
    assert (
        "200 images of exactly one class, that the person judged, of 220" in out
        and (place / "f.png").stat().st_size > 10_000
    )
    assert all(len(line) <= 80 for line in out.splitlines() if "->" not in line)


def test_network_alone_and_a_person_who_judged_a_few(papers_case):
    place, true, said = papers_case
    succeed("utils.tools.confusion", *words(place, "-o", place / "alone.json"))
    alone = json.loads((place / "alone.json").read_text())
    assert alone["mcnemar"] == {} and np.sum(alone["counts"]["network"]) == 200
    table = pd.read_csv(place / "human.csv", dtype=str)
    table[table["Id"] < "i050"].to_csv(place / "few.csv", index=False)
    succeed("utils.tools.confusion", *words(place, "--human", place / "few.csv", "-o", place / "few.json"))
    few = json.loads((place / "few.json").read_text())
    assert few["scores"]["network"]["accuracy"] == pytest.approx((said["net"] == true)[:50].mean())
    assert np.sum(few["counts"]["person"]) == 50


def test_confusion_refuses(papers_case):
    place, *_ = papers_case
    write_labels(place / "two.csv", {"i000": "1", "i001": "2 3"})
    refuse(
        "utils.tools.confusion", *words(place, "--human", place / "two.csv"), says=["two.csv", "i001", "one class each"]
    )
    write_labels(place / "mixed.csv", {"i210": "1"})
    refuse("utils.tools.confusion", *words(place, "--human", place / "mixed.csv"), says="no image of exactly one class")
    write_labels(place / "truth.csv", {f"i{number:03}": "1 2" for number in range(220)})
    refuse("utils.tools.confusion", *words(place), says="exactly one class")
    refuse(
        "utils.tools.confusion",
        place / "p.csv",
        "--labels",
        place / "truth.csv",
        says="name the class list with --classes",
    )


def test_both_judges_are_averaged_over_the_same_classes():
    """A class that only one of them says counts for both."""
    true, network, person = np.repeat([0, 1], 5), np.repeat([0, 1], 5), np.array([0] * 4 + [7] + [1] * 4 + [8])
    there = np.unique(np.concatenate([true, network, person]))
    assert single_scores(true, network, there)["f1"] == pytest.approx(0.5), "two of four classes found, all right"
    expected = sk.f1_score(true, person, labels=there, average="macro", zero_division=0)
    assert single_scores(true, person, there)["f1"] == pytest.approx(expected)

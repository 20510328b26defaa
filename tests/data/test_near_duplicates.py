"""Near-duplicates between training and test set: found, averaged, and their labels carried over only when asked."""

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, write_labels

from utils.data import near_duplicates
from utils.runs.predictions import write_predictions

NAMES = ["first", "second"]


@pytest.fixture
def files(tmp_path):
    """Four test images: a and b are twins, c has the twin t in the training set, d is alone."""
    write_predictions(tmp_path / "p.csv", "abcd", [[0.9, 0.2], [0.3, 0.4], [0.8, 0.1], [0.6, 0.7]], NAMES)
    (tmp_path / "twins.csv").write_text("Id,twin,bits\na,b,3\nt,c,5\nc,u,2\n")
    write_labels(tmp_path / "train.csv", {"t": "0", "u": "1", "v": "0 1"})
    pd.DataFrame({"Id": list("dcba"), "Predicted": "0"}).to_csv(tmp_path / "sample.csv", index=False)

    def call(*more):
        out = succeed("ensemble", tmp_path / "p.csv", "--thresholds", "0.5", "--sample", tmp_path / "sample.csv", "-o",
                      tmp_path / "s.csv", *more).out  # fmt: skip
        return pd.read_csv(tmp_path / "s.csv", dtype=str).set_index("Id")["Predicted"].to_dict(), out

    return tmp_path, call


def test_predictions_of_twins_are_averaged(files):
    folder, call = files
    assert call()[0] == {"a": "0", "b": "1", "c": "0", "d": "0 1"}, "b below both cut-offs: its likeliest"
    told, out = call("--twins", folder / "twins.csv")
    assert told == {"a": "0", "b": "0", "c": "0", "d": "0 1"} and "2 rows in 1 group averaged" in out


def test_labels_leak_only_when_asked_and_from_the_nearest_twin(files):
    folder, call = files
    told, out = call("--twins", folder / "twins.csv", "--use-leak", folder / "train.csv")
    assert told["c"] == "1" and told["a"] == "0" and "1 row got the labels of a twin" in out


def test_a_twin_without_labels_leaves_none(files):
    folder, call = files
    write_labels(folder / "none.csv", {"u": ""})
    told, _ = call("--twins", folder / "twins.csv", "--use-leak", folder / "none.csv")
    assert str(told["c"]) == "nan" and told["d"] == "0 1"


def test_twins_hang_together_over_images_that_are_not_decided():
    pairs = pd.DataFrame({"Id": ["a", "b"], "twin": ["t", "t"], "bits": [1.0, 1.0]})
    averaged = near_duplicates.average_scores(["a", "b", "c"], np.array([[0.0], [1.0], [0.3]]), pairs)
    assert averaged[:, 0].tolist() == [0.5, 0.5, 0.3]


def test_wrong_lists_are_refused(files):
    folder, _ = files
    call = [
        "ensemble",
        folder / "p.csv",
        "--thresholds",
        "0.5",
        "--sample",
        folder / "sample.csv",
        "-o",
        folder / "s.csv",
    ]
    refuse(*call, "--use-leak", folder / "train.csv", says="needs --near-duplicates")
    for content, says in (
        ("Id,twin,bits\na,a,1\n", "row 2"),
        ("Id,twin,bits\na,b,x\n", "row 2"),
        ("Id,twin\na,b\n", "lacks the column bits"),
    ):
        (folder / "wrong.csv").write_text(content)
        refuse(*call, "--twins", folder / "wrong.csv", says=["wrong.csv", says])
    assert not (folder / "s.csv").exists()


def test_pairs_between_two_folders_are_found(atlas, tmp_path):
    """The atlas's own list of copies: test images that show a training image's field."""
    succeed(
        "utils.tools.find_duplicates",
        "--images",
        atlas / "train",
        "--images",
        atlas / "test",
        "-o",
        tmp_path / "twins.csv",
    )
    pairs = pd.read_csv(tmp_path / "twins.csv", dtype=str)
    truth = pd.read_csv(atlas / "truth.csv", dtype=str, keep_default_na=False)
    copies = truth[truth["Copies"] != ""]
    found = {frozenset(pair) for pair in zip(pairs["Id"], pairs["twin"])}
    wanted = [frozenset(pair) for pair in zip(copies["Id"], copies["Copies"])]
    assert wanted and np.mean([pair in found for pair in wanted]) > 0.7
    refuse("utils.tools.find_duplicates", "--images", tmp_path / "no", "-o", tmp_path / "t.csv", says="no")
    refuse(
        "utils.tools.find_duplicates",
        "--images",
        atlas / "test",
        "--hash-distance",
        40,
        "-o",
        tmp_path / "t.csv",
        says="out of range",
    )

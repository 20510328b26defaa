"""Near-duplicates between training and test set: found, averaged, and their labels carried over only on demand."""

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, write_labels
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.data import near_duplicates
from utils.runs.predictions import write_predictions

NAMES = ["first", "second"]


@pytest.fixture
def ensemble(tmp_path):
    """Folder and command. Four test images: a and b are near-duplicates, c is one of t in the training set, d is alone."""
    write_predictions(tmp_path / "p.csv", "abcd", [[0.9, 0.2], [0.3, 0.4], [0.8, 0.1], [0.6, 0.7]], NAMES)
    (tmp_path / "pairs.csv").write_text("Id,twin,bits\na,b,3\nt,c,5\nc,u,2\n")
    write_labels(tmp_path / "train.csv", {"t": "0", "u": "1", "v": "0 1"})
    write_labels(tmp_path / "none.csv", {"u": ""})
    pd.DataFrame({"Id": list("dcba"), "Predicted": "0"}).to_csv(tmp_path / "sample.csv", index=False)
    words = [tmp_path / "p.csv", "--thresholds", "0.5", "--sample", tmp_path / "sample.csv", "-o", tmp_path / "s.csv"]
    return tmp_path, ["ensemble", *words]


def decide(folder, words, *more):
    out = succeed(*words, *more).out
    table = pd.read_csv(folder / "s.csv", dtype=str, keep_default_na=False)
    return table.set_index("Id")["Predicted"].to_dict(), out


def test_predictions_are_averaged_and_labels_leak_only_on_demand_and_from_the_nearest(ensemble):
    folder, words = ensemble
    pairs = ["--twins", folder / "pairs.csv"]
    assert decide(*ensemble)[0] == {"a": "0", "b": "1", "c": "0", "d": "0 1"}, (
        "b is below both thresholds: its likeliest"
    )
    decided, out = decide(*ensemble, *pairs)
    assert decided == {"a": "0", "b": "0", "c": "0", "d": "0 1"} and "2 rows in 1 group averaged" in out
    decided, out = decide(*ensemble, *pairs, "--use-leak", folder / "train.csv")
    assert decided["c"] == "1" and decided["a"] == "0" and "1 row got the labels of a near-duplicate" in out
    decided, _ = decide(*ensemble, *pairs, "--use-leak", folder / "none.csv")
    assert decided["c"] == "" and decided["d"] == "0 1", "a near-duplicate without labels"


def test_groups_are_connected_by_images_that_are_not_predicted():
    pairs = pd.DataFrame({"Id": ["a", "b"], "twin": ["t", "t"], "bits": [1.0, 1.0]})
    averaged = near_duplicates.average_scores(["a", "b", "c"], np.array([[0.0], [1.0], [0.3]]), pairs)
    assert averaged[:, 0].tolist() == [0.5, 0.5, 0.3]


@given(st.integers(1, 30), st.integers(2, 20), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_the_nearest_is_found_and_never_the_image_itself(rows, others, seed):
    rng = np.random.default_rng(seed)
    hashes, known = rng.random((rows, 16)) < 0.5, rng.random((others, 16)) < 0.5
    own = rng.integers(-1, others, rows)
    known[own[own >= 0]] = hashes[own >= 0]  # the same image has the same hash
    places, bits = near_duplicates.nearest(hashes, known, own, block=7)
    differ = (hashes[:, None] != known).sum(axis=2)
    for row in range(rows):
        allowed = [place for place in range(others) if place != own[row]]
        assert (
            places[row] == min(allowed, key=lambda place: differ[row, place]) and bits[row] == differ[row, places[row]]
        )


def test_wrong_lists_are_refused(ensemble):
    folder, words = ensemble
    refuse(*words, "--use-leak", folder / "train.csv", says="needs --near-duplicates CSV")
    contents = {
        "Id,twin,bits\na,a,1\n": "row 2",
        "Id,twin,bits\na,b,x\n": "row 2",
        "Id,twin\na,b\n": "lacks the column bits",
    }
    for content, says in contents.items():
        (folder / "wrong.csv").write_text(content)
        refuse(*words, "--near-duplicates", folder / "wrong.csv", says=["wrong.csv", says])
    assert not (folder / "s.csv").exists()


def test_pairs_between_two_folders_are_found(atlas, tmp_path):
    """The atlas's own list of copies: test images that show a training image's field."""
    find, out = ["utils.tools.find_duplicates", "--images", atlas / "test"], ["-o", tmp_path / "pairs.csv"]
    succeed(*find, "--images", atlas / "train", *out)
    pairs = pd.read_csv(tmp_path / "pairs.csv", dtype=str)
    truth = pd.read_csv(atlas / "truth.csv", dtype=str, keep_default_na=False)
    copies = truth[truth["Copies"] != ""]
    found = {frozenset(pair) for pair in zip(pairs["Id"], pairs["twin"])}
    wanted = [frozenset(pair) for pair in zip(copies["Id"], copies["Copies"])]
    assert wanted and np.mean([pair in found for pair in wanted]) > 0.7
    refuse(*find, "--images", tmp_path / "missing", *out, says="missing is not a folder")
    refuse(*find, "--hash-distance", 40, *out, says="--hash-distance 40 is out of range")


@given(st.integers(2, 40), st.integers(0, 12), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_close_pairs_are_those_counted_one_by_one(rows, distance, seed):
    hashes = np.random.default_rng(seed).random((rows, 24)) < 0.5
    found = near_duplicates.close_pairs(hashes, distance, block=7)
    got = {(int(a), int(b)): int(bits) for a, b, bits in found.T}
    want = {(a, b): int((hashes[a] != hashes[b]).sum()) for a in range(rows) for b in range(a + 1, rows)}
    assert got == {pair: bits for pair, bits in want.items() if bits <= distance}

"""Test sets with other shares of classes, and other exposure."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, write_labels

from utils.data.labels import decode
from utils.runs.predictions import write_predictions
from utils.scoring import label_shift
from utils.scoring.calibration import sigmoid

NAMES = ["first", "second", "third"]


def images(rng, shares, rows):
    """Labels drawn with these shares, and predictions that look alike for every share: (N, C), (N, C)."""
    truth = (rng.random((rows, len(shares))) < shares).astype(np.uint8)
    return truth, sigmoid(rng.normal(-2, 1, truth.shape) + 3 * truth)


def test_a_changed_share_is_found_and_an_unchanged_one_kept():
    rng = np.random.default_rng(0)
    truth, probabilities = images(rng, [0.2, 0.2, 0.1], 4000)
    there, unlabelled = images(rng, [0.4, 0.2, 0.05], 4000)
    changed = label_shift.log_change(truth, probabilities, unlabelled)
    assert changed == pytest.approx(np.log(there.mean(axis=0) / truth.mean(axis=0)), abs=0.08)
    estimated = label_shift.estimate_shares(truth, probabilities, unlabelled)
    assert estimated == pytest.approx(there.mean(axis=0), rel=0.12)


def test_where_nothing_has_changed_nothing_is_changed():
    """Expectation–maximisation alone is off by chance; drawn towards no change it is off by less than half of that."""
    rng = np.random.default_rng(1)
    truth, probabilities = images(rng, np.linspace(0.05, 0.2, 20), 3000)
    _, unlabelled = images(rng, np.linspace(0.05, 0.2, 20), 3000)
    alone = np.abs(label_shift.log_change(truth, probabilities, unlabelled)).mean()
    drawn = np.abs(np.log(label_shift.estimate_shares(truth, probabilities, unlabelled) / truth.mean(axis=0))).mean()
    assert drawn < alone / 2


def test_a_class_too_rare_to_tell_or_absent_keeps_its_share():
    rng = np.random.default_rng(2)
    truth, probabilities = images(rng, [0.3, 0.002, 0.0], 3000)
    _, unlabelled = images(rng, [0.6, 0.02, 0.1], 3000)
    estimated = label_shift.estimate_shares(truth, probabilities, unlabelled)
    assert estimated[0] > 0.5 and estimated[1:] == pytest.approx(truth.mean(axis=0)[1:])


def test_as_many_are_called_as_were():
    rng = np.random.default_rng(3)
    scores = rng.random((1000, 4))
    scores[:, 3] = 0.5
    called = np.array([0, 0.25, 1, 0.3])
    counts = (scores >= label_shift.match_calls(scores, called)).sum(axis=0)
    assert counts.tolist() == [0, 250, 1000, 1000], "of images that are alike all are called"


@pytest.fixture
def small(tmp_path):
    rng = np.random.default_rng(4)
    truth, probabilities = images(rng, [0.3, 0.2, 0.1], 1500)
    there, test = images(rng, [0.6, 0.2, 0.05], 1500)
    ids = [f"i{n:04}" for n in range(1500)]
    pd.DataFrame({"class": range(3), "name": NAMES}).to_csv(tmp_path / "classes.csv", index=False)
    write_labels(tmp_path / "train.csv", dict(zip(ids, decode(truth))))
    write_predictions(tmp_path / "oof.csv", ids, probabilities, NAMES)
    write_predictions(tmp_path / "test.csv", ids, test, NAMES)
    words = ["--labels", tmp_path / "train.csv", "--classes", tmp_path / "classes.csv"]

    def fit(*more):
        succeed("threshold", tmp_path / "oof.csv", *words, "--repeats", 1, "-o", tmp_path / "t.json", *more)
        return json.loads((tmp_path / "t.json").read_text())

    return tmp_path, fit, words, there.mean(axis=0)


def test_thresholds_follow_shares_that_are_known_or_estimated(small):
    folder, fit, _, there = small
    plain = fit()
    assert plain["shares"] is None
    (folder / "shares.csv").write_text("class,share\nsecond,0.2\n0,0.6\nthird,0.05\n")
    known = fit("--shares", folder / "shares.csv")
    assert known["shares"] == [0.6, 0.2, 0.05]
    estimated = fit("--estimate-shares", folder / "test.csv")
    assert estimated["shares"] == pytest.approx(there, rel=0.25)
    for found in (known, estimated):
        assert found["thresholds"][0] < plain["thresholds"][0] and found["thresholds"][2] > plain["thresholds"][2]
        assert found["macro_f1"] == plain["macro_f1"], "figures are for the rows' own shares"


def test_wrong_shares_are_refused(small):
    folder, _, words, _ = small
    call = ["threshold", folder / "oof.csv", *words, "-o", folder / "t.json"]
    wrong = {"class,share\nfirst,0.2\n": "no share of second", "class,share\nfirst,2\n": "row 2", "class,share\n7,0.2\n": "row 2",
             "class,share\n0,.2\nfirst,.2\n": "row 3", "class\n0\n": "lacks the column share"}  # fmt: skip
    for content, says in wrong.items():
        (folder / "shares.csv").write_text(content)
        refuse(*call, "--shares", folder / "shares.csv", says=["shares.csv", says])
    refuse(*call, "--shares", "x.csv", "--estimate-shares", "y.csv", says="give one")
    refuse(*call, "--estimate-shares", folder / "test.csv", "--method", "per_class", says="knows nothing of shares")
    refuse(*call, "--estimate-shares", folder / "train.csv", says="train.csv")
    assert not (folder / "t.json").exists()


def test_simulation_says_when_it_helps(small):
    """Shares known help where they have changed; matching calls undoes another exposure."""
    folder, _, words, _ = small
    out = succeed("utils.tools.class_priors", folder / "oof.csv", *words, "--repeats", 3).out
    rows = {line.split()[0]: line.replace("±", " ").split() for line in out.splitlines()[2:]}
    assert set(rows) == {"nothing", "shares", "exposure"}
    assert float(rows["shares"][6]) > 0 and float(rows["exposure"][8]) > 0.02 and abs(float(rows["nothing"][4])) < 0.01
    refuse("utils.tools.class_priors", folder / "oof.csv", *words, "--factor", 1, says="--factor")
    refuse("utils.tools.class_priors", folder / "oof.csv", *words, "--repeats", 1, says="--repeats")

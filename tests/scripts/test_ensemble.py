"""ensemble.py: rows matched by Id, order kept; combinations fitted on out-of-fold predictions; matched positives."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, submission_of, succeed, write_labels

import ensemble
from utils.data.labels import decode
from utils.runs.predictions import read_predictions, write_predictions
from utils.scoring.calibration import logit, sigmoid
from utils.scoring.ensembling import COMBINATIONS

NAMES = ["first", "second", "third"]


@pytest.fixture
def decide(tmp_path):
    """Predictions, thresholds and a sample submission in another order."""
    write_predictions(tmp_path / "p.csv", ["a", "b", "c"], [[0.9, 0.1, 0.2], [0.1, 0.2, 0.04], [0.5, 0.5, 0.05]], NAMES)
    (tmp_path / "t.json").write_text(json.dumps({"classes": NAMES, "thresholds": [0.5, 0.5, 0.05]}))
    pd.DataFrame({"Id": ["c", "a", "b"], "Predicted": "0"}).to_csv(tmp_path / "sample.csv", index=False)

    def call(*more, predictions=("p.csv",), thresholds=tmp_path / "t.json"):
        files = [tmp_path / name for name in predictions]
        given = ["--thresholds", thresholds, "--sample", tmp_path / "sample.csv", "-o", tmp_path / "s.csv"]
        succeed("ensemble", *files, *given, *more)
        return pd.read_csv(tmp_path / "s.csv", keep_default_na=False, dtype=str)

    return tmp_path, call


def test_submission_has_the_samples_order_and_rows_are_averaged_by_id(decide):
    folder, call = decide
    table = call()
    assert list(table.columns) == ["Id", "Predicted"] and table["Id"].tolist() == ["c", "a", "b"]
    assert table["Predicted"].tolist() == ["0 1 2", "0 2", "2"], "at the threshold is positive; b gets its likeliest"
    assert call("--empty", "leave")["Predicted"].tolist() == ["0 1 2", "0 2", ""]
    assert call(thresholds="0.2")["Predicted"].tolist() == ["0 1", "0 2", "1"], "one number for all classes"
    write_predictions(folder / "q.csv", ["c", "b", "a"], [[0.1, 0.1, 0.0], [0.9, 0.9, 0.0], [0.9, 0.1, 0.0]], NAMES)
    assert call(predictions=("p.csv", "q.csv"))["Predicted"].tolist() == ["2", "0 2", "0 1"]


def test_predictions_survive_writing_and_reading_to_the_last_bit(tmp_path):
    values = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    write_predictions(tmp_path / "p.csv", [f"i{n}" for n in range(50)], values, NAMES)
    assert (read_predictions(tmp_path / "p.csv").to_numpy().astype(np.float32) == values).all()


def test_matched_positives_follow_the_exposure(atlas, predictions, thresholds, tmp_path):
    """Predictions that are all lower by the same logit are decided alike, image by image in their order."""
    table = pd.read_csv(predictions, dtype={"Id": str}).set_index("Id")
    write_predictions(tmp_path / "dark.csv", table.index, sigmoid(logit(table.to_numpy(), 1e-12) - 2), table.columns)
    written = []
    for name, option in ((predictions, "--match-positives"), (tmp_path / "dark.csv", "--match-calls")):
        succeed("ensemble", *submission_of(name, thresholds, atlas, tmp_path / "s.csv"), option, "--empty", "leave")
        written.append((tmp_path / "s.csv").read_text())
    assert written[0] == written[1]
    rates = np.array(json.loads(thresholds.read_text())["per_class"]["called"])
    rows = pd.read_csv(tmp_path / "s.csv", dtype=str, keep_default_na=False)["Predicted"].str.split()
    counts = np.array([sum(str(c) in row for row in rows) for c in range(28)])
    assert np.abs(counts - rates * 16).max() <= 0.5 + 1e-9
    words = submission_of(predictions, "0.5", atlas, tmp_path / "t.csv")
    refuse("ensemble", *words, "--match-positives", says="needs a thresholds.json")
    content = json.loads(thresholds.read_text())
    for called in ([0.1] * 27, [0.1] * 29, [2] * 28, ["0.1"] * 28, None):
        content["per_class"]["called"] = called
        (tmp_path / "wrong.json").write_text(json.dumps(content))
        words = submission_of(predictions, tmp_path / "wrong.json", atlas, tmp_path / "t.csv")
        refuse("ensemble", *words, "--match-positives", says=["wrong.json", "called"])


def test_names_need_no_sample_submission_and_keep_the_order_of_the_predictions(decide, monkeypatch):
    folder, _ = decide
    monkeypatch.chdir(folder)
    write_predictions(folder / "q.csv", ["a", "b", "c"], [[0.9, 0.1, 0.2], [0.1, 0.2, 0.04], [0.5, 0.5, 0.05]], "012")
    given = ["--thresholds", folder / "t.json", "--format", "names"]
    for name in ("p.csv", "q.csv"):  # classes by name, and by number
        succeed("ensemble", folder / name, *given)
        assert (folder / "names.csv").read_text().splitlines() == [
            "Id,location,probability,threshold,held_out_f1",
            "a,first,0.9,0.5,",
            "a,third,0.2,0.05,",
            "b,,,,",
            "c,first,0.5,0.5,",
            "c,second,0.5,0.5,",
            "c,third,0.05,0.05,",
        ]
    succeed(
        "ensemble", folder / "p.csv", *given, "--sample", folder / "sample.csv", "--empty", "likeliest", "-o", "n.csv"
    )
    assert [line[:8] for line in (folder / "n.csv").read_text().splitlines()[-1:]] == ["b,third,"], (
        "filled, in its order"
    )
    write_predictions(folder / "r.csv", ["a", "b", "d"], [[0.9, 0.1, 0.2]] * 3, NAMES)
    refuse("ensemble", folder / "p.csv", folder / "r.csv", *given, says=["r.csv does not fit", "p.csv", "missing: c"])


# --oof


@pytest.fixture
def two(tmp_path):
    """Two networks' out-of-fold and test predictions: folder, truth, members (2, N, C), options to fit and to decide."""
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 3)) < 0.1).astype(np.uint8)
    truth[:2] = 1
    members = np.stack([sigmoid(rng.normal(-2, 1, truth.shape) + skill * truth) for skill in (1.5, 1.0)])
    ids = [f"i{n:03}" for n in range(200)]
    pd.DataFrame({"class": range(3), "name": NAMES}).to_csv(tmp_path / "classes.csv", index=False)
    write_labels(tmp_path / "train.csv", dict(zip(ids, decode(truth))))
    for name, member in zip("ab", members):
        write_predictions(tmp_path / f"{name}.csv", ids, member, NAMES)
        write_predictions(tmp_path / f"{name}_test.csv", ids[:50], member[:50], NAMES)
    pd.DataFrame({"Id": ids[:50][::-1], "Predicted": "0"}).to_csv(tmp_path / "sample.csv", index=False)
    fitting = ["--labels", tmp_path / "train.csv", "--classes", tmp_path / "classes.csv", "--repeats", 1]
    fitting += ["--report", tmp_path / "r.json"]
    return tmp_path, truth, members, fitting, ["--sample", tmp_path / "sample.csv", "-o", tmp_path / "s.csv"]


def test_oof_alone_compares_and_writes_no_submission(two):
    folder, _, _, fitting, deciding = two
    out = succeed("ensemble", "--oof", folder / "a.csv", folder / "b.csv", *fitting, "--leave-out").out
    for title in ("a.csv", "b.csv", *(one.title for one in COMBINATIONS.values())):
        assert title in out
    found = json.loads((folder / "r.json").read_text())
    assert set(found["ways"]) == set(COMBINATIONS) and sum(found["greedy_weights"]) == pytest.approx(1)
    assert len(found["loses_without"]) == 2 and found["rows"] == 200 and not (folder / "s.csv").exists()
    thresholds = ["--thresholds", folder / "r.json", *deciding]
    refuse("ensemble", folder / "a_test.csv", *thresholds, says="not a thresholds.json")


@pytest.mark.parametrize("name", COMBINATIONS)
def test_submission_is_the_combination_at_its_thresholds(two, name):
    folder, truth, members, fitting, deciding = two
    oof = ["--oof", folder / "a.csv", folder / "b.csv", *fitting, "--combine", name]
    succeed("ensemble", folder / "a_test.csv", folder / "b_test.csv", *oof, *deciding, "--empty", "leave")
    thresholds = json.loads((folder / "r.json").read_text())["combined_thresholds"]
    scores = COMBINATIONS[name]().fit(truth, members).apply(members[:, :50])
    table = pd.read_csv(folder / "s.csv", dtype=str, keep_default_na=False)
    assert table["Predicted"].tolist() == decode(scores >= thresholds)[::-1]


def test_names_have_the_held_out_f1_of_the_combination(two):
    folder, truth, _, fitting, _ = two
    oof = ["--oof", folder / "a.csv", folder / "b.csv", *fitting, "--combine", "mean"]
    succeed("ensemble", folder / "a_test.csv", folder / "b_test.csv", *oof, "--format", "names", "-o", folder / "n.csv")
    table, report = pd.read_csv(folder / "n.csv"), json.loads((folder / "r.json").read_text())
    f1 = dict(zip(NAMES, report["ways"]["mean"]["per_class_cross_fitted"], strict=True))
    assert table["Id"].drop_duplicates().tolist() == pd.read_csv(folder / "a_test.csv")["Id"].tolist()
    found = table.dropna(subset="location")
    assert len(found) and found["held_out_f1"].tolist() == [f1[name] for name in found["location"]]


def test_one_network_can_be_stacked(two):
    folder, _, _, fitting, deciding = two
    oof = ["--oof", folder / "a.csv", *fitting, "--combine", "stack"]
    out = " ".join(succeed("ensemble", folder / "a_test.csv", *oof, *deciding).out.split())
    assert "stacking changes macro F1 by" in out and "noise (paired with a.csv, cross-fitted)" in out, (
        "independent classes"
    )
    assert len(pd.read_csv(folder / "s.csv")) == 50


def test_rows_are_matched_by_id_and_those_not_in_all_left_out(two):
    folder, _, _, fitting, _ = two
    call = ["ensemble", "--oof", folder / "a.csv", folder / "b.csv", *fitting, "--combine", "mean"]
    succeed(*call)
    straight = (folder / "r.json").read_text()
    table = pd.read_csv(folder / "b.csv", dtype=str)
    table.sample(frac=1, random_state=1).to_csv(folder / "b.csv", index=False)
    succeed(*call)
    assert (folder / "r.json").read_text() == straight
    table.iloc[20:].to_csv(folder / "b.csv", index=False)
    assert "180 rows that all networks have, of 200" in succeed(*call).out
    table.assign(Id="x" + table["Id"]).to_csv(folder / "b.csv", index=False)
    refuse(*call, says="0 Ids in all of")


def test_a_run_of_two_folds_is_one_network(atlas, run, predictions, tmp_path):
    """Each row by the fold that did not see it; the test predictions are those of both folds."""
    words = ["--sample", atlas / "sample_submission.csv", "--repeats", 1, "--combine", "mean", "-o", tmp_path / "s.csv"]
    out = succeed("ensemble", predictions, "--oof", run, *words).out
    assert "over 32 rows" in out and len(pd.read_csv(tmp_path / "s.csv")) == 16
    refuse("ensemble", "--oof", run, "--report", run / "fold0/oof.csv", says="would be overwritten")


def test_wrong_options_are_refused(two):
    folder, _, _, fitting, deciding = two
    both = ["--oof", folder / "a.csv", folder / "b.csv"]
    test = [folder / "a_test.csv", folder / "b_test.csv"]
    refuse("ensemble", test[0], *both, *fitting, *deciding, says="1 prediction file, but 2 networks")
    refuse("ensemble", *both, *fitting[2:], says="--labels")
    refuse("ensemble", *both, *fitting, *deciding, says="--sample is for deciding")
    refuse("ensemble", *both, *fitting, "--match-positives", says="--match-positives is for deciding")
    refuse("ensemble", "--oof", folder / "a.csv", "--oof", folder / "a.csv", *fitting, says="given for two networks")
    refuse("ensemble", "--oof", folder / "no.csv", *fitting, says="no.csv does not exist")
    refuse("ensemble", "--thresholds", "0.5", says="nothing to decide")
    for words in (["--combine", "stack"], ["--labels", folder / "train.csv"], ["--seed", 0], ["--leave-out"]):
        says = f"{words[0]} is for fitting a combination; add --oof"
        refuse("ensemble", test[0], "--thresholds", "0.5", *words, says=says)
    refuse("ensemble", *both, *fitting, "--repeats", 0, says="--repeats 0")
    refuse("ensemble", test[0], test[0], *both, *fitting, *deciding, says="given twice")
    refuse("ensemble", *test, *both, *fitting, *deciding, "--report", folder / "s.csv", says="two outputs")
    refuse("ensemble", *test, *both, *fitting, *deciding, "-o", folder / "train.csv", says="would be overwritten")
    refuse("ensemble", "--oof", folder / "a.csv", *fitting, "--leave-out", says="two networks or more")
    pd.read_csv(test[1]).rename(columns={"first": "other"}).to_csv(test[1], index=False)
    refuse("ensemble", *test, *both, *fitting, *deciding, says="other classes")
    assert not (folder / "s.csv").exists() and not (folder / "r.json").exists()


def test_networks_are_named_by_what_differs_in_their_paths():
    assert ensemble.short_names(["runs/a/oof.csv", "runs/b/oof.csv"]) == ["a/oof.csv", "b/oof.csv"]
    assert ensemble.short_names(["x/one.csv", "x/two.csv"]) == ["one.csv", "two.csv"]
    assert ensemble.short_names([f"runs/{'long' * 10}{n}" for n in (1, 2)]) == [f"…{'long' * 6}{n}" for n in (1, 2)]

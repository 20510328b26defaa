"""threshold.py: rows matched by Id, columns by class, figures in sample and cross-fitted, class priors of a test set."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, write_labels
from sklearn.linear_model import LogisticRegression

from utils.data.labels import decode, encode
from utils.runs.predictions import read_predictions, write_predictions
from utils.scoring.calibration import sigmoid
from utils.scoring.metrics import f1_per_class, macro_f1
from utils.scoring.thresholds import METHODS
from utils.scoring.thresholds.chen import chen_raw

NAMES = ["first", "second", "third"]


@pytest.fixture
def small(tmp_path):
    """60 rows of three classes, predictions that know the labels a little: (folder, truth, probabilities)."""
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 3)) < [0.5, 0.3, 0.1]).astype(int)
    probabilities = np.clip(rng.random((60, 3)) * 0.6 + 0.3 * truth, 0, 1) * [1, 0.5, 0.1]
    return write(tmp_path, truth, probabilities), truth, probabilities


def write(folder, truth, probabilities, names=NAMES):
    ids = [f"i{n:02}" for n in range(len(truth))]
    pd.DataFrame({"class": range(len(names)), "name": names}).to_csv(folder / "classes.csv", index=False)
    write_labels(folder / "train.csv", dict(zip(ids, decode(truth), strict=True)))
    write_predictions(folder / "oof.csv", ids, probabilities, names)
    return folder


def command(folder, *more, oof=("oof.csv",), labels="train.csv"):
    files = [folder / name for name in oof]
    given = ["--labels", folder / labels, "--classes", folder / "classes.csv", "-o", folder / "t.json"]
    return ["threshold", *files, *given, "--repeats", 1, *more]


def fit(folder, *more, **files):
    succeed(*command(folder, *more, **files))
    return json.loads((folder / "t.json").read_text())


def test_thresholds_file_has_method_classes_and_both_scores(small):
    folder, truth, probabilities = small
    for method in ("fixed", "global", "per_class"):
        found = fit(folder, "--method", method)
        assert found["method"] == method and found["classes"] == NAMES and len(found["thresholds"]) == 3
        assert found["macro_f1"]["in_sample"] == pytest.approx(macro_f1(truth, probabilities >= found["thresholds"]))
        low, high = found["macro_f1"]["interval_95"]
        assert low <= found["macro_f1"]["cross_fitted"] <= high
    assert fit(folder, "--method", "fixed")["thresholds"] == [0.5] * 3
    assert len(set(fit(folder, "--method", "global")["thresholds"])) == 1


def test_auto_takes_the_best_cross_fitted(small):
    folder, *_ = small
    assert fit(folder)["method"] == "bagged"
    found = fit(folder, "--method", "auto")
    scores = {name: part["cross_fitted"] for name, part in found["methods"].items()}
    assert set(scores) == {name for name, method in METHODS.items() if not method.needs_epochs}
    assert scores[found["method"]] == max(scores.values()) == found["macro_f1"]["cross_fitted"]


def test_figures_of_each_class_are_printed_and_written(small):
    folder, truth, probabilities = small
    out = succeed(*command(folder)).out
    found = json.loads((folder / "t.json").read_text())
    table = found["per_class"]
    assert table["positives"] == truth.sum(axis=0).tolist()
    assert table["called"] == pytest.approx((probabilities >= found["thresholds"]).mean(axis=0))
    assert table["f1_in_sample"] == pytest.approx(f1_per_class(truth, probabilities >= found["thresholds"]))
    for column, ((low, high), counts) in enumerate(zip(table["interval_95"], table["calls_at_interval"], strict=True)):
        assert counts == [(probabilities[:, column] >= threshold).sum() for threshold in (high, low)]
    flagged = {line[3:].split("  ")[0].strip() for line in out.splitlines() if line.endswith(" !")}
    assert flagged == {name for name, loose in zip(NAMES, table["loose"], strict=True) if loose}
    for name, (fewest, most) in zip(NAMES, table["calls_at_interval"], strict=True):
        assert name not in flagged or f"{name} {fewest} to {most}" in " ".join(out.split())


def test_predictions_that_are_all_alike_are_all_positive(small):
    """All positive is the best for a network that predicts the same for every image, and no error."""
    folder, truth, _ = small
    values = [0.0, 0.3, 1.0]
    write(folder, truth, np.tile(values, (60, 1)))
    for method in ("bagged", "per_class", "calibrated"):
        found = fit(folder, "--method", method)
        assert (np.array(found["thresholds"]) <= values).all() and found["per_class"]["called"] == [1, 1, 1]
    fit(folder, "--figures", folder / "figures", "--plot", folder / "p.png")
    for name in ("thresholds.png", "f1_curves.png", "precision_recall.png", "reliability.png"):
        assert (folder / "figures" / name).read_bytes().startswith(b"\x89PNG")
    assert (folder / "p.png").read_bytes() == (folder / "figures/thresholds.png").read_bytes()


def test_missing_and_impossible_values_are_refused(small):
    folder, *_ = small
    for value in ("nan", "", "1.2", "-0.1", "inf"):
        table = pd.read_csv(folder / "oof.csv", dtype=str)
        table.loc[4, "second"] = value
        table.to_csv(folder / "wrong.csv", index=False)
        refuse(*command(folder, oof=["wrong.csv"]), says=["wrong.csv", "row 6, second"])
    write_labels(folder / "fewer.csv", {"i00": "0"})
    refuse(*command(folder, labels="fewer.csv"), says="fewer.csv lacks 59 Ids")
    refuse(*command(folder, "--method", "chen_smoothed"), says="the epochs' predictions")
    assert not (folder / "t.json").exists()


def test_labels_are_matched_by_id_and_files_are_pooled(small):
    """The same thresholds after shuffling either file, and from the rows in two files."""
    folder, *_ = small
    straight = fit(folder)
    table, labels = (pd.read_csv(folder / name, dtype=str, keep_default_na=False) for name in ("oof.csv", "train.csv"))
    table.sample(frac=1, random_state=1).to_csv(folder / "shuffled.csv", index=False)
    shuffled = fit(folder, oof=["shuffled.csv"])
    assert shuffled["thresholds"] == straight["thresholds"]
    assert shuffled["macro_f1"]["in_sample"] == straight["macro_f1"]["in_sample"]
    labels.sample(frac=1, random_state=2).to_csv(folder / "train.csv", index=False)
    assert fit(folder) == straight
    table.iloc[:25].to_csv(folder / "a.csv", index=False)
    table.iloc[25:].to_csv(folder / "b.csv", index=False)
    assert fit(folder, oof=["a.csv", "b.csv"])["thresholds"] == straight["thresholds"]


def test_one_class_and_rows_without_any_can_be_split_and_fitted(tmp_path):
    truth = np.arange(12)[:, None] % 3 == 0
    folder = write(tmp_path, truth, np.where(truth, 0.3, 0.1), ["only"])
    folds = ["--classes", folder / "classes.csv", "--folds", 2, "-o", folder / "f.csv"]
    succeed("make_folds", "--labels", folder / "train.csv", *folds)
    table = pd.read_csv(folder / "f.csv", keep_default_na=False, dtype=str)
    assert table.groupby(["Target", "fold"]).size().tolist() == [4, 4, 2, 2]
    found = fit(folder)
    assert 0.1 < found["thresholds"][0] <= 0.3 and found["macro_f1"]["cross_fitted"] == 1


def test_a_run_needs_no_option_and_its_epochs_are_smoothed_over(run, tmp_path):
    """chen_smoothed: the mean of the raw thresholds of both epochs up to the best one, of both folds pooled."""
    out = succeed("threshold", run, "--method", "chen_smoothed", "--repeats", 1, "-o", tmp_path / "t.json").out
    found = json.loads((tmp_path / "t.json").read_text())
    assert set(found["methods"]) == set(METHODS) and found["rows"] == 32 and "smooth over" in out
    folders = [run / "fold0", run / "fold1"]
    best = [int(pd.read_csv(folder / "log.csv")["macro_f1"].idxmax()) + 1 for folder in folders]
    tables = [read_predictions(folder / "oof.csv") for folder in folders]
    targets = pd.concat([pd.read_csv(folder / "rows.csv", dtype=str, keep_default_na=False) for folder in folders])
    targets = targets.drop_duplicates("Id").set_index("Id")["Target"]
    truth = encode(targets.loc[[id_ for table in tables for id_ in table.index]], tables[0].columns)
    raw = []
    for back in range(min(best)):
        parts = [np.load(f / f"validation/epoch{b - back:03}.npy").astype(float) for f, b in zip(folders, best)]
        raw.append(chen_raw(truth, np.concatenate(parts)))
    assert found["thresholds"] == pytest.approx(np.mean(raw, axis=0))


# a stack of one network


@pytest.fixture
def excluding(tmp_path):
    """800 rows whose class `second` is seen only in what the network predicts for the other two, and 40 test rows."""
    rng = np.random.default_rng(0)
    truth = np.eye(3, dtype=int)[rng.integers(3, size=840)]
    logits = rng.normal(-1, 1, truth.shape) + [3, 0, 3] * truth
    folder = write(tmp_path, truth[:800], sigmoid(logits)[:800])
    write_predictions(folder / "test.csv", [f"t{n:02}" for n in range(40)], sigmoid(logits)[800:], NAMES)
    write_labels(folder / "solution.csv", {f"t{n:02}": one for n, one in enumerate(decode(truth[800:]))})
    return folder, truth[:800], sigmoid(logits)


def by_scikit_learn(stack, probabilities):
    """Scores of a stack's weights, by scikit-learn."""
    scores, roots = np.empty(probabilities.shape), np.sqrt(probabilities)
    for c, (weights, intercept) in enumerate(zip(stack["weights"], stack["intercepts"])):
        model = LogisticRegression()
        model.coef_, model.intercept_, model.classes_ = np.array([weights]), np.array([intercept]), np.array([0, 1])
        own = np.clip(np.log(probabilities[:, c] / (1 - probabilities[:, c])), -6, 6)
        scores[:, c] = model.predict_proba(np.column_stack([own, roots[:, c], roots]))[:, 1]
    return scores


def test_a_stack_is_offered_taken_and_applied(excluding):
    folder, truth, probabilities = excluding
    out = " ".join(succeed(*command(folder)).out.split())
    plain = json.loads((folder / "t.json").read_text())
    assert plain["stack"] is None and plain["method"] == "bagged" and "; --stack does it" in out

    found = fit(folder, "--stack")
    assert found["method"] == "stacked" and found["macro_f1"] == found["methods"]["stacked"]
    gain = found["macro_f1"]["cross_fitted"] - plain["macro_f1"]["cross_fitted"]
    assert gain > 0.05 and f"stacking changes macro F1 by {gain:+.4f} ± 0.0" in out and "noise" not in out
    scores = by_scikit_learn(found["stack"], probabilities)
    decided = scores >= found["thresholds"]
    assert found["macro_f1"]["in_sample"] == pytest.approx(macro_f1(truth, decided[:800]))
    assert found["per_class"]["f1_in_sample"] == pytest.approx(f1_per_class(truth, decided[:800]))
    words = [folder / "test.csv", "--thresholds", folder / "t.json", "--empty", "leave"]
    succeed("ensemble", *words, "--sample", folder / "solution.csv", "-o", folder / "s.csv")
    submitted = pd.read_csv(folder / "s.csv", dtype=str, keep_default_na=False)["Predicted"].tolist()
    assert submitted == decode(decided[800:]) != decode(probabilities[800:] >= plain["thresholds"])
    solution = encode(pd.read_csv(folder / "solution.csv", dtype=str)["Target"], NAMES)
    for judged in ([folder / "s.csv"], [folder / "test.csv", "--thresholds", folder / "t.json"]):
        words = ["--labels", folder / "solution.csv", "--classes", folder / "classes.csv", "-o", folder / "e.json"]
        succeed("utils.tools.evaluate", *judged, *words)
        scored = json.loads((folder / "e.json").read_text())["scores"]
        (figures,) = scored.values()
        assert figures["f1"]["class"] == pytest.approx(macro_f1(solution, decided[800:]))


def test_a_gain_of_stacking_that_is_noise_is_called_so(small):
    folder, *_ = small
    assert "cannot be told from noise" in " ".join(succeed(*command(folder)).out.split())
    refuse(*command(folder, "--stack", "--method", "per_class"), says="leave --method per_class out")


def test_class_priors_move_the_thresholds_of_a_stack(excluding):
    folder, *_ = excluding
    plain = fit(folder, "--stack")
    (folder / "priors.csv").write_text("class,share\n0,0.6\n1,0.33\n2,0.1\n")
    moved = fit(folder, "--stack", "--class-priors", folder / "priors.csv")
    assert moved["stack"] == plain["stack"]
    assert moved["thresholds"][0] < plain["thresholds"][0] and moved["thresholds"][2] > plain["thresholds"][2]


def test_a_damaged_stack_is_refused(excluding):
    folder, *_ = excluding
    content = fit(folder, "--stack")
    words = [folder / "test.csv", "--thresholds", folder / "t.json", "--sample", folder / "solution.csv"]
    for wrong in ([], {"weights": content["stack"]["weights"]}, {"weights": [["x"]], "intercepts": [0, 0, 0]}):
        (folder / "t.json").write_text(json.dumps(content | {"stack": wrong}))
        refuse("ensemble", *words, "-o", folder / "s.csv", says="t.json holds no usable stack")
    for key, value, says in (
        ("intercepts", [0.0] * 4, "not of 3 classes"),
        ("intercepts", [0.0, 0.0, float("nan")], "no usable numbers"),
        ("weights", [[1e16] * 5] * 3, "no usable numbers"),
    ):
        (folder / "t.json").write_text(json.dumps(content | {"stack": content["stack"] | {key: value}}))
        refuse("ensemble", *words, "-o", folder / "s.csv", says=says)
    assert not (folder / "s.csv").exists()


# class priors of a test set


@pytest.fixture
def shifted(tmp_path):
    """1500 rows, and predictions of a test set with other class priors: (folder, priors of the test set)."""
    rng = np.random.default_rng(4)
    train, test = ((rng.random((1500, 3)) < priors).astype(int) for priors in ([0.3, 0.2, 0.1], [0.6, 0.2, 0.05]))
    oof, unlabelled = (sigmoid(rng.normal(-2, 1, truth.shape) + 3 * truth) for truth in (train, test))
    write(tmp_path, train, oof)
    write_predictions(tmp_path / "test.csv", [f"t{n}" for n in range(1500)], unlabelled, NAMES)
    return tmp_path, test.mean(axis=0)


def test_thresholds_follow_class_priors_that_are_known_or_estimated(shifted):
    folder, priors = shifted
    plain = fit(folder)
    assert plain["shares"] is None
    (folder / "priors.csv").write_text("class,share\nsecond,0.2\n0,0.6\nthird,0.05\n")
    known = fit(folder, "--class-priors", folder / "priors.csv")
    assert known["shares"] == [0.6, 0.2, 0.05]
    assert fit(folder, "--shares", folder / "priors.csv") == known, "the earlier name of the option"
    estimated = fit(folder, "--estimate-class-priors", folder / "test.csv")
    assert estimated["shares"] == pytest.approx(priors, rel=0.25)
    for found in (known, estimated):
        assert found["thresholds"][0] < plain["thresholds"][0] and found["thresholds"][2] > plain["thresholds"][2]
        assert found["macro_f1"] == plain["macro_f1"], "figures are for the rows' own priors"


def test_wrong_class_priors_are_refused(shifted):
    folder, _ = shifted
    wrong = {
        "class,share\nfirst,0.2\n": "no share of second",
        "class,share\nfirst,2\n": "row 2",
        "class,share\n7,0.2\n": "row 2",
        "class,share\n0,.2\nfirst,.2\n": "row 3",
        "class\n0\n": "lacks the column share",
    }
    for content, says in wrong.items():
        (folder / "priors.csv").write_text(content)
        refuse(*command(folder, "--class-priors", folder / "priors.csv"), says=["priors.csv", says])
    estimate = ["--estimate-class-priors", folder / "test.csv"]
    refuse(*command(folder, *estimate, "--class-priors", "x.csv"), says="give one")
    refuse(*command(folder, *estimate, "--method", "per_class"), says="cannot use class priors")
    refuse(*command(folder, *estimate[:1], folder / "train.csv"), says="train.csv")
    assert not (folder / "t.json").exists()

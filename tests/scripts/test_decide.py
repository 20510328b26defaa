"""threshold.py and ensemble.py: rows matched by Id, columns by class, order kept."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, submission_of, succeed, write_labels

from utils.data.labels import encode
from utils.runs.predictions import read_predictions, write_predictions
from utils.scoring import thresholds
from utils.scoring.metrics import f1_per_class, macro_f1

NAMES = ["first", "second", "third"]


@pytest.fixture
def small(tmp_path):
    """60 rows of three classes, predictions that know the labels a little: (folder, truth, probabilities)."""
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 3)) < [0.5, 0.3, 0.1]).astype(int)
    probabilities = np.clip(rng.random((60, 3)) * 0.6 + 0.3 * truth, 0, 1) * [1, 0.5, 0.1]
    ids = [f"i{n:02}" for n in range(60)]
    pd.DataFrame({"class": range(3), "name": NAMES}).to_csv(tmp_path / "classes.csv", index=False)
    write_labels(tmp_path / "train.csv", {id_: " ".join(map(str, np.flatnonzero(row))) for id_, row in zip(ids, truth)})
    write_predictions(tmp_path / "oof.csv", ids, probabilities, NAMES)
    return tmp_path, truth, probabilities


def fit(folder, *more, oof="oof.csv"):
    succeed(
        "threshold",
        folder / oof,
        "--labels",
        folder / "train.csv",
        "--classes",
        folder / "classes.csv",
        "-o",
        folder / "t.json",
        *more,
    )
    return json.loads((folder / "t.json").read_text())


def test_thresholds_file_says_method_classes_and_both_scores(small):
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
    assert set(scores) == set(thresholds.METHODS) - thresholds.NEED_EPOCHS
    assert scores[found["method"]] == max(scores.values()) == found["macro_f1"]["cross_fitted"]


def test_what_is_known_of_each_class_is_told(small):
    folder, truth, probabilities = small
    out = succeed("threshold", folder / "oof.csv", "--labels", folder / "train.csv", "--classes", folder / "classes.csv",
                  "-o", folder / "t.json").out  # fmt: skip
    found = json.loads((folder / "t.json").read_text())
    known = found["per_class"]
    assert known["positives"] == truth.sum(axis=0).tolist()
    assert known["called"] == pytest.approx((probabilities >= found["thresholds"]).mean(axis=0))
    assert known["f1_in_sample"] == pytest.approx(f1_per_class(truth, probabilities >= found["thresholds"]))
    for column, ((low, high), calls) in enumerate(zip(known["interval_95"], known["calls_at_interval"], strict=True)):
        assert calls == [(probabilities[:, column] >= cut).sum() for cut in (high, low)]
    joined = " ".join(out.split())
    flagged = {line[3:].split("  ")[0].strip() for line in out.splitlines() if line.endswith(" !")}
    loose = {name for name, loose in zip(NAMES, known["loose"], strict=True) if loose}
    assert flagged == loose and all(
        f"{name} {a} to {b}" in joined for name, (a, b) in zip(NAMES, known["calls_at_interval"]) if name in loose
    )


def test_figures_are_drawn(small, tmp_path):
    folder, *_ = small
    fit(folder, "--figures", folder / "figures", "--plot", folder / "p.png")
    for name in ("thresholds.png", "f1_curves.png", "precision_recall.png", "reliability.png"):
        assert (folder / "figures" / name).read_bytes().startswith(b"\x89PNG")
    assert (folder / "p.png").read_bytes() == (folder / "figures/thresholds.png").read_bytes()


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_predictions_that_are_all_alike_call_every_row(small, value):
    """A network that says the same of every image: calling all of them is the best there is, and no error."""
    folder, truth, probabilities = small
    table = pd.read_csv(folder / "oof.csv", dtype={"Id": str})
    table["second"] = value
    table.to_csv(folder / "oof.csv", index=False)
    for method in ("bagged", "per_class", "calibrated"):
        found = fit(folder, "--method", method, "--figures", folder / "figures")
        assert found["thresholds"][1] <= value and found["per_class"]["called"][1] == 1


def test_missing_and_impossible_values_are_refused(small):
    folder, *_ = small
    for value in ("nan", "", "1.2", "-0.1", "inf"):
        table = pd.read_csv(folder / "oof.csv", dtype=str)
        table.loc[4, "second"] = value
        table.to_csv(folder / "wrong.csv", index=False)
        refuse("threshold", folder / "wrong.csv", "--labels", folder / "train.csv", "--classes", folder / "classes.csv", "-o",
               folder / "t.json", says=["wrong.csv", "row 6, second"])  # fmt: skip
    write_labels(folder / "fewer.csv", {"i00": "0"})
    refuse("threshold", folder / "oof.csv", "--labels", folder / "fewer.csv", "--classes", folder / "classes.csv", "-o",
           folder / "t.json", says="fewer.csv lacks 59 Ids")  # fmt: skip
    assert not (folder / "t.json").exists()


def test_labels_are_matched_by_id_after_shuffling_either_file(small):
    folder, *_ = small
    straight = fit(folder)
    pd.read_csv(folder / "oof.csv", dtype=str).sample(frac=1, random_state=1).to_csv(
        folder / "shuffled.csv", index=False
    )
    shuffled = fit(folder, "--method", straight["method"], oof="shuffled.csv")
    assert shuffled["thresholds"] == straight["thresholds"]
    assert shuffled["macro_f1"]["in_sample"] == straight["macro_f1"]["in_sample"]
    pd.read_csv(folder / "train.csv", dtype=str).sample(frac=1, random_state=2).to_csv(
        folder / "train.csv", index=False
    )
    assert fit(folder) == straight


def test_folds_are_pooled_before_they_are_scored(small):
    folder, truth, probabilities = small
    whole = fit(folder, "--method", "per_class")
    table = pd.read_csv(folder / "oof.csv", dtype=str)
    table.iloc[:25].to_csv(folder / "a.csv", index=False)
    table.iloc[25:].to_csv(folder / "b.csv", index=False)
    succeed("threshold", folder / "a.csv", folder / "b.csv", "--labels", folder / "train.csv", "--classes", folder / "classes.csv",
            "--method", "per_class", "-o", folder / "t.json")  # fmt: skip
    assert json.loads((folder / "t.json").read_text())["thresholds"] == whole["thresholds"]


def test_a_run_folder_needs_no_other_word(run):
    out = succeed("threshold", run, "--plot", run / "thresholds.png").out
    assert (run / "thresholds.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((run / "thresholds.json").read_text())
    assert len(found["thresholds"]) == 28 and found["rows"] == 32 and "cross-fitted" in out
    assert set(found["methods"]) == set(thresholds.METHODS) and "smooth over" in out
    for name in ("thresholds.json", "thresholds.png"):
        (run / name).unlink()


def test_smoothing_uses_the_epochs_that_the_run_kept(run, tmp_path):
    """The mean of the raw thresholds of both epochs up to the best one, of both folds pooled."""
    succeed("threshold", run, "--method", "chen_smoothed", "-o", tmp_path / "t.json")
    found = json.loads((tmp_path / "t.json").read_text())
    folders = [run / "fold0", run / "fold1"]
    best = [int(pd.read_csv(folder / "log.csv")["macro_f1"].idxmax()) + 1 for folder in folders]
    tables = [read_predictions(folder / "oof.csv") for folder in folders]
    targets = pd.concat([pd.read_csv(folder / "rows.csv", dtype=str, keep_default_na=False) for folder in folders])
    targets = targets.drop_duplicates("Id").set_index("Id")["Target"]
    truth = encode(targets.loc[[id_ for table in tables for id_ in table.index]], tables[0].columns)
    raw = []
    for back in range(min(best)):
        parts = [np.load(f / f"validation/epoch{b - back:03}.npy").astype(float) for f, b in zip(folders, best)]
        raw.append(thresholds.chen_raw(truth, np.concatenate(parts)))
    assert found["thresholds"] == pytest.approx(np.mean(raw, axis=0))


def test_smoothing_without_a_run_is_refused(small):
    folder, *_ = small
    refuse("threshold", folder / "oof.csv", "--labels", folder / "train.csv", "--classes", folder / "classes.csv", "-o",
           folder / "t.json", "--method", "chen_smoothed", says="the epochs' predictions")  # fmt: skip
    assert not (folder / "t.json").exists()


@pytest.fixture
def decide(tmp_path):
    """Predictions, thresholds and a sample submission in another order."""
    write_predictions(tmp_path / "p.csv", ["a", "b", "c"], [[0.9, 0.1, 0.2], [0.1, 0.2, 0.04], [0.5, 0.5, 0.05]], NAMES)
    (tmp_path / "t.json").write_text(
        json.dumps({"classes": NAMES, "thresholds": [0.5, 0.5, 0.05], "method": "x", "macro_f1": {}})
    )
    pd.DataFrame({"Id": ["c", "a", "b"], "Predicted": "0"}).to_csv(tmp_path / "sample.csv", index=False)

    def call(*more, predictions=("p.csv",)):
        files = [tmp_path / name for name in predictions]
        succeed(
            "ensemble",
            *files,
            "--thresholds",
            tmp_path / "t.json",
            "--sample",
            tmp_path / "sample.csv",
            "-o",
            tmp_path / "s.csv",
            *more,
        )
        return pd.read_csv(tmp_path / "s.csv", keep_default_na=False, dtype=str)

    return tmp_path, call


def test_submission_keeps_the_samples_order(decide):
    table = decide[1]()
    assert list(table.columns) == ["Id", "Predicted"] and table["Id"].tolist() == ["c", "a", "b"]
    assert table["Predicted"].tolist() == ["0 1 2", "0 2", "2"], (
        "at the threshold counts; b gets what is nearest to its own"
    )


def test_empty_rows_can_be_left_empty(decide):
    assert decide[1]("--empty", "leave")["Predicted"].tolist() == ["0 1 2", "0 2", ""]


def test_files_are_averaged_by_id_not_by_place(decide):
    folder, call = decide
    write_predictions(folder / "q.csv", ["c", "b", "a"], [[0.1, 0.1, 0.0], [0.9, 0.9, 0.0], [0.9, 0.1, 0.0]], NAMES)
    assert call(predictions=("p.csv", "q.csv"))["Predicted"].tolist() == ["2", "0 2", "0 1"]


def test_one_number_serves_all_classes(decide):
    folder, _ = decide
    succeed(
        "ensemble", folder / "p.csv", "--thresholds", "0.2", "--sample", folder / "sample.csv", "-o", folder / "s.csv"
    )
    assert pd.read_csv(folder / "s.csv", dtype=str)["Predicted"].tolist() == ["0 1", "0 2", "1"]


def test_predictions_survive_writing_and_reading_to_the_last_bit(tmp_path):
    values = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    write_predictions(tmp_path / "p.csv", [f"i{n}" for n in range(50)], values, NAMES)
    assert (read_predictions(tmp_path / "p.csv").to_numpy().astype(np.float32) == values).all()


def test_score_table_and_contact_sheet(atlas, run, predictions, thresholds, tmp_path):
    succeed("ensemble", *submission_of(predictions, thresholds, atlas, tmp_path / "s.csv"))
    out = succeed("utils.tools.score", tmp_path / "s.csv", "--truth", atlas / "solution.csv", "--images", atlas / "test",
                  "--sheet", tmp_path / "sheet.png").out  # fmt: skip
    truth, mine = (
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in (atlas / "solution.csv", tmp_path / "s.csv")
    )
    matrices = []
    for column in (truth["Target"], mine["Predicted"]):
        matrices.append(np.array([[str(c) in text.split() for c in range(28)] for text in column]))
    assert f"{macro_f1(*matrices):.4f}" in out and "constant" in out
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_one_class_and_rows_without_any_can_be_split_and_fitted(tmp_path):
    (tmp_path / "classes.csv").write_text("class,name\n0,only\n")
    write_labels(tmp_path / "train.csv", {f"i{n}": "0" if n % 3 == 0 else "" for n in range(12)})
    succeed(
        "make_folds",
        "--labels",
        tmp_path / "train.csv",
        "--classes",
        tmp_path / "classes.csv",
        "--folds",
        2,
        "-o",
        tmp_path / "f.csv",
    )
    table = pd.read_csv(tmp_path / "f.csv", keep_default_na=False, dtype=str)
    assert table.groupby(["Target", "fold"]).size().tolist() == [4, 4, 2, 2]
    write_predictions(
        tmp_path / "oof.csv", table["Id"], [[0.3 if target else 0.1] for target in table["Target"]], ["only"]
    )
    assert 0.1 < fit(tmp_path)["thresholds"][0] <= 0.3 and fit(tmp_path)["macro_f1"]["cross_fitted"] == 1

"""python -m utils.tools.evaluate and score: readings, a person's column, McNemar's test, test sets that no run has seen."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, submission_of, succeed, train_options, write_labels
from sklearn import metrics as sk

from utils.data.labels import HPA_CLASSES, decode, encode
from utils.runs.predictions import write_predictions
from utils.scoring.metrics import macro_f1, multilabel_scores
from utils.scoring.significance import mcnemar


@pytest.fixture
def judged(tmp_path):
    """60 images, predictions for all, a person's labels of 25 in another order: (folder, truth, decisions, answers, rows)."""
    rng = np.random.default_rng(5)
    truth = (rng.random((60, 28)) < rng.choice([0.5, 0.1, 0.0], 28)).astype(int)
    decisions = (truth ^ (rng.random(truth.shape) < 0.2)).astype(int)
    truth[:, 0] |= 1 - truth.any(axis=1)
    ids = [f"i{n:02}" for n in range(60)]
    answers = (truth & (rng.random(truth.shape) < 0.6)).astype(int)
    write_predictions(tmp_path / "p.csv", ids, np.where(decisions, 0.8, 0.1), HPA_CLASSES)
    write_labels(tmp_path / "truth.csv", dict(zip(ids, decode(truth))))
    write_labels(tmp_path / "sub.csv", dict(zip(reversed(ids), decode(decisions[::-1]))), column="Predicted")
    rows = rng.permutation(60)[:25]
    write_labels(tmp_path / "human.csv", {ids[i]: text for i, text in zip(rows, decode(answers[rows]))})
    return tmp_path, truth, decisions, answers, rows


def command(folder, *more, predictions="p.csv", labels="truth.csv", at=("--thresholds", 0.5)):
    return ["utils.tools.evaluate", folder / predictions, "--labels", folder / labels, *at, *more]


def test_predictions_and_the_submission_made_of_them_score_alike(judged):
    folder, truth, decisions, *_ = judged
    out = succeed(*command(folder, "-o", folder / "first.json")).out
    succeed(*command(folder, "-o", folder / "second.json", predictions="sub.csv", at=()))
    first, second = (json.loads((folder / name).read_text())["scores"] for name in ("first.json", "second.json"))
    expected = sk.f1_score(truth, decisions, average="macro", zero_division=0)
    assert first["machine, 60"]["f1"]["class"] == pytest.approx(expected)
    assert "F1, sample mean" in out and "IoU, class mean" in out
    present = truth.any(axis=0)
    precision = sk.average_precision_score(truth[:, present], np.where(decisions, 0.8, 0.1)[:, present])
    assert json.loads((folder / "first.json").read_text())["mean_average_precision"] == pytest.approx(precision)
    assert f"average precision, mean of the {present.sum()} classes that occur: {precision:.4f}" in out
    assert json.loads((folder / "second.json").read_text())["mean_average_precision"] is None
    for name in ("f1", "precision", "recall", "iou"):
        assert second["machine, 60"][name] == pytest.approx(first["machine, 60"][name])


def test_the_person_is_compared_on_the_same_images(judged):
    folder, truth, decisions, answers, rows = judged
    outputs = ["--plot", folder / "f.png", "-o", folder / "o.json"]
    out = succeed(*command(folder, "--human", folder / "human.csv", *outputs)).out
    found = json.loads((folder / "o.json").read_text())
    recall = found["scores"]["person, 25"]["recall"]["pooled"]
    assert recall == pytest.approx(sk.recall_score(truth[rows], answers[rows], average="micro"))
    assert found["scores"]["machine, same"] == multilabel_scores(truth[rows], decisions[rows])
    right = [(part[rows] == truth[rows]).all(axis=1) for part in (decisions, answers)]
    assert found["mcnemar"]["images"] == mcnemar(*right)
    labels = found["mcnemar"]["labels"]
    assert labels["both"] + labels["only_first"] == (decisions == truth)[rows].sum()
    assert "McNemar" in out and (folder / "f.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_refuses(judged):
    folder, *_ = judged
    refuse(*command(folder, at=()), says="add --thresholds")
    refuse(*command(folder, predictions="sub.csv"), says="already decided")
    write_labels(folder / "other.csv", {"stranger": "1"})
    refuse(*command(folder, "--human", folder / "other.csv"), says=["other.csv", "stranger"])
    refuse(*command(folder, labels="other.csv"), says="lacks 60 Ids")
    refuse(*command(folder, "--unseen-by", folder), says="best.safetensors")
    refuse(*command(folder, "-o", folder / "truth.csv" / "x.json"), says="cannot write")


def test_images_a_run_has_seen_are_no_test_set(run, atlas, predictions, tmp_path):
    command = ["utils.tools.evaluate", "--thresholds", 0.5, "--labels"]
    succeed(*command, atlas / "solution.csv", predictions, "--unseen-by", run)
    says = ["17 Ids of 17", "trained or validated on", "rows.csv"]
    refuse(*command, atlas / "train.csv", run / "fold0/oof.csv", "--unseen-by", run, says=says)
    own = shutil.copytree(run, tmp_path / "own")
    (own / "fold1/rows.csv").unlink()
    refuse(*command, atlas / "solution.csv", predictions, "--unseen-by", own, says=["fold1/rows.csv", "not known"])


def test_thresholds_fitted_on_the_same_file_are_reported(run, atlas, predictions, thresholds):
    command = ["utils.tools.evaluate", "--thresholds", thresholds, "--labels"]
    for fold in ("fold0", "fold1"):
        assert "IN SAMPLE" in succeed(*command, atlas / "train.csv", run / fold / "oof.csv").out
    assert "IN SAMPLE" not in succeed(*command, atlas / "solution.csv", predictions).out


def test_score_table_and_contact_sheet(atlas, predictions, thresholds, tmp_path):
    succeed("ensemble", *submission_of(predictions, thresholds, atlas, tmp_path / "s.csv"))
    sheet = ["--images", atlas / "test", "--sheet", tmp_path / "sheet.png"]
    out = succeed("utils.tools.score", tmp_path / "s.csv", "--truth", atlas / "solution.csv", *sheet).out
    files = (atlas / "solution.csv", tmp_path / "s.csv")
    truth, decided = (pd.read_csv(path, dtype=str, keep_default_na=False).set_index("Id") for path in files)
    matrices = encode(truth["Target"], HPA_CLASSES), encode(decided["Predicted"][truth.index], HPA_CLASSES)
    assert f"{macro_f1(*matrices):.4f}" in out and "constant" in out
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


# external test sets in folds.csv


@pytest.fixture
def with_test(own_atlas, tmp_path):
    """Folds of the atlas' train images, its test images as an external test set."""
    images = ["--images", own_atlas / "train", "--images", own_atlas / "test"]
    test = ["--test", f"other={own_atlas / 'solution.csv'}", "--plot", tmp_path / "f.png"]
    table = tmp_path / "folds.csv"
    out = succeed("make_folds", "--labels", own_atlas / "train.csv", *images, "--folds", 3, "-o", table, *test).out
    return own_atlas, table, pd.read_csv(table, dtype=str, keep_default_na=False), out


def test_the_external_test_set_is_kept_apart(with_test, tmp_path, folds):
    own_atlas, path, table, out = with_test
    test = table[table["source"] == "other"]
    twins = int(out.split(" test row")[0].splitlines()[-1]) if "in the training set left out" in out else 0
    assert len(test) == 16 - twins and set(test["fold"]) == {"-2"} and "never trained on" in out
    assert not set(test["group"]) & set(table["group"][table["fold"] != "-2"])
    alone = pd.read_csv(folds, dtype=str, keep_default_na=False)
    assert table["Id"][table["fold"] != "-2"].tolist() == alone["Id"].tolist()
    succeed("train", *train_options(own_atlas, path, tmp_path / "runs", epochs=1))
    rows = pd.read_csv(tmp_path / "runs/mini/fold0/rows.csv", dtype=str)
    assert len(rows) == 48 and not set(rows["Id"]) & set(test["Id"])


def test_training_on_the_external_test_set_is_refused(with_test, tmp_path):
    own_atlas, path, table, _ = with_test
    runs, labels = tmp_path / "runs", own_atlas / "train.csv"
    refuse("train", *train_options(own_atlas, path, runs, fold=-2), says="--fold -2")
    row = table.index[table["source"] == "other"][0]
    table.loc[0, "group"] = table.loc[row, "group"]
    table.to_csv(path, index=False)
    refuse("train", *train_options(own_atlas, path, runs), says=["row 2", "in the external test set"])
    images = ["--images", own_atlas / "train", "--runs", runs]
    refuse("utils.tools.baseline", "--folds", path, "--fold", 0, *images, says="in the external test set")
    assert not runs.exists()
    test = ["--test", f"other={labels}", "--folds", 3, "-o", path]
    refuse("make_folds", "--labels", labels, *test, says="more than once")


def test_a_test_set_without_images_is_refused_unless_near_duplicates_do_not_matter(own_atlas, tmp_path):
    command = ["make_folds", "--labels", own_atlas / "train.csv", "--images", own_atlas / "train", "--folds", 3]
    command += ["-o", tmp_path / "f.csv", "--test", f"other={own_atlas / 'solution.csv'}"]
    refuse(*command, says=["test set other", "--images"])
    succeed(*command, "--hash-distance", -1)
    assert (pd.read_csv(tmp_path / "f.csv")["fold"] == -2).sum() == 16


def test_a_test_image_that_shows_a_training_image_is_left_out(own_atlas, tmp_path):
    first = pd.read_csv(own_atlas / "train.csv", dtype=str)["Id"][0]
    for colour in ("red", "green", "blue", "yellow"):
        shutil.copy(own_atlas / "train" / f"{first}_{colour}.png", own_atlas / "test" / f"copy_{colour}.png")
    with open(own_atlas / "solution.csv", "a") as file:
        file.write("copy,0\n")
    images = ["--images", own_atlas / "train", "--images", own_atlas / "test", "--folds", 3, "-o", tmp_path / "f.csv"]
    test = ["--test", f"other={own_atlas / 'solution.csv'}"]
    assert (
        "in the training set left out" in succeed("make_folds", "--labels", own_atlas / "train.csv", *images, *test).out
    )
    assert "copy" not in pd.read_csv(tmp_path / "f.csv", dtype=str)["Id"].tolist()

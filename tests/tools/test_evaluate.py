"""Table II in every reading, the person's column, McNemar's test, and test sets that were never trained on."""

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, train_options, write_labels
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from utils.data.labels import HPA_CLASSES, decode
from utils.runs.predictions import write_predictions
from utils.scoring.metrics import class_scores, multilabel_scores
from utils.scoring.significance import mcnemar

SK_READINGS = {"class": "macro", "sample": "samples", "pooled": "micro"}
SK_SCORES = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score, "iou": sk.jaccard_score}


def random_tables(seed, rows, classes):
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, classes)) < rng.choice([0.5, 0.1, 0.0], classes)
    return truth.astype(int), (truth ^ (rng.random(truth.shape) < 0.2)).astype(int)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_every_reading_is_scikit_learns(seed, rows, classes):
    truth, decisions = random_tables(seed, rows, classes)
    mine = multilabel_scores(truth, decisions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, score in SK_SCORES.items():
            for reading, average in SK_READINGS.items():
                expected = score(truth, decisions, average=average, zero_division=0)
                assert mine[name][reading] == pytest.approx(expected, abs=1e-12), (name, reading)
            assert class_scores(truth, decisions)[name] == pytest.approx(
                score(truth, decisions, average=None, zero_division=0)
            )
    assert mine["binary_accuracy"] == pytest.approx(1 - sk.hamming_loss(truth, decisions))
    assert mine["correct"] == (truth == decisions).sum() and mine["total"] == truth.size


def test_class_and_sample_reading_differ_as_the_papers_numbers_do():
    """One common class found, 27 rare ones missed: .96 by image, .04 by class. IoU never exceeds F1 in one reading."""
    truth, decisions = np.zeros((100, 28), int), np.zeros((100, 28), int)
    truth[:, 0] = decisions[:, 0] = 1
    truth[np.arange(27), np.arange(1, 28)] = 1
    mine = multilabel_scores(truth, decisions)
    assert mine["iou"]["sample"] > 0.8 and mine["f1"]["class"] == pytest.approx(1 / 28)
    assert all(mine["iou"][reading] <= mine["f1"][reading] for reading in SK_READINGS)


def test_binary_accuracy_counts_labels_as_table_two_does():
    """301,384 of 11,111 x 28 labels is the machine's 96.87 %."""
    truth = np.zeros((11111, 28), bool)
    decisions = truth.copy()
    decisions.ravel()[: truth.size - 301384] = True
    mine = multilabel_scores(truth, decisions)
    assert (mine["correct"], mine["total"]) == (301384, 311108) and round(100 * mine["binary_accuracy"], 2) == 96.87


def cases(both, first, second, neither):
    return np.repeat([True, True, False, False], [both, first, second, neither]), np.repeat(
        [True, False, True, False], [both, first, second, neither]
    )


def test_mcnemar_is_that_of_the_published_comparison():
    """Rumetshofer et al. 2019: both right on 121 of 200, network alone 60, expert alone 7, neither 12: p = 2e-10."""
    found = mcnemar(*cases(121, 60, 7, 12))
    assert [found[key] for key in ("both", "only_first", "only_second", "neither")] == [121, 60, 7, 12]
    assert float(f"{found['p']:.0e}") == 2e-10
    assert mcnemar(*cases(121, 7, 60, 12))["p"] == pytest.approx(found["p"])


def test_mcnemar_exact_by_hand_and_without_disagreement():
    assert mcnemar(*cases(5, 5, 0, 3))["p_exact"] == pytest.approx(2 / 2**5)
    assert mcnemar(*cases(5, 1, 1, 3))["p"] == pytest.approx(1) and mcnemar(*cases(9, 0, 0, 1))["p_exact"] == 1


@pytest.fixture
def judged(tmp_path):
    """60 images, predictions for all, a person's labels for 25 in another order: (folder, truth, decisions, said)."""
    truth, decisions = random_tables(5, 60, 28)
    truth[:, 0] |= 1 - truth.any(axis=1)
    ids = [f"i{n:02}" for n in range(60)]
    rng = np.random.default_rng(1)
    said = (truth & (rng.random(truth.shape) < 0.6)).astype(int)
    write_predictions(tmp_path / "p.csv", ids, np.where(decisions, 0.8, 0.1), HPA_CLASSES)
    write_labels(tmp_path / "truth.csv", dict(zip(ids, decode(truth))))
    write_labels(tmp_path / "sub.csv", dict(zip(reversed(ids), decode(decisions[::-1]))), column="Predicted")
    order = rng.permutation(60)[:25]
    write_labels(tmp_path / "human.csv", {ids[i]: text for i, text in zip(order, decode(said[order]))})
    return tmp_path, truth, decisions, said, order


def evaluate(folder, *more, predictions="p.csv", thresholds="0.5"):
    cut = ["--thresholds", thresholds] if thresholds else []
    result = succeed(
        "utils.tools.evaluate",
        folder / predictions,
        "--labels",
        folder / "truth.csv",
        *cut,
        "-o",
        folder / "o.json",
        *more,
    )
    return json.loads((folder / "o.json").read_text()), result.out


def test_predictions_and_the_submission_made_of_them_score_alike(judged):
    folder, truth, decisions, *_ = judged
    first, out = evaluate(folder)
    assert first["scores"]["machine, 60"]["f1"]["class"] == pytest.approx(
        sk.f1_score(truth, decisions, average="macro", zero_division=0)
    )
    assert "F1, sample mean" in out and "IoU, class mean" in out
    second = evaluate(folder, predictions="sub.csv", thresholds=None)[0]
    for name in ("f1", "precision", "recall", "iou"):
        assert second["scores"]["machine, 60"][name] == pytest.approx(first["scores"]["machine, 60"][name])


def test_the_person_is_compared_on_the_same_images(judged):
    folder, truth, decisions, said, order = judged
    found, out = evaluate(folder, "--human", folder / "human.csv", "--plot", folder / "f.png")
    mine = found["scores"]["person, 25"]
    assert mine["recall"]["pooled"] == pytest.approx(sk.recall_score(truth[order], said[order], average="micro"))
    assert found["scores"]["machine, same"] == multilabel_scores(truth[order], decisions[order])
    right = [(part[order] == truth[order]).all(axis=1) for part in (decisions, said)]
    assert found["mcnemar"]["images"] == mcnemar(*right)
    assert (
        found["mcnemar"]["labels"]["both"] + found["mcnemar"]["labels"]["only_first"]
        == (decisions == truth)[order].sum()
    )
    assert "McNemar" in out and (folder / "f.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_refuses(judged):
    folder, *_ = judged
    base = ["utils.tools.evaluate", folder / "p.csv", "--labels", folder / "truth.csv"]
    refuse(*base, says="add --thresholds")
    refuse(
        "utils.tools.evaluate",
        folder / "sub.csv",
        "--labels",
        folder / "truth.csv",
        "--thresholds",
        0.5,
        says="already decided",
    )
    write_labels(folder / "other.csv", {"stranger": "1"})
    refuse(*base, "--thresholds", 0.5, "--human", folder / "other.csv", says=["other.csv", "stranger"])
    refuse(
        "utils.tools.evaluate",
        folder / "p.csv",
        "--labels",
        folder / "other.csv",
        "--thresholds",
        0.5,
        says="lacks 60 Ids",
    )
    refuse(*base, "--thresholds", 0.5, "--unseen-by", folder, says="best.pt")
    refuse(*base, "--thresholds", 0.5, "-o", folder / "truth.csv" / "x.json", says="cannot write")


def test_images_a_run_has_seen_are_no_test_set(run, atlas, predictions, tmp_path):
    solution = ["--labels", atlas / "solution.csv", "--thresholds", 0.5]
    succeed("utils.tools.evaluate", predictions, *solution, "--unseen-by", run)
    refuse("utils.tools.evaluate", run / "fold0/oof.csv", "--labels", atlas / "train.csv", "--thresholds", 0.5, "--unseen-by", run,
           says=["17 Ids of 17", "trained or validated on", "rows.csv"])  # fmt: skip


def test_every_fold_must_say_what_it_has_seen(run, atlas, predictions, tmp_path):
    own = shutil.copytree(run, tmp_path / "own")
    (own / "fold1/rows.csv").unlink()
    refuse("utils.tools.evaluate", predictions, "--labels", atlas / "solution.csv", "--thresholds", 0.5, "--unseen-by", own,
           says=["fold1/rows.csv", "not known"])  # fmt: skip


def test_thresholds_fitted_on_the_same_file_are_said_to_flatter(run, atlas, predictions, thresholds):
    cut = ["--thresholds", thresholds]
    for fold in ("fold0", "fold1"):
        assert (
            "IN SAMPLE"
            in succeed("utils.tools.evaluate", run / fold / "oof.csv", "--labels", atlas / "train.csv", *cut).out
        )
    assert "IN SAMPLE" not in succeed("utils.tools.evaluate", predictions, "--labels", atlas / "solution.csv", *cut).out


@pytest.fixture
def with_test(own_atlas, tmp_path):
    """Folds of the atlas' train images, its test images as an external test set."""
    images = ["--images", own_atlas / "train", "--images", own_atlas / "test"]
    table = tmp_path / "folds.csv"
    out = succeed("make_folds", "--labels", own_atlas / "train.csv", *images, "--folds", 3, "-o", table, "--test",
                  f"other={own_atlas / 'solution.csv'}", "--plot", tmp_path / "f.png").out  # fmt: skip
    return own_atlas, table, pd.read_csv(table, dtype=str, keep_default_na=False), out


def test_the_external_test_set_is_kept_apart(with_test, tmp_path, folds):
    own_atlas, path, table, out = with_test
    test = table[table["source"] == "other"]
    twins = int(out.split(" test row")[0].splitlines()[-1]) if "twin in the training set" in out else 0
    assert len(test) == 16 - twins and set(test["fold"]) == {"-2"} and "never trained on" in out
    assert not set(test["group"]) & set(table["group"][table["fold"] != "-2"])
    alone = pd.read_csv(folds, dtype=str, keep_default_na=False)
    assert table["Id"][table["fold"] != "-2"].tolist() == alone["Id"].tolist()
    succeed("train", *train_options(own_atlas, path, tmp_path / "runs", epochs=1))
    rows = pd.read_csv(tmp_path / "runs/mini/fold0/rows.csv", dtype=str)
    assert len(rows) == 48 and not set(rows["Id"]) & set(test["Id"])


def test_training_on_the_external_test_set_is_refused(with_test, tmp_path):
    own_atlas, path, table, _ = with_test
    refuse("train", *train_options(own_atlas, path, tmp_path / "runs", fold=-2), says="--fold -2")
    row = table.index[table["source"] == "other"][0]
    twin = table.copy()
    twin.loc[0, "group"] = twin.loc[row, "group"]
    twin.to_csv(path, index=False)
    refuse("train", *train_options(own_atlas, path, tmp_path / "runs"), says=["row 2", "twin in the external test set"])
    refuse("utils.tools.baseline", "--folds", path, "--fold", 0, "--images", own_atlas / "train", "--runs", tmp_path / "runs",
           says="twin in the external test set")  # fmt: skip
    assert not (tmp_path / "runs").exists()
    labels = own_atlas / "train.csv"
    refuse(
        "make_folds", "--labels", labels, "--test", f"other={labels}", "--folds", 3, "-o", path, says="more than once"
    )


def test_a_test_set_without_pictures_is_refused_unless_twins_do_not_matter(own_atlas, tmp_path):
    command = ["make_folds", "--labels", own_atlas / "train.csv", "--images", own_atlas / "train", "--folds", 3, "-o", tmp_path / "f.csv",
               "--test", f"other={own_atlas / 'solution.csv'}"]  # fmt: skip
    refuse(*command, says=["test set other", "--images"])
    succeed(*command, "--hash-distance", -1)
    assert (pd.read_csv(tmp_path / "f.csv")["fold"] == -2).sum() == 16


def test_a_test_image_that_shows_a_training_image_is_left_out(own_atlas, tmp_path):
    first = pd.read_csv(own_atlas / "train.csv", dtype=str)["Id"][0]
    for colour in ("red", "green", "blue", "yellow"):
        shutil.copy(own_atlas / "train" / f"{first}_{colour}.png", own_atlas / "test" / f"copy_{colour}.png")
    with open(own_atlas / "solution.csv", "a") as file:
        file.write("copy,0\n")
    images = ["--images", own_atlas / "train", "--images", own_atlas / "test"]
    test = ["--test", f"other={own_atlas / 'solution.csv'}"]
    out = succeed(
        "make_folds", "--labels", own_atlas / "train.csv", *images, *test, "--folds", 3, "-o", tmp_path / "f.csv"
    ).out
    assert "with a near-duplicate in the training set left out" in out
    assert "copy" not in pd.read_csv(tmp_path / "f.csv", dtype=str)["Id"].tolist()

"""python -m utils.tools.compare: runs side by side, seeds together."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, train_options
from sklearn import metrics as sk

from utils.data.labels import CYTO_CLASSES, encode
from utils.runs.predictions import read_predictions
from utils.scoring.cross_fit import held_out_decisions
from utils.scoring.thresholds.exact import per_class
from utils.tools import compare, method_tables

COMPARE = "utils.tools.compare"


@pytest.fixture(scope="module")
def runs(atlas, folds, tmp_path_factory):
    """Two seeds of one loss, one of another; one with a limit, one on other folds of the same path; a baseline."""
    place = tmp_path_factory.mktemp("compared")
    table = place / "folds.csv"
    shutil.copy(folds, table)
    for name, options in {
        "a0": {"seed": 0, "loss": "1:bce"},
        "a1": {"seed": 1, "loss": "1:bce"},
        "b0": {"seed": 0, "loss": "1:focal"},
        "limited0": {"seed": 0, "limit": 14},
        "limited1": {"seed": 1, "limit": 14},
    }.items():
        succeed("train", *train_options(atlas, table, place, name, epochs=1, **options))
    images = ["--images", atlas / "train", "--size", 64, "--runs", place]
    succeed("utils.tools.baseline", "--folds", table, "--fold", 0, *images)
    turned = pd.read_csv(table, dtype=str, keep_default_na=False)
    turned["fold"] = [str((int(fold) + 1) % 3) for fold in turned["fold"]]
    turned.to_csv(table, index=False)
    succeed("train", *train_options(atlas, table, place, "turned", epochs=1, seed=0, loss="1:bce"))
    return place


def truth_of(oof, table):
    targets = pd.read_csv(table, dtype=str, keep_default_na=False).set_index("Id")["Target"]
    return encode(targets.loc[oof.index], oof.columns)


def truth_and_oof(run, table):
    oof = read_predictions(run / "fold0/oof.csv")
    return truth_of(oof, table), oof.to_numpy()


def mean_auc(truth, probabilities):
    columns = [k for k in range(28) if 0 < truth[:, k].sum() < len(truth)]
    return np.array([sk.roc_auc_score(truth[:, k], probabilities[:, k]) for k in columns])


def test_runs_that_differ_by_seed_only_are_one_line(runs, folds, tmp_path):
    out = succeed(COMPARE, runs / "a0", runs / "a1", runs / "b0/fold0", "-o", tmp_path).out
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("loss")] == ["loss 1:bce", "loss 1:focal"]
    assert all(len(line) <= 80 for line in lines if "->" not in line)
    table = pd.read_csv(tmp_path / "runs.csv")
    assert table["what"].tolist() == ["loss 1:bce", "loss 1:bce", "loss 1:focal"]
    first = table["f1_half"][:2]
    spread = f"{first.mean():.3f}±{np.std(first, ddof=1):.3f}".replace("0.", ".")
    assert lines[lines.index("loss 1:bce") + 1].split()[:2] == ["2", spread]
    truth, oof = truth_and_oof(runs / "a0", folds)
    row, decisions = table.iloc[0], oof >= 0.5
    assert row["f1_half"] == pytest.approx(sk.f1_score(truth, decisions, average="macro", zero_division=0))
    assert row["precision"] == pytest.approx(sk.precision_score(truth, decisions, average="micro", zero_division=0))
    assert row["recall"] == pytest.approx(sk.recall_score(truth, decisions, average="micro", zero_division=0))


def test_tables_of_methods_are_scikit_learns(runs, folds, tmp_path):
    """Mean over seeds of each class's figure, then mean and spread over classes."""
    succeed(COMPARE, runs / "a0", runs / "a1", runs / "b0", "-o", tmp_path)
    row = pd.read_csv(tmp_path / "methods.csv").set_index("method").loc["1:bce"]
    by_class = pd.read_csv(tmp_path / "classes.csv")
    cost = pd.read_csv(tmp_path / "costs.csv").set_index("method").loc["1:bce"]
    parts = [truth_and_oof(runs / name, folds) for name in ("a0", "a1")]
    f1 = np.mean([sk.f1_score(truth, oof >= 0.5, average=None, zero_division=0) for truth, oof in parts], axis=0)
    assert by_class["1:bce"].to_numpy() == pytest.approx(f1)
    assert (row["f1"], row["f1_spread"], row["runs"]) == (pytest.approx(f1.mean()), pytest.approx(f1.std()), 2)
    auc = np.mean([mean_auc(*part) for part in parts], axis=0)
    assert row["auc"] == pytest.approx(auc.mean()) and row["auc_spread"] == pytest.approx(auc.std())
    assert cost["parameters"] == 626_221 + (28 - 13) * (256 + 1), "the paper's, with 28 classes"
    logs = [pd.read_csv(runs / name / "fold0/log.csv") for name in ("a0", "a1")]
    assert cost["epoch_seconds"] == pytest.approx(pd.concat(logs)["seconds"].mean())
    peaks = [log["peak_gb"].max() for log in logs]
    assert min(peaks) > 0.01 and cost["peak_gb"] == pytest.approx(np.mean(peaks))
    for name in ("classes.png", "curves.png", "generations.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    found = compare.read_runs([runs / "b0", runs / "a0", runs / "a1"])
    table, comparison, _ = compare.side_by_side(found)
    curves = compare.logs(found, table, comparison)
    assert list(curves) == comparison.order
    assert [log["seconds"].tolist() for log in curves["1:bce"]] == [log["seconds"].tolist() for log in logs]


def test_generations_are_in_the_order_of_their_starts(runs, tmp_path):
    """Their best epochs of training and validation, by the log; a run that was resumed counts from its first start, the
    baseline, which has no log, not at all."""
    shutil.copytree(runs / "a1", tmp_path / "earliest")
    folder = tmp_path / "earliest/fold0"
    (folder / "tensorboard/events.out.tfevents.5.250000.host.1").touch()
    log = pd.read_csv(folder / "log.csv")
    two = pd.concat(
        [log.assign(precision=0.6, recall=0.3, macro_f1=0.1), log.assign(precision=0, recall=0, macro_f1=0.2)]
    )
    two.to_csv(folder / "log.csv", index=False)
    found = compare.generations(
        compare.read_runs([runs / "b0", tmp_path / "earliest", runs / "linear", runs / "a0/fold0"])
    )
    assert found["name"].tolist() == ["earliest", "a0", "b0"]
    assert found[["train", "valid"]].to_numpy()[0] == pytest.approx([2 * 0.6 * 0.3 / 0.9, 0.2])
    assert found["valid"][1] == pytest.approx(pd.read_csv(runs / "a0/fold0/log.csv")["macro_f1"].max())


def test_runs_with_a_limit_and_the_baseline_can_be_compared(runs):
    """The seed picks the rows of a limit."""
    out = succeed(COMPARE, runs / "limited0", runs / "limited1", runs / "linear").out.splitlines()
    counts = [line.split()[0] for line in out if line[:4].strip().isdecimal()]
    assert counts == ["2", "1"] and not any("nan" in line for line in out)


def test_other_folds_under_the_same_name_are_another_line(runs):
    """The path of a folds file does not identify its rows."""
    out = succeed(COMPARE, runs / "a0", runs / "turned").out
    assert out.count("rows_sha256") == 2 and "not the same images" in out


def test_folds_of_a_run_are_pooled(run, folds, tmp_path):
    """Each image once, one line per run; folds of two splits are refused."""
    out = succeed(COMPARE, run, "-o", tmp_path).out
    oof = pd.concat([read_predictions(run / f"fold{fold}/oof.csv") for fold in (0, 1)])
    truth = truth_of(oof, folds)
    table = pd.read_csv(tmp_path / "runs.csv")
    assert len(table) == 1 and table["run"][0] == str(run) and "all the same" in out
    assert table["f1_half"][0] == pytest.approx(sk.f1_score(truth, oof >= 0.5, average="macro", zero_division=0))
    auc = pd.read_csv(tmp_path / "methods.csv")["auc"][0]
    assert auc == pytest.approx(mean_auc(truth, oof.to_numpy()).mean())
    copy = Path(shutil.copytree(run, tmp_path / "mini"))
    shutil.copytree(copy / "fold0", copy / "fold2")
    refuse(COMPARE, copy, says="share validation images")


def test_the_threshold_per_class_is_cross_fitted(runs, folds, tmp_path):
    """The first of the splits of threshold.py."""
    out = succeed(COMPARE, runs / "a0", runs / "b0", "--decide", "each", "-o", tmp_path).out
    assert all(len(line) <= 80 for line in out.splitlines() if "->" not in line)
    truth, oof = truth_and_oof(runs / "a0", folds)
    expected = sk.f1_score(truth, held_out_decisions(per_class, truth, oof), average=None, zero_division=0)
    assert pd.read_csv(tmp_path / "classes.csv")["1:bce"].to_numpy() == pytest.approx(expected)


def test_predictions_of_a_test_set_are_compared(runs, atlas, tmp_path):
    quick = ["--tta", 1, "--workers", 0, "-o"]
    for name in ("a0", "b0"):
        succeed("predict", runs / name, "--images", atlas / "test", *quick, runs / name / "t.csv")
    options = ["--predictions", "t.csv", "--labels", atlas / "solution.csv"]
    succeed(COMPARE, runs / "a0", runs / "b0", *options, "-o", tmp_path)
    table = read_predictions(runs / "a0/t.csv")
    expected = sk.f1_score(truth_of(table, atlas / "solution.csv"), table >= 0.5, average="macro", zero_division=0)
    assert pd.read_csv(tmp_path / "methods.csv").set_index("method").loc["1:bce", "f1"] == pytest.approx(expected)
    refuse(COMPARE, runs / "a0", runs / "a1", *options, says=["a1", "t.csv", "make it with predict.py"])
    refuse(COMPARE, runs / "a0", "--predictions", "t.csv", says="--labels belong together")
    refuse(COMPARE, runs / "a0", "--predictions", "x/t.csv", *options[2:], says="a name without a folder")
    table.head(9).to_csv(runs / "b0/t.csv")
    assert "not the same images" in succeed(COMPARE, runs / "a0", runs / "b0", *options).out
    table.head(1).to_csv(runs / "b0/t.csv")
    refuse(COMPARE, runs / "b0", *options, says="fewer than two images")
    succeed("predict", runs / "b0", "--images", atlas / "train", *quick, runs / "b0" / "t.csv")
    refuse(COMPARE, runs / "b0", *options[:3], atlas / "train.csv", says="trained or validated on")


PAPER = """0.682 0.651 0.719 0.125 0.000
0.659 0.522 0.598 0.039 0.000
0.776 0.805 0.789 0.784 0.735
0.672 0.629 0.645 0.538 0.338
0.754 0.689 0.750 0.428 0.331
0.800 0.625 0.490 0.000 0.000
0.767 0.901 0.853 0.696 0.712
0.866 0.818 0.843 0.758 0.608
0.922 0.907 0.756 0.675 0.692
0.873 0.816 0.826 0.613 0.802
0.949 0.945 0.943 0.925 0.945
0.766 0.756 0.656 0.597 0.538
0.683 0.685 0.682 0.551 0.435"""  # Rumetshofer et al., Table 2


def test_the_papers_table_2_gives_its_table_1():
    """F1 with spread, p-values as printed, and who wins how many classes."""
    f1 = np.array([row.split() for row in PAPER.splitlines()], float).T
    names = ["GapNet-PL", "M-CNN", "DenseNet-121", "DeepLoc", "Convolutional MIL"]
    by_class = {name: dict.fromkeys(method_tables.SCORES, own) for name, own in zip(names, f1, strict=True)}
    comparison = method_tables.Comparison(list(CYTO_CLASSES), None, dict.fromkeys(names, [None]), by_class, None)
    table = comparison.methods()
    assert table["method"].tolist() == names
    printed = ["0.78 ± 0.09", "0.75 ± 0.12", "0.73 ± 0.12", "0.52 ± 0.28", "0.47 ± 0.31"]
    assert [f"{row.f1:.2f} ± {row.f1_spread:.2f}" for row in table.itertuples()] == printed
    assert [f"{p:.4f}" for p in table["p"][1:]] == ["0.0232", "0.0434", "0.0009", "0.0007"]
    wins = comparison.by_class_f1()["winner"].value_counts().to_dict()
    assert wins == {"GapNet-PL": 9, "M-CNN": 3, "DenseNet-121": 1}


def test_compare_refuses(runs, tmp_path):
    refuse(COMPARE, runs / "a0", tmp_path, says=[str(tmp_path), "no oof.csv"])
    refuse(COMPARE, runs / "a0", runs / "a0/fold0", says="named twice")
    (tmp_path / "file").touch()
    refuse(COMPARE, runs / "a0", "-o", tmp_path / "file" / "t", says="not a folder")
    shutil.copy(runs / "a0/fold0/oof.csv", tmp_path)
    (tmp_path / "config.json").write_text("[]")
    refuse(COMPARE, tmp_path, says="is not a run's config")


def test_a_run_from_before_an_option_existed_is_not_another_method(runs, tmp_path):
    copy = Path(shutil.copytree(runs / "a1", tmp_path / "a1"))
    config = json.loads((copy / "fold0/config.json").read_text())
    for key in ("layers", "single_label", "max_minutes", "parameters"):
        del config[key]
    (copy / "fold0/config.json").write_text(json.dumps(config))
    assert "all the same" in succeed(COMPARE, runs / "a0", copy).out


def test_methods_are_not_named_by_their_fold(run, runs, tmp_path):
    """Runs of other folds, lengths and losses: the name of a method describes it."""
    succeed(COMPARE, run / "fold1", runs / "b0", "-o", tmp_path)
    assert set(pd.read_csv(tmp_path / "methods.csv", dtype=str)["method"]) == {"epochs 1", "epochs 2"}

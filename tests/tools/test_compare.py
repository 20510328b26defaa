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
from utils.scoring.significance import wilcoxon
from utils.scoring.thresholds import per_class
from utils.tools import compare, method_tables


@pytest.fixture(scope="module")
def runs(atlas, folds, tmp_path_factory):
    """Two seeds of one loss and one of another."""
    place = tmp_path_factory.mktemp("compared")
    for name, seed, loss in (("a0", 0, "1:bce"), ("a1", 1, "1:bce"), ("b0", 0, "1:focal")):
        succeed("train", *train_options(atlas, folds, place, name, seed=seed, loss=loss, epochs=1))
    return place


def test_runs_that_differ_by_seed_only_are_one_line(runs, tmp_path):
    out = succeed("utils.tools.compare", runs / "a0", runs / "a1", runs / "b0/fold0", "-o", tmp_path / "t").out
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("loss")] == ["loss 1:bce", "loss 1:focal"]
    table = pd.read_csv(tmp_path / "t" / "runs.csv")
    assert table["what"].tolist() == ["loss 1:bce", "loss 1:bce", "loss 1:focal"]
    mine = lines[lines.index("loss 1:bce") + 1].split()
    first = table[table["what"] == "loss 1:bce"]
    assert mine[0] == "2"
    assert mine[1] == f"{first['f1_half'].mean():.3f}±{np.std(first['f1_half'], ddof=1):.3f}".replace("0.", ".")
    refuse("utils.tools.compare", runs / "a0", runs / "a0/fold0", says="named twice")


def test_runs_with_a_limit_and_the_baseline_can_be_compared(atlas, folds, tmp_path):
    for seed in (0, 1):  # the seed picks the rows
        succeed("train", *train_options(atlas, folds, tmp_path, f"s{seed}", seed=seed, limit=14, epochs=1))
    succeed(
        "utils.tools.baseline",
        "--folds",
        folds,
        "--fold",
        0,
        "--images",
        atlas / "train",
        "--size",
        64,
        "--runs",
        tmp_path,
    )
    out = succeed("utils.tools.compare", tmp_path / "s0", tmp_path / "s1", tmp_path / "linear").out.splitlines()
    counts = [line.split()[0] for line in out if line[:4].strip().isdecimal()]
    assert counts == ["2", "1"] and not any("nan" in line for line in out)


def test_other_folds_under_the_same_name_are_another_line(atlas, folds, tmp_path):
    """The path of a folds file says nothing about what is in it."""
    table = tmp_path / "folds.csv"
    for name, turn in (("a", 0), ("b", 1)):
        text = pd.read_csv(folds, dtype=str, keep_default_na=False)
        text["fold"] = [str((int(fold) + turn) % 3) for fold in text["fold"]]
        text.to_csv(table, index=False)
        succeed("train", *train_options(atlas, table, tmp_path, name, epochs=1))
    out = succeed("utils.tools.compare", tmp_path / "a", tmp_path / "b").out
    assert out.count("rows_sha256") == 2 and "not the same images" in out


def test_figures_are_scikit_learns(runs, folds, tmp_path):
    succeed("utils.tools.compare", runs / "a0", "-o", tmp_path / "t")
    row = pd.read_csv(tmp_path / "t" / "runs.csv").iloc[0]
    oof = read_predictions(runs / "a0/fold0/oof.csv")
    targets = pd.read_csv(folds, dtype=str, keep_default_na=False).set_index("Id")["Target"]
    truth = encode(targets.loc[oof.index], oof.columns)
    assert row["f1_half"] == pytest.approx(sk.f1_score(truth, oof >= 0.5, average="macro", zero_division=0))
    assert row["precision"] == pytest.approx(sk.precision_score(truth, oof >= 0.5, average="micro", zero_division=0))
    assert row["recall"] == pytest.approx(sk.recall_score(truth, oof >= 0.5, average="micro", zero_division=0))


def truth_and_oof(folder, table):
    oof = read_predictions(folder / "fold0/oof.csv")
    targets = pd.read_csv(table, dtype=str, keep_default_na=False).set_index("Id")["Target"]
    return encode(targets.loc[oof.index], oof.columns), oof.to_numpy()


def test_tables_of_methods_are_scikit_learns(runs, folds, tmp_path):
    """Mean over seeds of each class's figure, then mean and spread over classes."""
    out = succeed("utils.tools.compare", runs / "a0", runs / "a1", runs / "b0", "-o", tmp_path).out
    table = pd.read_csv(tmp_path / "methods.csv").set_index("method")
    by_class = pd.read_csv(tmp_path / "classes.csv")
    costs = pd.read_csv(tmp_path / "costs.csv").set_index("method")
    parts = [truth_and_oof(runs / name, folds) for name in ("a0", "a1")]
    f1 = np.mean([sk.f1_score(truth, oof >= 0.5, average=None, zero_division=0) for truth, oof in parts], axis=0)
    assert by_class["1:bce"].to_numpy() == pytest.approx(f1)
    row = table.loc["1:bce"]
    assert (row["f1"], row["f1_spread"], row["runs"]) == (pytest.approx(f1.mean()), pytest.approx(f1.std()), 2)
    there = [k for k in range(28) if 0 < parts[0][0][:, k].sum() < len(parts[0][0])]
    auc = np.mean([[sk.roc_auc_score(truth[:, k], oof[:, k]) for k in there] for truth, oof in parts], axis=0)
    assert row["auc"] == pytest.approx(auc.mean()) and row["auc_spread"] == pytest.approx(auc.std())
    assert costs.loc["1:bce", "parameters"] == 626_221 + (28 - 13) * (256 + 1), "the paper's, with 28 classes"
    log = pd.concat([pd.read_csv(runs / name / "fold0/log.csv") for name in ("a0", "a1")])
    assert costs.loc["1:bce", "epoch_seconds"] == pytest.approx(log["seconds"].mean())
    peaks = [pd.read_csv(runs / name / "fold0/log.csv")["peak_gb"].max() for name in ("a0", "a1")]
    assert min(peaks) > 0.01 and costs.loc["1:bce", "peak_gb"] == pytest.approx(np.mean(peaks))
    for name in ("classes.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert all(len(line) <= 80 for line in out.splitlines() if "->" not in line)
    found = compare.read_runs([runs / "b0", runs / "a0", runs / "a1"])
    table, comparison, _ = compare.side_by_side(found)
    curves = compare.logs(found, table, comparison)
    assert list(curves) == comparison.order
    lasts = [float(log["seconds"].iloc[-1]) for log in curves["1:bce"]]
    assert lasts == [pd.read_csv(runs / name / "fold0/log.csv")["seconds"].iloc[-1] for name in ("a0", "a1")]


def test_folds_of_a_run_are_pooled(run, folds, tmp_path):
    """Each image once, one line a run."""
    out = succeed("utils.tools.compare", run, "-o", tmp_path).out
    parts = [read_predictions(run / f"fold{fold}/oof.csv") for fold in (0, 1)]
    oof = pd.concat(parts)
    targets = pd.read_csv(folds, dtype=str, keep_default_na=False).set_index("Id")["Target"]
    truth = encode(targets.loc[oof.index], oof.columns)
    table = pd.read_csv(tmp_path / "runs.csv")
    assert len(table) == 1 and table["run"][0] == str(run) and "all the same" in out
    assert table["f1_half"][0] == pytest.approx(sk.f1_score(truth, oof >= 0.5, average="macro", zero_division=0))
    auc = pd.read_csv(tmp_path / "methods.csv")["auc"][0]
    there = [k for k in range(28) if 0 < truth[:, k].sum() < len(truth)]
    assert auc == pytest.approx(np.mean([sk.roc_auc_score(truth[:, k], oof.to_numpy()[:, k]) for k in there]))


def test_each_class_cut_off_is_cross_fitted(runs, folds, tmp_path):
    """The mean over classes of what threshold.py promises for its first way of dealing out the fifths."""
    out = succeed("utils.tools.compare", runs / "a0", runs / "b0", "--decide", "each", "-o", tmp_path).out
    assert all(len(line) <= 80 for line in out.splitlines() if "->" not in line)
    truth, oof = truth_and_oof(runs / "a0", folds)
    decisions = held_out_decisions(per_class, truth, oof)
    mine = pd.read_csv(tmp_path / "classes.csv")["1:bce"]
    assert mine.to_numpy() == pytest.approx(sk.f1_score(truth, decisions, average=None, zero_division=0))


def test_predictions_of_a_test_set_are_compared(runs, atlas, tmp_path):
    for name in ("a0", "b0"):
        succeed(
            "predict", runs / name, "--images", atlas / "test", "--tta", 1, "--workers", 0, "-o", runs / name / "t.csv"
        )
    options = ["--predictions", "t.csv", "--labels", atlas / "solution.csv"]
    succeed("utils.tools.compare", runs / "a0", runs / "b0", *options, "-o", tmp_path)
    table = read_predictions(runs / "a0/t.csv")
    targets = pd.read_csv(atlas / "solution.csv", dtype=str, keep_default_na=False).set_index("Id")["Target"]
    truth = encode(targets.loc[table.index], table.columns)
    expected = sk.f1_score(truth, table >= 0.5, average="macro", zero_division=0)
    assert pd.read_csv(tmp_path / "methods.csv").set_index("method").loc["1:bce", "f1"] == pytest.approx(expected)
    refuse("utils.tools.compare", runs / "a0", runs / "a1", *options, says=["a1", "t.csv", "make it with predict.py"])
    refuse("utils.tools.compare", runs / "a0", "--predictions", "t.csv", says="--labels belong together")
    refuse("utils.tools.compare", runs / "a0", "--predictions", "x/t.csv", *options[2:], says="a name without a folder")
    table.head(9).to_csv(runs / "b0/t.csv")
    assert "not the same images" in succeed("utils.tools.compare", runs / "a0", runs / "b0", *options).out
    table.head(1).to_csv(runs / "b0/t.csv")
    refuse("utils.tools.compare", runs / "b0", *options, says="fewer than two images")
    words = ["--images", atlas / "train", "--tta", 1, "--workers", 0, "-o", runs / "b0" / "t.csv"]
    succeed("predict", runs / "b0", *words)
    refuse(
        "utils.tools.compare",
        runs / "b0",
        "--predictions",
        "t.csv",
        "--labels",
        atlas / "train.csv",
        says="trained or validated on",
    )


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
    comparison = method_tables.Comparison.__new__(method_tables.Comparison)
    comparison.classes, comparison.groups = list(CYTO_CLASSES), dict.fromkeys(names, [None])
    comparison.by_class = {
        name: dict.fromkeys(method_tables.SCORES, column) for name, column in zip(names, f1, strict=True)
    }
    table = comparison.methods()
    assert table["method"].tolist() == names
    assert [f"{row.f1:.2f} ± {row.f1_spread:.2f}" for row in table.itertuples()] == [
        "0.78 ± 0.09", "0.75 ± 0.12", "0.73 ± 0.12", "0.52 ± 0.28", "0.47 ± 0.31"
    ]  # fmt: skip
    assert [f"{p:.4f}" for p in table["p"][1:]] == ["0.0232", "0.0434", "0.0009", "0.0007"]
    assert comparison.by_class_f1()["winner"].value_counts().to_dict() == {
        "GapNet-PL": 9,
        "M-CNN": 3,
        "DenseNet-121": 1,
    }


def test_a_method_beside_its_equal_has_p_one():
    assert wilcoxon([0.1, 0.5, 0.3], [0.1, 0.5, 0.3]) == 1.0
    assert wilcoxon([0.2, 0.6, 0.4, 0.9], [0.1, 0.4, 0.1, 0.5]) < 0.05 < wilcoxon([0.1, 0.4, 0.1], [0.2, 0.6, 0.4])


def test_compare_refuses(runs, tmp_path):
    refuse("utils.tools.compare", runs / "a0", tmp_path, says=[str(tmp_path), "no oof.csv"])
    (tmp_path / "file").touch()
    refuse("utils.tools.compare", runs / "a0", "-o", tmp_path / "file" / "t", says="not a folder")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "oof.csv").write_bytes((runs / "a0/fold0/oof.csv").read_bytes())
    (broken / "config.json").write_text("[]")
    refuse("utils.tools.compare", broken, says="is not a run's config")


def test_a_run_from_before_an_option_existed_is_not_another_method(runs, tmp_path):
    copy = Path(shutil.copytree(runs / "a1", tmp_path / "a1"))
    config = json.loads((copy / "fold0/config.json").read_text())
    for key in ("layers", "single_label", "max_minutes", "parameters"):
        del config[key]
    (copy / "fold0/config.json").write_text(json.dumps(config))
    assert "all the same" in succeed("utils.tools.compare", runs / "a0", copy).out


def test_folds_of_two_splits_are_not_pooled(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "mini"))
    shutil.copytree(copy / "fold0", copy / "fold2")
    refuse("utils.tools.compare", copy, says="share validation images")


def test_methods_are_not_called_by_their_fold(run, runs, tmp_path):
    """Runs of other folds, lengths and losses: what a method is called says what it is."""
    succeed("utils.tools.compare", run / "fold1", runs / "b0", "-o", tmp_path)
    assert set(pd.read_csv(tmp_path / "methods.csv", dtype=str)["method"]) == {"epochs 1", "epochs 2"}

"""python -m utils.compare: runs side by side, seeds together."""

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, train_options
from sklearn import metrics as sk

from utils.labels import encode
from utils.predictions import read_predictions


@pytest.fixture(scope="module")
def runs(atlas, folds, tmp_path_factory):
    """Two seeds of one loss and one of another."""
    place = tmp_path_factory.mktemp("compared")
    for name, seed, loss in (("a0", 0, "1:bce"), ("a1", 1, "1:bce"), ("b0", 0, "1:focal")):
        succeed("train", *train_options(atlas, folds, place, name, seed=seed, loss=loss, epochs=1))
    return place


def test_runs_that_differ_by_seed_only_are_one_line(runs, tmp_path):
    out = succeed("utils.compare", runs / "a0", runs / "a1", runs / "b0/fold0", "-o", tmp_path / "t.csv").out
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("loss")] == ["loss 1:bce", "loss 1:focal"]
    table = pd.read_csv(tmp_path / "t.csv")
    assert table["what"].tolist() == ["loss 1:bce", "loss 1:bce", "loss 1:focal"]
    mine = lines[lines.index("loss 1:bce") + 1].split()
    first = table[table["what"] == "loss 1:bce"]
    assert (
        mine[0] == "2"
        and mine[1] == f"{first['f1_half'].mean():.3f}"
        and mine[3] == f"{np.std(first['f1_half'], ddof=1):.3f}"
    )
    refuse("utils.compare", runs / "a0", runs / "a0/fold0", says="named twice")


def test_runs_with_a_limit_and_the_baseline_can_be_compared(atlas, folds, tmp_path):
    for seed in (0, 1):  # the seed picks the rows
        succeed("train", *train_options(atlas, folds, tmp_path, f"s{seed}", seed=seed, limit=14, epochs=1))
    succeed(
        "utils.baseline", "--folds", folds, "--fold", 0, "--images", atlas / "train", "--size", 64, "--runs", tmp_path
    )
    out = succeed("utils.compare", tmp_path / "s0", tmp_path / "s1", tmp_path / "linear").out.splitlines()
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
    out = succeed("utils.compare", tmp_path / "a", tmp_path / "b").out
    assert out.count("rows_sha256") == 2


def test_figures_are_scikit_learns(runs, folds, tmp_path):
    succeed("utils.compare", runs / "a0", "-o", tmp_path / "t.csv")
    row = pd.read_csv(tmp_path / "t.csv").iloc[0]
    oof = read_predictions(runs / "a0/fold0/oof.csv")
    targets = pd.read_csv(folds, dtype=str, keep_default_na=False).set_index("Id")["Target"]
    truth = encode(targets.loc[oof.index], oof.columns)
    assert row["f1_half"] == pytest.approx(sk.f1_score(truth, oof >= 0.5, average="macro", zero_division=0))
    assert row["precision"] == pytest.approx(sk.precision_score(truth, oof >= 0.5, average="micro", zero_division=0))
    assert row["recall"] == pytest.approx(sk.recall_score(truth, oof >= 0.5, average="micro", zero_division=0))


def test_compare_refuses(runs, tmp_path):
    refuse("utils.compare", runs / "a0", tmp_path, says=[str(tmp_path), "no oof.csv"])
    (tmp_path / "file").touch()
    refuse("utils.compare", runs / "a0", "-o", tmp_path / "file" / "t.csv", says="not a folder")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "oof.csv").write_bytes((runs / "a0/fold0/oof.csv").read_bytes())
    (broken / "config.json").write_text("[]")
    refuse("utils.compare", broken, says="is not a run's config")

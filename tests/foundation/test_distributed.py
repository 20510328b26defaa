"""torchrun: two processes on one CPU do together what one does alone."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, succeed, succeed_together, train_options
from hypothesis import given
from hypothesis import strategies as st

from utils.data import packing
from utils.distributed import Ranks, Shares
from utils.runs.predictions import read_predictions


def torchrun(*words, ranks=2):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        *map(str, words),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def together(script, *words, ranks=2, cache=None):
    return succeed_together(script, *words, "--cache", cache or packing.DEFAULT, ranks=ranks)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 5))
def test_every_sample_of_a_batch_counts_once_and_all_ranks_have_as_many(rows, batch, count):
    keys = [(3, row) for row in range(rows)]
    batches = [keys[start : start + batch] for start in range(0, rows, batch)]
    shares = [list(Shares(batches, Ranks(rank, count))) for rank in range(count)]
    for whole, parts in zip(batches, zip(*shares, strict=True), strict=True):
        rows_of_all = [row for _, row, samples in itertools.chain(*parts) if samples == len(whole)]
        real = [row for row in rows_of_all if row >= 0]
        which = Ranks(0, count).which_count(len(whole), torch.device("cpu"))
        assert real == (rows_of_all if which is None else [rows_of_all[place] for place in which.tolist()])
        assert sorted(real) == [row for _, row in whole]
        assert len({len(part) for part in parts}) == 1 and len(parts[0]) >= min(2, len(whole))
        for part in parts:
            marks = [row >= 0 for _, row, _ in part]
            assert marks == sorted(marks, reverse=True), "those that count come first"
            assert all(~row in range(rows) for _, row, _ in part if row < 0)


GRADIENTS = """
import sys, torch
from types import SimpleNamespace as Space
from utils import distributed as ranks, models
from utils.engine import losses
from utils.engine.recipes import RECIPES
from utils.engine.trainer import Trainer

def gradient_of(network_name, loss, accumulate, samples):
    torch.manual_seed(0)
    network = models.build(network_name, 3, 2, 32).double()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Dropout | torch.nn.AlphaDropout):
            layer.p = 0.0
    config = RECIPES["chen"] | {"seed": 0, "mean": None, "std": None, "normalise": "none", "layers": "all", "max_minutes": 0, "l1": 1e-3,
                                "batch_size": 10, "accumulate": accumulate, "optimiser": "sgd", "momentum": 0.0, "clip": 0.5}
    data = Space(channels=Space(mix=None), targets=torch.ones(8, 3).numpy())
    trainer = Trainer(network, data, config, losses.parse_schedule(loss), device, None, 5, ranks=group)
    trainer.normaliser = lambda batch: batch["images"].double()
    trainer.begin_epoch()
    images, targets = torch.rand(10, 2, 32, 32), (torch.rand(10, 3) < 0.4).double()
    keys = [(1, row) for row in range(samples)]
    own = next(iter(ranks.Shares([keys], group)))
    rows = torch.tensor([row for _, row, _ in own])
    which = torch.where(rows < 0, ~rows, rows)
    curves = trainer.train_step({"images": images[which], "targets": targets[which], "rows": rows, "whole": samples})
    return {"gradients": {name: weight.grad for name, weight in network.named_parameters()}, "curves": curves}

group, device = ranks.join("cpu")
found = [gradient_of(*case) for case in CASES]
if group.first:
    torch.save(found, sys.argv[1])
"""
# Network, loss, parts that a batch goes through the network in, samples in the batch.
CASES = [("gapnet_pl", "1:soft_f1+weighted_bce", 1, 10), ("conv_mil", "1:bce", 1, 3), ("gapnet_pl", "1:bce", 3, 9),
         ("gapnet_pl", "1:soft_f1", 3, 9), ("gapnet_pl", "1:bce", 2, 1)]  # fmt: skip


def test_two_ranks_have_the_gradient_of_one(tmp_path):
    """Also of losses that couple the samples of a batch, with a penalty on the weights, in parts, and of uneven batches."""
    path = tmp_path / "gradients.py"
    path.write_text(f"CASES = {CASES}\n{GRADIENTS}")
    found = []
    for ranks in (1, 2):
        done = torchrun(path, tmp_path / f"{ranks}.pt", ranks=ranks)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(tmp_path / f"{ranks}.pt", weights_only=True))
    for case, one, two in zip(CASES, *found, strict=True):
        assert two["curves"] == pytest.approx(one["curves"], rel=1e-6), case
        assert max(float(gradient.abs().max()) for gradient in one["gradients"].values()) > 1e-4
        for name, gradient in one["gradients"].items():
            assert torch.allclose(two["gradients"][name], gradient, rtol=1e-6, atol=1e-9), (case, name)


@pytest.fixture(scope="module")
def pair(atlas, folds, tmp_path_factory):
    """One run by two ranks, one by a single process; a network without dropout and batch norm."""
    runs = tmp_path_factory.mktemp("pair")
    options = dict(model="m_cnn", size=128, epochs=2, optimiser="sgd", lr=0.01, limit=19, loss="1:bce 2:soft_f1+bce")
    out = together("train", *train_options(atlas, folds, runs, "two", **options))
    succeed("train", *train_options(atlas, folds, runs, "one", **options))
    return runs, options, out


def test_a_training_by_two_ranks_is_that_of_one_process(pair):
    runs, _, out = pair
    assert "on 2 x " in out and out.count("recipe gapnet_pl") == 1, "the first rank alone speaks"
    one, two = runs / "one/fold0", runs / "two/fold0"
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    assert (one / "rows.csv").read_bytes() == (two / "rows.csv").read_bytes()
    first, second = (read_predictions(folder / "oof.csv") for folder in (one, two))
    assert first.index.equals(second.index) and first.columns.equals(second.columns)
    assert second.to_numpy() == pytest.approx(first.to_numpy(), abs=1e-4)
    logs = [pd.read_csv(folder / "steps.csv") for folder in (one, two)]
    assert logs[0]["step"].tolist() == logs[1]["step"].tolist()
    assert logs[1]["loss"].to_numpy() == pytest.approx(logs[0]["loss"].to_numpy(), rel=1e-4)
    weights = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (one, two)]
    for name in weights[0]:
        assert torch.allclose(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-5), name


def test_gone_on_with_by_another_number_of_ranks(pair, atlas, folds, tmp_path):
    runs, options, _ = pair
    words = train_options(atlas, folds, tmp_path, "two", **options)
    together("train", *words, "--max-minutes", 0.00001)
    assert len(pd.read_csv(tmp_path / "two/fold0/log.csv")) == 1
    assert "going on from" in succeed("train", *words).out
    for name in ("oof.csv", "steps.csv"):
        before, after = (pd.read_csv(folder / "two/fold0" / name) for folder in (runs, tmp_path))
        assert after.select_dtypes("number").to_numpy() == pytest.approx(
            before.select_dtypes("number").to_numpy(), abs=1e-4
        )


def test_what_is_validated_is_what_is_kept(atlas, folds, tmp_path):
    """Each rank counts its own statistics for batch norm, and the average of the weights has others again."""
    options = train_options(atlas, folds, tmp_path, model="liimatainen_fcn", ema=0.5, lr=0.01)
    out = together("train", *options, cache=tmp_path / "cache")
    assert out.count("packing 48 images") == 1, "the first rank packs, and says so"
    words = [
        "--images",
        atlas / "train",
        "--ids",
        folds,
        "--fold",
        0,
        "--tta",
        1,
        "--workers",
        0,
        "-o",
        tmp_path / "p.csv",
    ]
    succeed("predict", tmp_path / "mini/fold0", *words)
    oof, again = (read_predictions(path) for path in (tmp_path / "mini/fold0/oof.csv", tmp_path / "p.csv"))
    assert oof.index.equals(again.index) and oof.to_numpy() == pytest.approx(again.to_numpy(), abs=1e-6)


def test_predictions_of_three_ranks_are_those_of_one(run, atlas, predictions, tmp_path):
    """Images are shared out unevenly, and rows come back in their order."""
    ids = read_predictions(predictions).index[[3, 1, 7, 2]]
    pd.DataFrame({"Id": ids}).to_csv(tmp_path / "ids.csv", index=False)
    words = [run, "--images", atlas / "test", "--ids", tmp_path / "ids.csv", "--workers", 0]
    out = together("predict", *words, "-o", tmp_path / "three.csv", ranks=3)
    assert out.count("4 images in") == 1
    found = read_predictions(tmp_path / "three.csv")
    assert found.index.tolist() == ids.tolist()
    assert found.to_numpy() == pytest.approx(read_predictions(predictions).loc[ids].to_numpy(), abs=1e-6)
    assert np.unique(found.to_numpy(), axis=0).shape[0] == 4


def test_what_is_wrong_for_all_is_said_once(atlas, folds, tmp_path):
    done = torchrun(ROOT / "train.py", *train_options(atlas, folds, tmp_path, images=tmp_path), "--no-cache")
    assert done.returncode != 0 and done.stderr.count("without an image") == 1
    assert not (tmp_path / "mini").exists()

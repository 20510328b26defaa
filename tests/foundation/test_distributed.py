"""torchrun: two processes on one CPU do together what one does alone."""

import itertools
from types import SimpleNamespace as Space

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call_together, succeed, succeed_together, train_options
from hypothesis import given
from hypothesis import strategies as st
from torchrun import together

from utils import distributed, models
from utils.distributed import Distributed, DistributedBatchSampler
from utils.engine import losses
from utils.engine.recipes import RECIPES
from utils.engine.trainer import Trainer
from utils.runs.config import RunConfig
from utils.runs.predictions import read_predictions


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 5))
def test_every_sample_of_a_batch_counts_once_and_all_shards_are_equally_long(rows, batch_size, processes):
    keys = [(3, row, 7) for row in range(rows)]
    batches = [keys[start : start + batch_size] for start in range(0, rows, batch_size)]
    samplers = [DistributedBatchSampler(batches, Distributed(rank, processes)) for rank in range(processes)]
    for batch, *shards in zip(batches, *samplers, strict=True):
        gathered = [row for _, row, _, samples in itertools.chain(*shards) if samples == len(batch)]
        real = [row for row in gathered if row >= 0]
        places = Distributed(0, processes).real_rows(len(batch), torch.device("cpu"))
        assert real == (gathered if places is None else [gathered[place] for place in places.tolist()])
        assert sorted(real) == [row for _, row, _ in batch]
        assert len({len(shard) for shard in shards}) == 1 and len(shards[0]) >= min(2, len(batch))
        for shard in shards:
            counts = [row >= 0 for _, row, *_ in shard]
            assert counts == sorted(counts, reverse=True), "padding comes last"
            assert all(~row in range(rows) for _, row, *_ in shard if row < 0)


# Network, loss, micro-batches, samples in the batch.
CASES = [("gapnet_pl", "1:soft_f1+weighted_bce", 1, 10), ("conv_mil", "1:bce", 1, 3), ("gapnet_pl", "1:bce", 3, 9),
         ("gapnet_pl", "1:soft_f1", 3, 9), ("gapnet_pl", "1:bce", 2, 1),
         ("gapnet_pl", "1:lovasz+hard_negatives", 3, 9)]  # fmt: skip


def gradient_of(model, loss, accumulate, samples, context, device):
    torch.manual_seed(0)
    network = models.build(model, 3, 2, 32).double()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Dropout | torch.nn.AlphaDropout):
            layer.p = 0.0
    options = {"batch_size": 10, "accumulate": accumulate, "normalise": "none", "optimiser": "sgd", "momentum": 0.0}
    config = RunConfig(**RECIPES["chen"] | options | {"l1": 1e-3, "clip": 0.5, "class_names": ["a", "b", "c"]})
    data = Space(channels=Space(mix=None), targets=torch.ones(8, 3).numpy())
    trainer = Trainer(network, data, config, losses.parse_schedule(loss), device, None, 5, context=context)
    trainer.normaliser = lambda batch: batch["images"].double()
    trainer.begin_epoch()
    images, targets = torch.rand(10, 2, 32, 32), (torch.rand(10, 3) < 0.4).double()
    keys = [(1, row, 0) for row in range(samples)]
    own = next(iter(DistributedBatchSampler([keys], context)))
    rows = torch.tensor([row for _, row, *_ in own])
    which = torch.where(rows < 0, ~rows, rows)
    curves = trainer.train_step({"images": images[which], "targets": targets[which], "rows": rows, "whole": samples})
    return {"gradients": {name: weight.grad for name, weight in network.named_parameters()}, "curves": curves}


def test_two_processes_have_the_gradient_of_one(tmp_path):
    """Also of losses that couple the samples of a batch, with a penalty on the weights, in micro-batches, and of uneven
    batches."""

    def main():
        context, device = distributed.init("cpu")
        found = [gradient_of(*case, context, device) for case in CASES]
        if context.is_main:
            torch.save(found, tmp_path / f"{context.world_size}.pt")
        context.barrier()

    for ranks in (1, 2):
        succeed_together(main, ranks=ranks)
    one_process, two_processes = (torch.load(tmp_path / f"{ranks}.pt", weights_only=True) for ranks in (1, 2))
    for case, one, two in zip(CASES, one_process, two_processes, strict=True):
        assert two["curves"] == pytest.approx(one["curves"], rel=1e-6), case
        assert max(float(gradient.abs().max()) for gradient in one["gradients"].values()) > 1e-4
        for name, gradient in one["gradients"].items():
            assert torch.allclose(two["gradients"][name], gradient, rtol=1e-6, atol=1e-9), (case, name)


def test_a_training_by_two_processes_is_that_of_one(atlas, folds, tmp_path):
    """Of a network without dropout and batch norm."""
    options = dict(model="m_cnn", size=128, epochs=2, optimiser="sgd", lr=0.01, limit=19, loss="1:bce 2:soft_f1+bce")
    options |= {"warmup": 0.7, "plateau": "none", "lr-schedule": "cosine"}
    out = together("train", *train_options(atlas, folds, tmp_path, "two", **options))
    succeed("train", *train_options(atlas, folds, tmp_path, "one", **options))
    assert "on 2 x " in out and out.count("recipe gapnet_pl") == 1, "only the main process prints"
    one, two = tmp_path / "one/fold0", tmp_path / "two/fold0"
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    assert (one / "rows.csv").read_bytes() == (two / "rows.csv").read_bytes()
    first, second = (read_predictions(folder / "oof.csv") for folder in (one, two))
    assert first.index.equals(second.index) and first.columns.equals(second.columns)
    assert second.to_numpy() == pytest.approx(first.to_numpy(), abs=1e-4)
    logs = [pd.read_csv(folder / "steps.csv") for folder in (one, two)]
    for name in ("step", "lr"):
        assert logs[0][name].tolist() == logs[1][name].tolist()
    assert logs[1]["loss"].to_numpy() == pytest.approx(logs[0]["loss"].to_numpy(), rel=1e-4)
    weights = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (one, two)]
    for name in weights[0]:
        assert torch.allclose(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-5), name


def test_the_weights_that_are_validated_are_those_kept(atlas, folds, tmp_path):
    """Each process has its own statistics of batch norm, and the moving average of the weights others again."""
    options = train_options(atlas, folds, tmp_path, model="liimatainen_fcn", ema=0.5, lr=0.01)
    out = together("train", *options, cache=tmp_path / "cache")
    assert out.count("packing 48 images") == 1, "the main process packs, and reports it"
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


def test_predictions_of_three_processes_are_those_of_one(run, atlas, predictions, tmp_path):
    """Shards are of unequal length, and rows come back in their order."""
    ids = read_predictions(predictions).index[[3, 1, 7, 2]]
    pd.DataFrame({"Id": ids}).to_csv(tmp_path / "ids.csv", index=False)
    words = [run, "--images", atlas / "test", "--ids", tmp_path / "ids.csv", "--workers", 0]
    out = together("predict", *words, "-o", tmp_path / "three.csv", ranks=3)
    assert out.count("4 images in") == out.count("of 4 images are unlike") == 1
    found = read_predictions(tmp_path / "three.csv")
    assert found.index.tolist() == ids.tolist()
    assert found.to_numpy() == pytest.approx(read_predictions(predictions).loc[ids].to_numpy(), abs=1e-6)
    assert np.unique(found.to_numpy(), axis=0).shape[0] == 4


def test_what_is_wrong_for_all_is_reported_once(atlas, folds, tmp_path):
    results = call_together("train", *train_options(atlas, folds, tmp_path, images=tmp_path), "--no-cache")
    assert 2 in [result.code for result in results]
    assert sum(result.err.count("without an image") for result in results) == 1
    assert not (tmp_path / "mini").exists()

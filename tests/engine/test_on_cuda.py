"""What is meant for GPUs, on imitated ones (see fake_cuda.py), and what a step may not do there."""

import argparse
import os
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import kit, refuse, succeed, train_options
from fake_cuda import GPUs, gpus  # noqa: F401
from kills import differences
from nan_batches import poison
from torch.overrides import TorchFunctionMode

from utils import device, distributed, models
from utils.data.dataset import Samples
from utils.data.images import parse_channels
from utils.device import pick_device, prefetch_to_device
from utils.engine import checkpoint, losses
from utils.engine.backward import Backward
from utils.engine.recipes import RECIPES
from utils.engine.trainer import NotFinite, Trainer
from utils.errors import InputError
from utils.runs.config import RunConfig

DEVICES = {"auto": "cuda:0", "cuda": "cuda:0", "cuda:1": "cuda:1", "cpu": "cpu", "cpu:3": "cpu"}


@pytest.mark.parametrize("spec, found", DEVICES.items())
def test_the_device_that_is_picked_has_an_index_and_is_the_current_one(gpus, spec, found):  # noqa: F811
    assert str(pick_device(spec)) == found
    if spec.startswith("cuda"):
        assert torch.cuda.current_device() == torch.device(found).index and torch.backends.cudnn.benchmark
    assert str(pick_device("cuda")) == f"cuda:{torch.cuda.current_device()}", "the one that was made current"


def test_each_rank_takes_the_gpu_of_its_number(gpus, monkeypatch):  # noqa: F811
    joined = []
    monkeypatch.setattr(distributed.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(
        distributed.distributed, "init_process_group", lambda *args, **more: joined.append((args, more))
    )
    for local in (0, 1):
        for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))
        for spec in ("auto", "cuda"):
            group, found = distributed.init(spec)
            assert found == torch.device("cuda", local) and group.local_rank == local
            assert joined.pop() == ((), {"backend": "nccl", "timeout": distributed.TIMEOUT, "device_id": found})
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(InputError, match="3 processes on a machine with 2 GPUs"):
        distributed.init("auto")


ODD = ["meta", "xpu", "hpu:0", "vulkan", "gpu", "cuda:x", "cuda:-1", "0", "", "cuda:9"]


@pytest.mark.parametrize("spec", ODD)
@pytest.mark.parametrize("script", ["train", "predict", "utils.tools.benchmark.__main__"])
def test_other_devices_are_refused(atlas, folds, run, tmp_path, script, spec):
    words = {
        "train": train_options(atlas, folds, tmp_path),
        "predict": [run, "--images", atlas / "test", "-o", tmp_path / "p.csv"],
        "utils.tools.benchmark.__main__": ["thresholds", "--rows", 40],
    }[script]
    refuse(script, *words, "--device", spec, says=["--device"])
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(gpus):  # noqa: F811
    with pytest.raises(InputError, match="cuda:2 does not exist, only cuda:0, cuda:1"):
        pick_device("cuda:2")


def test_a_gpu_that_does_not_compute_is_refused(gpus, monkeypatch):  # noqa: F811
    def broken(*_):
        raise RuntimeError("CUDA error: unspecified launch failure\nand more")

    monkeypatch.setattr(torch.Tensor, "add_", broken)
    with pytest.raises(InputError, match=r"cannot be used \(CUDA error: unspecified launch failure\); give"):
        pick_device("cuda")


def test_what_is_not_waited_for_is_not_there(gpus):  # noqa: F811
    """The imitation itself, and what the kit does to wait."""
    there = torch.device("cuda", 0)
    batch = {"images": torch.arange(6.0).reshape(2, 3), "rows": torch.arange(2), "targets": torch.ones(2)}
    with torch.cuda.stream(torch.cuda.Stream(there)):
        assert batch["images"].to(there, non_blocking=True).isnan().all()
    (found,) = prefetch_to_device([batch], there)
    assert torch.equal(found["images"], batch["images"]) and found["images"] is not batch["images"]
    assert gpus.calls.count("record_stream") == 2 and found["rows"] is batch["rows"]
    values = torch.arange(3.0)
    assert device.copy_to_pinned(values).isnan().all()
    wait = device.start_copy_to_cpu(values, there)
    values.zero_()  # what comes after does not change what was sent
    assert wait().tolist() == [0, 1, 2] and gpus.pinned == 2


def test_a_snapshot_is_of_its_moment_and_complete_when_waited_for(gpus):  # noqa: F811
    layer = torch.nn.BatchNorm1d(2)
    state = {"model": layer.state_dict(), "log": [{"a": 1.5}], "random": [{"cpu": torch.arange(3)}], "score": 0.5}
    copied, wait = checkpoint.snapshot(state, torch.device("cuda", 0))
    with torch.no_grad():
        layer.weight.fill_(9)
    state["log"].append({})
    assert copied["model"]["weight"].isnan().all()
    wait()
    assert copied["model"]["weight"].tolist() == [1, 1] and copied["log"] == [{"a": 1.5}]
    assert type(copied["model"]) is type(state["model"]) and copied["model"]._metadata == state["model"]._metadata
    assert copied["random"][0]["cpu"].tolist() == [0, 1, 2] and copied["score"] == 0.5


def gpu_options(atlas, folds, runs, name="gpu", **more):
    more = {
        "model": "liimatainen_fcn",
        "device": "cuda",
        "amp": "auto",
        "ema": 0.9,
        "loss": "1:bce 2:soft_f1+bce",
    } | more
    return train_options(atlas, folds, runs, name, **more)


@pytest.mark.parametrize(
    "optimiser, more", [("adamw", {}), ("sgd", {"clip": 1, "lr": 0.05}), ("adadelta", {"accumulate": 2})]
)
def test_training_and_predicting_there_is_that_of_the_cpu(gpus, atlas, folds, tmp_path, optimiser, more):  # noqa: F811
    """In bfloat16; fused optimisers, transfers and pinned memory change nothing but rounding."""
    more = {"optimiser": optimiser} | more
    out = succeed("train", *gpu_options(atlas, folds, tmp_path, **more)).out
    assert "on Imitated GPU, bfloat16" in out and {"Stream", "Event", "record_stream"} <= set(gpus.calls)
    succeed("train", *gpu_options(atlas, folds, tmp_path, "cpu", **more | {"device": "cpu", "amp": "bf16"}))
    folders = [tmp_path / name / "fold0" for name in ("gpu", "cpu")]
    steps = [pd.read_csv(folder / "steps.csv").drop(columns=["precision", "recall"]) for folder in folders]
    assert steps[0].to_numpy() == pytest.approx(steps[1].to_numpy(), rel=0.02, abs=1e-3)
    assert (pd.read_csv(folders[0] / "log.csv")["peak_gb"] == 3).all()
    for where, amp in (("cuda", "auto"), ("cpu", "bf16")):
        words = ["--workers", 0, "--device", where, "--amp", amp, "-o", tmp_path / f"{where}.csv"]
        succeed("predict", folders[0], "--images", atlas / "test", *words)
    found = [pd.read_csv(tmp_path / f"{where}.csv").set_index("Id").to_numpy() for where in ("cuda", "cpu")]
    assert found[0] == pytest.approx(found[1], abs=1e-7)


def test_a_training_there_goes_on_as_if_never_stopped(gpus, atlas, folds, tmp_path):  # noqa: F811
    """After every step and validation; the GPU's random state is among what is kept."""
    words = {"batch-size": 20, "optimiser": "adamw"}
    succeed("train", *gpu_options(atlas, folds, tmp_path / "whole", **words))
    while (
        "best epoch"
        not in succeed("train", *gpu_options(atlas, folds, tmp_path, **words), "--time-limit", "0.001s").out
    ):
        state = torch.load(tmp_path / "gpu/fold0/last.pt", weights_only=True)
        assert set(state["random"][0]) == {"cpu", "cuda"} and state["parts"]["optimiser"]["param_groups"][0]["fused"]
    assert differences(tmp_path / "whole/gpu/fold0", tmp_path / "gpu/fold0") == []
    assert {"get_rng_state", "set_rng_state"} <= set(gpus.calls)


def test_a_gpu_without_bfloat16_trains_in_float16(monkeypatch, atlas, folds, tmp_path):
    GPUs(monkeypatch, capability=(7, 5), bf16=False)
    words = gpu_options(atlas, folds, tmp_path, optimiser="adamw", clip=5, **{"skip-nan": 3})
    assert "on Imitated GPU, float16" in succeed("train", *words).out
    state = torch.load(tmp_path / "gpu/fold0/last.pt", weights_only=True)
    assert (
        state["parts"]["scaler"]["scale"] > 0 and np.isfinite(pd.read_csv(tmp_path / "gpu/fold0/steps.csv")).all().all()
    )


def test_batches_left_out_do_not_disturb_the_scaler_of_float16(monkeypatch, atlas, folds, tmp_path):
    """--clip has the scaler look at the gradients before the batch is found to be no number."""
    GPUs(monkeypatch, capability=(7, 5), bf16=False)
    poison(monkeypatch, 2, 3)
    words = gpu_options(atlas, folds, tmp_path, optimiser="adamw", clip=5, **{"skip-nan": 2, "batch-size": 8})
    assert "batch 2 of at most 2" in succeed("train", *words).out
    state = torch.load(tmp_path / "gpu/fold0/last.pt", weights_only=True)
    assert state["left_out"] == 2 and all(value.isfinite().all() for value in state["model"].values())


def float16_trainer(**options):
    """One on the CPU, with torch's own scaler, whose network is a linear layer of an enormous slope."""
    options |= {"batch_size": 4, "optimiser": "sgd", "lr": 1.0, "mean": [0.0], "std": [1.0]}
    config = RunConfig(**RECIPES["chen"] | options, class_names=["a", "b", "c"])
    data = Samples([], parse_channels("green"), 4, "resize", "none", np.ones((8, 3), np.uint8))
    schedule = losses.parse_schedule("1:bce")
    network = torch.nn.Linear(4, 3)
    trainer = Trainer(network, data, config, schedule, torch.device("cpu"), torch.float16, steps_per_epoch=5)
    trainer.normaliser = lambda batch: batch["images"]
    trainer.begin_epoch()
    return trainer


@pytest.mark.parametrize("clip", [0.0, 5.0])
def test_a_gradient_that_overflows_by_its_scale_lowers_that_and_is_no_fault(clip):
    trainer = float16_trainer(clip=clip, momentum=0.0, weight_decay=0.0)
    before = trainer.network.weight.detach().clone()
    batch = {"images": torch.full((4, 4), 30.0), "targets": torch.zeros(4, 3), "rows": torch.arange(4)}
    scales = []
    while torch.equal(trainer.network.weight, before):
        trainer.train_step(batch)
        scales.append(float(trainer.scaler.get_scale()))
        assert len(scales) < 20
    assert scales[0] == 2**15 and scales == sorted(scales, reverse=True) and trainer.progress.step == len(scales)
    moved = float((trainer.network.weight - before).norm())
    assert 0 < moved <= 5.001 if clip else moved > 0, "unscaled, then clipped"


def test_a_gradient_that_overflows_at_any_scale_is_one(monkeypatch):
    trainer = float16_trainer(clip=5.0)
    batch = {"images": torch.ones(4, 4), "targets": torch.zeros(4, 3), "rows": torch.tensor([3, 1, 0, 2])}
    trainer.network.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NotFinite, match="a gradient became") as trouble:
        for _ in range(30):
            trainer.train_step(batch)
    assert 16 <= trainer.progress.step <= 18 and trouble.value.rows == [3, 1, 0, 2]


def test_processes_hand_batches_over_for_a_gpu_too(gpus, atlas, folds, tmp_path):  # noqa: F811
    """Pinned by the loader where torch sees a GPU; here newer torch says that it does not."""
    weights = []
    for workers in (0, 2):
        options = gpu_options(atlas, folds, tmp_path, f"by{workers}", workers=workers, epochs=2, normalise="image")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory")
            succeed("train", *options)
        weights.append(torch.load(tmp_path / f"by{workers}/fold0/last.pt", weights_only=True)["model"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_only_for_full_batches_does_cudnn_search(gpus, atlas, folds, tmp_path, monkeypatch):  # noqa: F811
    """In training, where the last batch of an epoch is smaller, in validation and in prediction."""
    seen, usual = set(), models.NETWORKS["liimatainen_fcn"]

    def watched(**options):
        network = usual.build(**options)

        def look(layer, inputs):
            if not inputs[0].is_meta and inputs[0].dtype != torch.double:  # no trial of the network beforehand
                seen.add((layer.training, len(inputs[0]), torch.backends.cudnn.benchmark))

        network.register_forward_pre_hook(look)
        return network

    monkeypatch.setitem(models.NETWORKS, "liimatainen_fcn", usual._replace(build=watched))
    succeed("train", *gpu_options(atlas, folds, tmp_path, "watched", **{"batch-size": 7}))
    for training in (True, False):
        searched, others = (
            {size for mode, size, search in seen if (mode, search) == (training, wanted)} for wanted in (True, False)
        )
        assert searched == {7} and len(others) == 1 and max(others) < 7
    seen.clear()
    words = ["--images", atlas / "test", "--device", "cuda", "--batch-size", 5, "-o", tmp_path / "out.csv"]
    succeed("predict", tmp_path / "watched/fold0", *words)
    rows = len(pd.read_csv(tmp_path / "out.csv"))
    assert {(size, search) for _, size, search in seen} == {(5, True), (rows % 5, False)}
    assert torch.backends.cudnn.benchmark


def test_stage_timing_and_tta_views_there(gpus, atlas, run, tmp_path):  # noqa: F811
    words = ["--images", atlas / "test", "--device", "cuda", "--workers", 1]
    assert "Imitated GPU" in succeed("predict", run / "fold0", *words, "--benchmark", "--tta", 1).out
    assert "synchronize" in gpus.calls
    for where in ("cuda", "cpu"):
        words[3] = where
        succeed("predict", run, *words, "--tta", 8, "-o", tmp_path / f"{where}.csv")
    one, other = (pd.read_csv(tmp_path / f"{where}.csv").set_index("Id").to_numpy() for where in ("cuda", "cpu"))
    assert one == pytest.approx(other, abs=1e-6)


def test_batch_norm_and_gradients_of_several_gpus_are_shared(gpus, monkeypatch):  # noqa: F811
    """Also in timm's layers that hold an activation, which torch's own conversion would lose."""
    from timm.layers import BatchNormAct2d, SyncBatchNormAct

    there, group = torch.device("cuda", 1), distributed.Distributed(1, 2, 1, 2)
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), BatchNormAct2d(3), torch.nn.Conv2d(3, 3, 1))
    kinds = [type(layer) for layer in group.sync_batch_norm(network, there)]
    assert kinds == [torch.nn.SyncBatchNorm, SyncBatchNormAct, torch.nn.Conv2d]
    given = {}
    monkeypatch.setattr(distributed, "DistributedDataParallel", lambda network, **more: given.update(more) or network)
    assert group.wrap(network, there) is network and given["device_ids"] == [there]


def test_the_benchmark_trains_there_as_train_py_does(gpus, atlas, tmp_path):  # noqa: F811
    from utils.tools.benchmark import measuring
    from utils.tools.benchmark.workload import Workload

    args = {"device": "cuda", "workers": 0, "batch_size": 4, "count": 4, "images": str(atlas / "train")}
    args |= {"size": 32, "model": "gapnet_pl", "head": "own", "repeats": 1}
    work = Workload(argparse.Namespace(**args), tmp_path)
    assert (
        measuring.describe_machine(work.device, work.amp)["gpu"] == "Imitated GPU"
        and measuring.peak_gb(work.device) == 3
    )
    trainer, feed = work.trainer(32, 4), work.noise(32, 4, count=3)
    found = [feed.step(trainer)["loss"] for _ in range(3)]
    assert np.isfinite(found).all() and trainer.progress.step == 3 and len(set(found)) == 3
    assert gpus.calls.count("record_stream") == 2 * 4, "images and targets of a batch more than was trained on"
    assert measuring.seconds_of(lambda: None, work.device) >= 0 and "synchronize" in gpus.calls


def test_a_kaggle_kernel_counts_its_gpus(gpus, capsys):  # noqa: F811
    from utils.kaggle import kernel

    assert kernel.count_gpus() == 2 and "GPU 1: Imitated GPU" in capsys.readouterr().out
    assert kernel.count_gpus("--device cpu") == 0


# What a step may do


class Watch(TorchFunctionMode):
    """Notes what brings values from main memory to the device, or from there."""

    def __init__(self):
        super().__init__()
        self.arrived, self.waited = [], 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", str(function))
        if function is torch.Tensor.tolist:
            self.waited += 1
            return [0.5] * len(args[0])
        result = function(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.is_meta:
            flat = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
            if name in ("tensor", "new_tensor", "as_tensor") or any(
                value.device.type == "cpu" and value.ndim for value in flat
            ):
                self.arrived.append(name)
        return result


OPTIONS = [
    {},
    {"loss": "1:soft_f1+10*weighted_bce", "ema": 0.9, "clip": 5.0},
    {"loss": "1:focal+positive_bce", "optimiser": "adamw"},
    {"accumulate": 2, "loss": "1:soft_f1"},
    {"skip_nan": 2, "optimiser": "sgd", "l1": 1e-5},
    {"normalise": "image"},
    {"channels": "rgb+y/3", "loss": "1:pos_weight_bce"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_step_waits_once_for_the_device_and_gives_it_nothing_but_the_batch(monkeypatch, options):
    """On torch's device without data: what asks for a value there fails, and what brings one there is seen."""
    there, size = torch.device("meta"), 32
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    config = RunConfig(**RECIPES["chen"] | {"batch_size": 8} | options, class_names=[str(n) for n in range(28)])
    channels = parse_channels(config.channels)
    config.mean, config.std = [0.1] * channels.planes, [0.2] * channels.planes
    network = models.build("liimatainen_fcn", 28, channels.planes, size).to(there)
    data = Samples([], channels, size, "resize", config.normalise, np.ones((80, 28), np.uint8))
    schedule = losses.parse_schedule(config.loss)
    trainer = Trainer(network, data, config, schedule, there, None, steps_per_epoch=10)
    trainer.begin_epoch()
    given = {"images": torch.zeros(8, 4, size, size, dtype=torch.uint8), "targets": torch.zeros(8, 28)}
    given |= {"mean": torch.zeros(8, channels.planes), "std": torch.ones(8, channels.planes)}
    batch = {name: value.to(there) for name, value in given.items()} | {"rows": torch.arange(8)}
    order = []
    with Watch() as watch:
        for _ in range(2):
            trainer.train_step(batch, meanwhile=lambda: order.append(watch.waited) or 0)
    assert watch.arrived == [] and watch.waited == 2
    assert order == [0, 1], "what is done meanwhile is done before the wait"


def test_a_wait_within_a_step_would_be_seen(monkeypatch):
    def use(focal):
        monkeypatch.setitem(losses.LOSSES, "focal", losses.Loss(focal))

    use(lambda inputs: (inputs.logits.new_tensor(21.0) * inputs.targets).mean())
    with pytest.raises(AssertionError, match="new_tensor"):
        test_a_step_waits_once_for_the_device_and_gives_it_nothing_but_the_batch(monkeypatch, {})
    use(lambda inputs: inputs.logits.mean() * float(inputs.targets.sum()))
    with pytest.raises((RuntimeError, NotImplementedError)):
        test_a_step_waits_once_for_the_device_and_gives_it_nothing_but_the_batch(monkeypatch, {})


# Memory


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.74 GiB\nand more"
    )


FULL = [
    ([], ["--batch-size 16, --accumulate 1", "--checkpointing or --accumulate 2 or --batch-size 8"]),
    (["--checkpointing"], ["--accumulate 1, --checkpointing; give --accumulate 2 or --batch-size 8"]),
    (["--accumulate", 8, "--checkpointing"], ["--accumulate 8, --checkpointing; give --batch-size 8"]),
]


@pytest.mark.parametrize("more, says", FULL)
def test_a_full_gpu_is_one_sentence(gpus, atlas, folds, tmp_path, monkeypatch, more, says):  # noqa: F811
    """What was in use, and what to do; nothing half-done stays."""
    monkeypatch.setattr(Backward, "__call__", out_of_memory)
    words = [*gpu_options(atlas, folds, tmp_path, normalise="none"), *more]
    memory = "out of memory on Imitated GPU, 15.0 of 16.0 GB in use (11.0 GB by other processes)"
    refuse("train", *words, says=[memory, "liimatainen_fcn at --size 32", *says])
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_fills_up_later_goes_on_with_checkpointing(gpus, atlas, folds, tmp_path, monkeypatch):  # noqa: F811
    words = gpu_options(atlas, folds, tmp_path)
    succeed("train", *words, "--time-limit", "0.001s")
    last = tmp_path / "gpu/fold0/last.pt"
    with monkeypatch.context() as patch:
        patch.setattr(Backward, "__call__", out_of_memory)
        advice = f"give --checkpointing, with which the same command goes on from {last}"
        refuse("train", *words, says=[advice, "--accumulate 2 and another --name"])
    assert "going on from" in succeed("train", *words, "--checkpointing").out


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("x"),
    MemoryError(),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_whatever_says_that_memory_is_short_is_understood(error):
    says = pytest.raises(InputError, match="out of memory on the CPU, .* GB of main memory free; do this")
    with says, device.explain_out_of_memory(torch.device("cpu"), lambda: "do this"):
        raise error
    with pytest.raises(RuntimeError, match="other"), device.explain_out_of_memory(torch.device("cpu"), str):
        raise RuntimeError("other")


def test_a_prediction_without_memory_is_one_sentence(gpus, atlas, run, tmp_path, monkeypatch):  # noqa: F811
    from utils.engine import inference

    monkeypatch.setattr(inference, "tta_probabilities", out_of_memory)
    words = ["--images", atlas / "test", "--device", "cuda", "--workers", 0, "-o", tmp_path / "p.csv"]
    refuse("predict", run, *words, says=["out of memory on Imitated GPU", "give --batch-size 8 or fewer folds at once"])
    refuse("predict", run / "fold0", *words, "--batch-size", 6, says="GB by other processes); give --batch-size 3")
    refuse("predict", run / "fold0", *words, "--batch-size", 1, says="; give --device cpu")
    assert not list(tmp_path.iterdir()) and os.environ.get("CUDA_VISIBLE_DEVICES") == ""


def test_a_fault_of_the_kit_is_not_taken_for_a_full_gpu(atlas, folds, tmp_path, monkeypatch):
    monkeypatch.setattr(Backward, "__call__", lambda *_: {}["nothing"])
    with pytest.raises(KeyError):
        kit("train", *train_options(atlas, folds, tmp_path))

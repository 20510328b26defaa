"""train.py's options that save memory or time, and the averaged weights: the same result by another way."""

import contextlib
import copy

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from conftest import refuse, stop_in_epoch, succeed, train_options
from kills import differences
from timm.optim import param_groups_weight_decay
from torch import nn

from utils import models
from utils.engine import activation_checkpointing, compiling, losses, trainer
from utils.engine.recipes import RECIPES
from utils.errors import InputError
from utils.runs.config import RunConfig

CLASSES = 3


def make_trainer(network, batch=10, **options):
    """A trainer in its first epoch that gets (images, targets) as they are."""
    options |= {"batch_size": batch, "plateau": "none", "mean": [0.0], "std": [1.0]}
    config = RunConfig(**RECIPES["chen"] | options, class_names=["a", "b", "c"])
    targets = (np.arange(8 * CLASSES).reshape(8, CLASSES) % 5 == 0).astype(np.uint8)
    data = type("Data", (), {"channels": type("C", (), {"mix": None}), "targets": targets})
    schedule = losses.parse_schedule(config.loss)
    subject = trainer.Trainer(network, data, config, schedule, torch.device("cpu"), None, steps_per_epoch=5)
    subject.normaliser = lambda batch: batch["images"]
    subject.begin_epoch()
    return subject


def make_batch(size, samples=10, dtype=torch.float32, seed=0):
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, 2, size, size, generator=rng, dtype=dtype)
    targets = (torch.rand(samples, CLASSES, generator=rng) < 0.3).to(dtype)
    return {"images": images, "targets": targets, "rows": torch.arange(samples)}


def build(name, size=32, dropout=False):
    torch.manual_seed(0)
    network = models.build(name, CLASSES, 2, size)
    for layer in network.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd) and not dropout:
            layer.p = 0.0
    return network


def gradients(network):
    return torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])


def close(found, expected):
    """Equal but for rounding: a wrong share or a lost part would be off by far more."""
    return float((found - expected).norm() / expected.norm()) < 1e-5


def standing(loss):
    """Options of a step that moves nothing."""
    return {"loss": loss, "optimiser": "sgd", "lr": 0.0, "momentum": 0.0, "weight_decay": 0.0}


@pytest.mark.parametrize("name", ["gapnet_pl", "conv_mil"])
@pytest.mark.parametrize(
    "loss", ["1:bce", "1:soft_f1+2*weighted_bce", "1:focal+soft_f1", "1:28*focal(2,.5)+lovasz", "1:hard_negatives"]
)
@pytest.mark.parametrize("samples, parts", [(10, 4), (7, 4), (10, 10), (2, 4), (8, 2)])
def test_parts_give_the_gradient_of_the_whole_batch(name, loss, samples, parts):
    """Parts of 3, 3, 2 and 2 samples; a last batch smaller than the others; the curves too are the whole batch's."""
    network = build(name)
    batch = make_batch(32, samples)
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found = {}
    for count in (1, parts):
        seen.clear()
        subject = make_trainer(network, accumulate=count, l1=1e-3, clip=0.0, **standing(loss))
        curves = subject.train_step(batch)
        found[count] = gradients(network), curves
    assert min(seen) >= 2 and max(seen) <= max(2, -(-10 // parts)), "no part larger than the largest of a full batch"
    coupled = any(term in loss for term in ("soft_f1", "lovasz", "hard_negatives"))
    passes = 2 if coupled and max(seen) < samples else 1
    assert sum(seen) == samples * passes, "only a coupled loss in several parts needs two passes"
    assert close(found[parts][0], found[1][0])
    assert found[parts][1] == pytest.approx(found[1][1], rel=1e-5)


def test_the_loss_of_the_parts_alone_would_be_another():
    """What the two passes are for: soft F1 is no mean of its parts' values; every separable term is."""
    logits, targets = torch.randn(32, CLASSES, dtype=torch.float64), make_batch(1, 32, torch.float64)["targets"]
    weights = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)
    for name, term in losses.LOSSES.items():
        whole, *halves = (
            float(term.function(losses.LossInputs(logits[rows], targets[rows], weights, weights)))
            for rows in (slice(0, 32), slice(0, 16), slice(16, 32))
        )
        assert (np.mean(halves) == pytest.approx(whole)) == term.separable, name


def test_both_passes_see_the_same_dropout_and_batch_norm_counts_once():
    """Against one graph of all parts, kept in memory."""
    network = build("liimatainen_fcn", dropout=True)
    network.convolutions.insert(3, nn.Dropout(0.5))
    other = copy.deepcopy(network)
    subject = make_trainer(network, accumulate=4, **standing("1:soft_f1"))
    batch = make_batch(32)
    other.train()
    torch.manual_seed(5)
    logits = torch.cat([other(part) for part in batch["images"].tensor_split(4)])
    losses.soft_f1(losses.LossInputs(logits, batch["targets"])).backward()
    after = torch.rand(1)
    torch.manual_seed(5)
    subject.train_step(batch)
    assert torch.equal(torch.rand(1), after), "and the random numbers go on where they would"
    assert close(gradients(network), gradients(other))
    for (key, mine), theirs in zip(network.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, theirs), key


class Scaled:
    """A scaler that counts, in the place of a GPU's."""

    def __init__(self):
        self.calls = []

    def is_enabled(self):
        return True

    def scale(self, value):
        self.calls.append("scale")
        return value * 1024

    def unscale_(self, optimiser):
        self.calls.append("unscale")
        for group in optimiser.param_groups:
            for weight in group["params"]:
                weight.grad /= 1024

    def update(self):
        self.calls.append("update")


@pytest.mark.parametrize("loss", ["1:bce", "1:soft_f1"])
def test_scaled_gradients_are_unscaled_clipped_and_stepped_once_a_batch(loss):
    found = []
    for count in (1, 4):
        network = build("gapnet_pl")
        subject = make_trainer(network, accumulate=count, l1=1e-3, clip=0.01, **standing(loss))
        scaler = subject.scaler = subject.backward.scaler = Scaled()
        subject.optimiser.step = lambda calls=scaler.calls: calls.append("step")
        subject.train_step(make_batch(32))
        assert [call for call in scaler.calls if call != "scale"] == ["unscale", "step", "update"]
        found.append(gradients(network))
    assert close(*found) and float(found[0].norm()) == pytest.approx(0.01, rel=1e-4)


class Watched(nn.Module):
    """A wrapper such as DistributedDataParallel's: which passes would tell the other processes?"""

    def __init__(self, network):
        super().__init__()
        self.network, self.quiet, self.forward_quiet, self.told = network, False, [], []

    def no_sync(self):
        @contextlib.contextmanager
        def quiet():
            self.quiet = True
            yield
            self.quiet = False

        return quiet()

    def forward(self, images):
        outputs = self.network(images)
        self.forward_quiet.append(self.quiet)  # which is what such a wrapper goes by
        outputs.register_hook(lambda _: self.told.append(not self.quiet))
        return outputs


@pytest.mark.parametrize("loss", ["1:bce", "1:soft_f1"])
def test_only_the_last_part_is_told_to_other_processes(loss):
    subject = make_trainer(build("gapnet_pl"), accumulate=3, **standing(loss))
    subject.backward.parallel = Watched(subject.network)
    subject.train_step(make_batch(32, 9))
    assert subject.backward.parallel.told == [False, False, True]
    assert subject.backward.parallel.forward_quiet == [True] * (len(subject.backward.parallel.forward_quiet) - 1) + [
        False
    ]


SMALLEST = {"m_cnn": 128, "deeploc": 16, "gapnet_pl": 16, "liimatainen_fcn": 16, "xception": 64}


@pytest.mark.parametrize(
    "name", [*models.NETWORKS, "timm:vovnet39a", "timm:test_convnext", "pretrainedmodels:se_resnet50"]
)
def test_checkpointing_changes_nothing_but_the_memory(name):
    """Outputs, gradients, batch norm's statistics and the random numbers after, to the bit; dropout is on."""
    size = SMALLEST.get(name, 32)
    network = build(name, size, dropout=True).train()
    other = copy.deepcopy(network)
    assert activation_checkpointing.checkpoint_blocks(other) and list(network.state_dict()) == list(other.state_dict())
    other = copy.deepcopy(other)  # a copy must run its own weights
    images = make_batch(size, 2)["images"]
    results = []
    for subject in (network, other):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "resnet50"):
            (outputs, size_kept) = kept(subject, images)
        sum((output.double() ** 2).sum() for output in outputs).backward()
        results.append((*outputs, gradients(subject), *subject.buffers(), torch.rand(3)))
        results[-1] = [value.detach().clone() for value in results[-1]], size_kept
    (plain, much), (again, little) = results
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert little < 0.7 * much
    with torch.inference_mode():
        assert torch.equal(network.eval()(images), other.eval()(images))


def kept(network, images):
    """-> (outputs, bytes that the forward pass keeps for the backward pass beside the weights)."""
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage  # held, so that its place is not given away
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network(images)
    return outputs if isinstance(outputs, tuple) else (outputs,), sum(s.nbytes() for s in storages.values())


def test_a_layer_that_overwrites_its_input_begins_no_block():
    layers = [
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
    ]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
    other = copy.deepcopy(network)
    assert activation_checkpointing.checkpoint_blocks(other)
    for subject in (network, other):
        subject(make_batch(8, 4)["images"]).sum().backward()
    assert torch.equal(gradients(network), gradients(other))


def test_checkpointing_and_parts_through_the_script_end_with_the_same_weights(atlas, folds, tmp_path):
    """Without batch norm and with one part the very bits; going on may be without the option."""
    options = {"epochs": 2, "loss": "1:bce 2:soft_f1", "model": "convnet"}
    weights = {}
    ways = {"plain": [], "again": ["--checkpointing"], "parts": ["--accumulate", 4, "--checkpointing"]}
    for name, more in ways.items():
        succeed("train", *train_options(atlas, folds, tmp_path, name, **options), *more)
        weights[name] = torch.load(tmp_path / name / "fold0/last.pt", weights_only=True)["model"]
    assert all(torch.equal(weights["plain"][key], weights["again"][key]) for key in weights["plain"])
    assert not torch.equal(weights["plain"]["head.5.bias"], weights["parts"]["head.5.bias"]), "another dropout"
    command = train_options(atlas, folds, tmp_path, "again", **options)
    assert "trained already" in succeed("train", *command).out
    refuse("train", *command, "--accumulate", 2, says="accumulate 1 -> 2")


def test_the_average_is_its_closed_form():
    """Weights and batch norm's statistics after each step, blended by hand; counters as they are."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    decay = 0.3  # less than (1 + n)/(10 + n) from update 4 on
    subject = make_trainer(network, ema=decay, **standing("1:bce") | {"lr": 0.5})
    assert subject.evaluated is not network
    expected = None
    for step in range(8):
        subject.train_step(make_batch(2, seed=step))
        now = {key: value.clone() for key, value in network.state_dict().items()}
        share = min(decay, (1 + step) / (10 + step))
        before, expected = now if step == 0 else expected, dict(now)
        for key, value in now.items():
            if value.is_floating_point():
                expected[key] = share * before[key] + (1 - share) * value
        found = subject.evaluated.state_dict()
        assert all(torch.allclose(found[key], expected[key], rtol=1e-5, atol=1e-7) for key in expected), step
    assert int(found["2.num_batches_tracked"]) == 8
    assert not torch.allclose(found["1.weight"], network.state_dict()["1.weight"])


def test_without_an_average_the_network_itself_is_evaluated():
    network = build("gapnet_pl")
    subject = make_trainer(network)
    assert subject.evaluated is network and "average" not in subject.state()["parts"]


def test_an_averaged_run_gone_on_with_ends_as_if_never_stopped(atlas, folds, tmp_path, monkeypatch):
    """best.safetensors holds the average, last.pt both; through a network with batch norm, in parts."""
    options = dict(model="liimatainen_fcn", epochs=3, ema=0.9, accumulate=2, loss="1:bce 2:soft_f1+bce", lr=0.01)
    options |= {"batch-size": 8}
    succeed("train", *train_options(atlas, folds, tmp_path, "whole", **options))
    stop_in_epoch(monkeypatch, 3, train_options(atlas, folds, tmp_path, "parts", **options))
    assert "going on from" in succeed("train", *train_options(atlas, folds, tmp_path, "parts", **options)).out
    folders = [tmp_path / name / "fold0" for name in ("whole", "parts")]
    for name in ("steps.csv", "oof.csv", *(f"validation/epoch{epoch:03}.npy" for epoch in (1, 2, 3))):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    lasts = [torch.load(folder / "last.pt", weights_only=True) for folder in folders]
    bests = [safetensors.torch.load_file(folder / "best.safetensors") for folder in folders]
    averages = [last["parts"]["average"] for last in lasts]
    for first, second in (bests, averages, [last["model"] for last in lasts]):
        assert all(torch.equal(first[key], second[key]) for key in first)
    raw, averaged = lasts[0]["model"], {key.removeprefix("module."): value for key, value in averages[0].items()}
    assert not torch.equal(raw["maps.weight"], averaged["maps.weight"])
    if lasts[0]["best_epoch"] == 3:
        assert all(torch.equal(bests[0][key], averaged[key]) for key in bests[0])
    assert repeated(tmp_path / "whole", atlas, tmp_path)


def test_a_run_with_another_head_goes_on_predicts_and_starts_others(atlas, folds, tmp_path, monkeypatch):
    """With the losses of the winner of 2018, two of which couple the samples of a batch, in parts."""
    options = {
        "model": "timm:test_resnet",
        "weights": "none",
        "head": "avg_max",
        "epochs": 2,
        "ema": 0.9,
        "accumulate": 2,
    }
    options["loss"] = "1:28*focal(2,.5)+.5*lovasz+.5*hard_negatives"
    succeed("train", *train_options(atlas, folds, tmp_path, "plain", **options))
    stopped = train_options(atlas, folds, tmp_path, "stopped", **options)
    stop_in_epoch(monkeypatch, 2, stopped)
    succeed("train", *stopped)
    assert differences(tmp_path / "plain/fold0", tmp_path / "stopped/fold0") == []
    steps = pd.read_csv(tmp_path / "plain/fold0/steps.csv")
    expected = 28 * steps["focal(2,.5)"] + 0.5 * steps["lovasz"] + 0.5 * steps["hard_negatives"]
    assert steps["loss"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-5)
    assert repeated(tmp_path / "plain", atlas, tmp_path)
    other = options | {"head": "attention"}
    refuse("train", *train_options(atlas, folds, tmp_path, "plain", **other), says="head 'avg_max' -> 'attention'")
    start = tmp_path / "plain/fold0/best.safetensors"
    other |= {"weights": start, "layers": "last"}
    assert "new last layer" in succeed("train", *train_options(atlas, folds, tmp_path, "last", **other)).out
    before, after = (safetensors.torch.load_file(path) for path in (start, tmp_path / "last/fold0/best.safetensors"))
    assert all(torch.equal(value, before[key]) for key, value in after.items() if not key.startswith("head."))
    assert {key for key in after if key.startswith("head.")} == {
        f"head.{part}.{kind}" for part in ("logits", "attention") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adadelta"])
def test_how_an_optimiser_computes_is_the_devices_and_not_the_files(name):
    """A file from a GPU says fused; on the CPU it goes on as if begun there, to the bit. And the other way round."""
    begun, steps = {}, 2
    for where in ("cpu", "file of a gpu"):
        subject = make_trainer(build("gapnet_pl"), optimiser=name, lr=0.01, loss="1:bce")
        for step in range(steps):
            subject.train_step(make_batch(32, seed=step))
        state = copy.deepcopy(subject.state()) | {"repeat": False}
        own = {key: state["parts"]["optimiser"]["param_groups"][0].get(key) for key in trainer.IMPLEMENTATIONS}
        for group in state["parts"]["optimiser"]["param_groups"]:
            group.update({"fused": True, "foreach": False} if where != "cpu" and name != "adadelta" else {})
        again = make_trainer(build("gapnet_pl"), optimiser=name, lr=0.01, loss="1:bce")
        again.restore(state)
        assert {key: again.optimiser.param_groups[0].get(key) for key in own} == own
        again.train_step(make_batch(32, seed=9))
        begun[where] = again.network.state_dict()
    assert all(torch.equal(begun["cpu"][key], value) for key, value in begun["file of a gpu"].items())
    weights = [nn.Parameter(torch.zeros(2))]
    options = type("Options", (), {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0})
    groups = trainer.decay_groups([*weights, nn.Parameter(torch.zeros(2, 2))], decay_norms=False)
    on_gpu = trainer.OPTIMISERS[name](groups, options, True).param_groups
    assert [group.get("fused") for group in on_gpu] == [True if name != "adadelta" else None] * 2


@pytest.mark.parametrize("name", ["densenet121", "gapnet_pl", "conv_mil", "timm:test_vit"])
def test_weights_that_decay_are_those_of_timm(name):
    """Each weight is in one group; with zero gradients AdamW multiplies it by 1 - lr * decay, or leaves it as it is."""
    network = build(name, size=160 if "vit" in name else 32)
    subject = make_trainer(network, optimiser="adamw", lr=0.5, weight_decay=0.1, decay_norms=False)
    groups = subject.optimiser.param_groups
    names = {id(weight): key for key, weight in network.named_parameters()}
    found = [sorted(names[id(weight)] for weight in group["params"]) for group in groups]
    theirs = param_groups_weight_decay(network, 0.1)
    expected = {group["weight_decay"]: sorted(names[id(weight)] for weight in group["params"]) for group in theirs}
    assert {group["weight_decay"]: own for group, own in zip(groups, found, strict=True)} == expected
    assert sorted(sum(found, [])) == sorted(names.values())
    before = {key: weight.clone() for key, weight in network.named_parameters()}
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    subject.optimiser.step()
    for key, weight in network.named_parameters():
        assert torch.allclose(weight, before[key] * (0.95 if key in expected[0.1] else 1.0)), key


def test_decay_groups_of_a_last_layer_alone_and_by_default():
    network = build("densenet121")
    head = list(network.get_submodule(network.head_layers[0]).parameters())
    subject = make_trainer(network, layers="last", decay_norms=False)
    assert [group["params"] for group in subject.optimiser.param_groups] == [head[:1], head[1:]]
    assert len(make_trainer(network).optimiser.param_groups) == 1


def build_tiny(classes, channels, size):
    """A network that is compiled in seconds, with batch norm and without dropout."""
    network = nn.Sequential(nn.Conv2d(channels, 4, 3, stride=4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    network.append(nn.Linear(4 * (size // 4) ** 2, classes))
    network.stem_layers, network.head_layers = ("0",), ("4",)
    return network


@pytest.mark.parametrize("more", [[], ["--checkpointing"]])
def test_a_compiled_run_ends_with_the_same_network(atlas, folds, tmp_path, monkeypatch, more):
    """But for rounding, batch norm's statistics included; best.safetensors is loaded by predict.py and repeats the validation; the
    smaller last batch of an epoch is not compiled for."""
    try:
        compiling.check_compiles(torch.device("cpu"), checkpointing=bool(more))
    except InputError as error:
        pytest.skip(str(error))
    torch._dynamo.reset()
    monkeypatch.setitem(models.NETWORKS, "tiny", models.Network(build_tiny, 8))
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    best, options = [], {"model": "tiny", "epochs": 3, "ema": 0.5, "accumulate": 2, "loss": "1:bce+soft_f1"}
    for name, words in (("plain", []), ("fast", ["--compile", *more])):
        succeed("train", *train_options(atlas, folds, tmp_path, name, **options), *words)
        best.append(safetensors.torch.load_file(tmp_path / name / "fold0/best.safetensors"))
    assert graphs["unique_graphs"] - before == 2 + len(more), (
        "a trial, another with --checkpointing, and the network once"
    )
    for key, value in best[0].items():
        assert torch.allclose(value, best[1][key], rtol=1e-3, atol=1e-5), key
    assert repeated(tmp_path / "fast", atlas, tmp_path)
    if not more:
        before = graphs["unique_graphs"]
        assert repeated(tmp_path / "fast", atlas, tmp_path, "--compile", "--batch-size", 5)
        assert graphs["unique_graphs"] - before == 1, "the network, for full batches"


def repeated(run, atlas, tmp_path, *more):
    """Return whether predict.py gives the probabilities of a run's validation for the same images."""
    oof = pd.read_csv(run / "fold0/oof.csv")
    oof[["Id"]].to_csv(tmp_path / "ids.csv", index=False)
    words = ["--images", atlas / "train", "--ids", tmp_path / "ids.csv", "-o", tmp_path / "again.csv", *more]
    succeed("predict", run, *words, "--tta", 1, "--workers", 0)
    again = pd.read_csv(tmp_path / "again.csv")
    return np.allclose(again.drop(columns="Id"), oof.drop(columns="Id"), atol=1e-6)


def test_where_nothing_compiles_it_is_said_before_anything_is_read(atlas, folds, tmp_path, monkeypatch):
    def broken(*_, **__):
        def call(*_):
            raise RuntimeError("no compiler\nand a long trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    words = train_options(atlas, folds, tmp_path, images=tmp_path)
    refuse(
        "train", *words, "--compile", says=["--compile does not work on this machine", "no compiler", "leave it out"]
    )


class NotCompiled(torch._dynamo.exc.TorchDynamoException):
    __module__ = "torch._dynamo.exc"


def test_a_network_that_cannot_be_compiled_is_one_sentence(run, atlas, folds, tmp_path, monkeypatch):
    def failing(network, **_):
        def call(*_):
            error = NotCompiled("backend='inductor' raised:\n a long trace")
            error.inner_exception = RuntimeError("no triton here\nand more")
            raise error

        return call if isinstance(network, nn.Module) else network

    monkeypatch.setattr(torch, "compile", failing)
    says = ["--compile: gapnet_pl cannot be compiled by torch", "(no triton here)", "leave --compile out"]
    refuse("train", *train_options(atlas, folds, tmp_path), "--compile", says=says)
    words = ["--images", atlas / "test", "--workers", 0, "--batch-size", 4, "-o", tmp_path / "p.csv", "--compile"]
    refuse("predict", run, *words, says=says)
    assert not list(tmp_path.iterdir())


def test_compiled_layers_that_count_twice_are_refused(atlas, folds, tmp_path, monkeypatch):
    """As with torch 2.6, where what is computed again changes batch norm's statistics a second time."""

    def twice(layers):
        def call(images):
            layers[1].num_batches_tracked += 1
            return layers(images)

        return call if isinstance(layers, nn.Module) else layers

    monkeypatch.setattr(torch, "compile", twice)
    words = train_options(atlas, folds, tmp_path, images=tmp_path)
    refuse("train", *words, "--compile", "--checkpointing", says=["count batch norm's statistics twice", "leave one"])
    refuse("train", *words, "--compile", says="without an image")


def test_impossible_options_are_refused(atlas, folds, tmp_path):
    words = train_options(atlas, folds, tmp_path, images=tmp_path)
    blockless = ["--checkpointing", "--model", "pretrainedmodels:bninception", "--size", "224", "--weights", "none"]
    single = ["--batch-size", "1", "--model", "timm:test_resnet", "--size", "64"]
    for more, says in (
        (["--accumulate", 0], "--accumulate 0 is out of range; give 1 or more"),
        (["--accumulate", 17], ["--accumulate 17", "--batch-size 16", "give fewer"]),
        (["--ema", 1], ["--ema 1", "less than 1"]),
        (["--ema", -0.1], "--ema -0.1 is out of range"),
        (["--ema", "nan"], "--ema nan is out of range"),
        (["--head", "avg_max"], ["gapnet_pl cannot have the head avg_max", "give --head own"]),
        ([*single, "--head", "avg_max"], ["batch norm of timm:test_resnet", "give --batch-size 2 or more"]),
        (["--loss", "1:focal(21)"], ["focal(21)", "γ from 0 to 20 and α from 0 to 1"]),
        (["--lr-schedule", "cosine"], ["--plateau epoch both set the learning rate", "--plateau none"]),
        (["--warmup", 2.5], "--warmup 2.5 is longer than --epochs 2; give less"),
        (["--warmup", -1], "--warmup -1.0 is out of range"),
        (["--pseudo", "p.csv", "--loss", "1:bce 2:focal"], "which the loss focal cannot take"),
        (["--pseudo", "p.csv", "--single-label"], "which --single-label cannot take; leave one out"),
        (["--pseudo", "p.csv"], "p.csv does not exist"),
        (blockless, ["--checkpointing finds no blocks in pretrainedmodels:bninception", "--accumulate"]),
    ):
        refuse("train", *words, *more, says=says)

"""Starting weights: ImageNet files, checkpoints, GapNet-PL as published."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from conftest import succeed

from utils import models
from utils.engine import checkpoint, weights
from utils.errors import InputError
from utils.models.se_resnext import IMAGENET_URLS_50, IMAGENET_URLS_101
from utils.runs.config import RunConfig


def start(model, file, stem="mean", channels="rgby", class_names=range(28), size=None):
    """The config of a run that starts from a file."""
    names = [str(name) for name in class_names]
    return RunConfig(model=model, weights=str(file), stem=stem, channels=channels, class_names=names, size=size)


def imagenet_like(path, name="se_resnext50_32x4d", seed=1):
    """A file with the layout of the ImageNet weights: RGB stem, 1000 classes."""
    torch.manual_seed(seed)
    state = models.build(name, 1000, 3).state_dict()
    torch.save(state, path)
    return state


@pytest.mark.parametrize(
    "name, published, urls, features",
    [
        ("se_resnext50_32x4d", "se_resnext50_32x4d", IMAGENET_URLS_50, 2048),
        ("se_resnext101_quarters", "se_resnext101_32x4d", IMAGENET_URLS_101, 8192),
    ],
)
def test_imagenet_file_from_the_weight_folder(name, published, urls, features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    weights.WEIGHT_FOLDER.mkdir(parents=True)
    files = [weights.WEIGHT_FOLDER / url.rpartition("/")[2] for url in urls]  # the publisher's name and timm's
    state = imagenet_like(files[1], published)
    for path in reversed(files):
        if not path.exists():
            files[1].rename(path)
        network = models.build(name, 28, 4)
        message = weights.load_start(network, start(name, "imagenet", stem="zero"))
        assert path.name in message and "new last layer" in message
        loaded, stem = network.state_dict(), "layer0.conv1.weight"
        assert torch.equal(loaded[stem][:, :3], state[stem]) and (loaded[stem][:, 3] == 0).all()
        assert torch.equal(loaded["layer4.2.conv3.weight"], state["layer4.2.conv3.weight"])
        assert loaded["last_linear.weight"].shape == (28, features)


def test_a_stem_stays_random_on_request(tmp_path):
    """As in Chen's code, which loads only weights of equal shape; of RGB images all have it."""
    source = timm.create_model("resnet10t").state_dict()
    torch.save(source, tmp_path / "x.pth")
    for channels, planes, kept in (("rgby", 4, False), ("rgb", 3, True)):
        network = models.build("timm:resnet10t", 28, planes, size=64)
        before = network.state_dict()["conv1.0.weight"].clone()
        weights.load_start(network, start("timm:resnet10t", tmp_path / "x.pth", stem="random", channels=channels))
        after = network.state_dict()
        assert torch.equal(after["conv1.0.weight"], source["conv1.0.weight"] if kept else before)
        assert torch.equal(after["layer1.0.conv1.weight"], source["layer1.0.conv1.weight"])


def test_offline_without_a_file_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    asked = []

    def no_network(url, *_, **__):
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(
        InputError, match=r"se_resnext50_32x4d-a260b3a4\.pth or legacy_se_resnext50_32x4d-f3651bad\.pth into input"
    ):
        weights.load_start(models.build("se_resnext50_32x4d", 28, 4), start("se_resnext50_32x4d", "imagenet"))
    assert asked == list(IMAGENET_URLS_50), "timm's copy is tried where the first host fails"


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(models.build("gapnet_pl", 28, 4).state_dict(), tmp_path / "gapnet.pt")
    with pytest.raises(InputError, match="another network"):
        weights.load_start(
            models.build("se_resnext50_32x4d", 28, 4), start("se_resnext50_32x4d", tmp_path / "gapnet.pt")
        )
    with pytest.raises(InputError, match="another network"):
        weights.load_start(models.build("gapnet_pl", 28, 1), start("gapnet_pl", tmp_path / "gapnet.pt", channels="g"))


def saved_gapnet(path, channels="rgby", class_names=("a", "b", "c")):
    network = models.build("gapnet_pl", len(class_names), 4)
    config = {"channels": channels, "class_names": list(class_names)}
    checkpoint.save(path, {"config": config, "model": network.state_dict(), "epoch": 1, "score": 0.1})
    return network


@pytest.mark.parametrize("class_names", [["a", "b"], ["c", "b", "a"]])
def test_a_checkpoint_for_other_classes_keeps_all_but_the_last_layer(tmp_path, class_names):
    """Also where only their order differs: the same shapes would fit, the classes would not."""
    source = saved_gapnet(tmp_path / "best.pt")
    network = models.build("gapnet_pl", len(class_names), 4)
    fresh = network.head.weight.clone()
    assert "new last layer" in weights.load_start(
        network, start("gapnet_pl", tmp_path / "best.pt", class_names=class_names)
    )
    assert torch.equal(network.block3[4].weight, source.block3[4].weight) and torch.equal(network.head.weight, fresh)


@pytest.mark.parametrize("renamed", [False, True])
def test_another_head_takes_weights_without_the_old_one(renamed, tmp_path):
    """By name, or in order, as torchvision's file of DenseNet-121 has to be read."""
    torch.manual_seed(1)
    source = models.build("timm:test_resnet", 1000, 3, 64).state_dict()
    kept = {key: value for key, value in source.items() if "num_batches" not in key}
    if renamed:
        kept = {f"layer{number}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(kept.items())}
    torch.save(kept, tmp_path / "x.pth")
    network = models.build("timm:test_resnet", 6, 3, 64, "avg_max")
    config = replace(start("timm:test_resnet", tmp_path / "x.pth", channels="rgb"), head="avg_max")
    message = weights.load_start(network, config)
    assert "new last layer" in message and ("in order" in message) == renamed
    own = network.state_dict()
    assert all(torch.equal(own[key], source[key]) for key in set(own) & set(source))
    assert set(source) - set(own) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("before, now", [("own", "attention"), ("attention", "own"), ("avg_max", "avg_max")])
def test_a_checkpoint_keeps_its_head_only_where_the_head_is_the_same(before, now, tmp_path):
    source, network = (models.build("timm:test_resnet", 3, 4, 64, head) for head in (before, now))
    names = ["a", "b", "c"]
    config = {"model": "timm:test_resnet", "channels": "rgby", "class_names": names, "head": before}
    checkpoint.save(tmp_path / "x.pt", {"config": config, "model": source.state_dict(), "epoch": 1, "score": 0.1})
    config = replace(start("timm:test_resnet", tmp_path / "x.pt", class_names=names), head=now)
    assert ("new last layer" in weights.load_start(network, config)) == (before != now)
    own, theirs = network.state_dict(), source.state_dict()
    both = [key for key in own if before == now or not key.startswith(("head.", "fc."))]
    assert len(both) > 20 and all(torch.equal(own[key], theirs[key]) for key in both)


def test_a_checkpoint_for_another_channel_order_sees_the_same(tmp_path):
    source = saved_gapnet(tmp_path / "best.pt", channels="bgry").eval()
    network = models.build("gapnet_pl", 3, 4).eval()
    message = weights.load_start(
        network, start("gapnet_pl", tmp_path / "best.pt", channels="rgby", class_names=["a", "b", "c"])
    )
    assert "new last layer" not in message
    red, green, blue, yellow = torch.randn(4, 1, 1, 64, 64)
    with torch.inference_mode():
        before = source(torch.cat([blue, green, red, yellow], 1))
        assert torch.allclose(network(torch.cat([red, green, blue, yellow], 1)), before, atol=1e-5)


def test_a_checkpoint_for_other_channels_is_refused(tmp_path):
    torch.save(
        {
            "config": {"channels": "rgb+y/3", "class_names": ["a"]},
            "model": models.build("gapnet_pl", 28, 3).state_dict(),
        },
        tmp_path / "x.pt",
    )
    with pytest.raises(InputError, match="channels rgb"):
        weights.load_start(models.build("gapnet_pl", 28, 3), start("gapnet_pl", tmp_path / "x.pt", channels="rgb"))


@pytest.fixture
def authors_file(tmp_path):
    """GapNet-PL in the layout its authors published: (height, width, in, out) and (in, out)."""
    rng = np.random.default_rng(0)
    shapes = [(4, 32), (32, 64), (64, 64), (64, 64), (64, 64), (64, 128), (128, 128), (128, 128)]
    arrays = {}
    for i, (inputs, outputs) in enumerate(shapes, 1):
        arrays[f"ConvLayer-{i}/W_conv"] = rng.normal(0, (9 * inputs) ** -0.5, (3, 3, inputs, outputs)).astype(
            np.float32
        )
        arrays[f"ConvLayer-{i}/b_conv"] = rng.normal(0, 0.1, outputs).astype(np.float32)
    for i, (inputs, outputs) in enumerate([(224, 256), (256, 256), (256, 13)], 1):
        arrays[f"FC-{i}/W_dense"] = rng.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        arrays[f"FC-{i}/b_dense"] = rng.normal(0, 0.1, outputs).astype(np.float32)
    np.savez(tmp_path / "authors.npz", **arrays)
    return tmp_path / "authors.npz", arrays


def selu(x):
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))


def gapnet_by_hand(image, w):
    """The network in numpy, from the paper's Figure 4: (H, W, 4) -> 13 probabilities."""

    def conv(x, i, stride):
        x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))[::stride, ::stride]  # (H, W, in, 3, 3)
        return selu(np.einsum("hwcij,ijco->hwo", windows, w[f"ConvLayer-{i}/W_conv"]) + w[f"ConvLayer-{i}/b_conv"])

    def pool(x):
        h, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
        return x[:h, :width].reshape(h // 2, 2, width // 2, 2, -1).max((1, 3))

    first = pool(conv(image, 1, 2))
    second = first
    for i in (2, 3, 4, 5):
        second = conv(second, i, 2 if i == 2 else 1)
    second = pool(second)
    third = second
    for i in (6, 7, 8):
        third = conv(third, i, 1)
    x = np.concatenate([block.mean((0, 1)) for block in (first, second, third)])
    for i in (1, 2, 3):
        x = x @ w[f"FC-{i}/W_dense"] + w[f"FC-{i}/b_dense"]
        x = selu(x) if i < 3 else x
    return 1 / (1 + np.exp(-x))


def test_authors_weights_give_the_figure_4_network_by_hand(authors_file, tmp_path):
    path, arrays = authors_file
    succeed("utils.tools.import_weights", path, "-o", tmp_path / "run")
    network, config = checkpoint.load_network(tmp_path / "run" / "best.safetensors")
    assert (config.channels, config.normalise, config.fit, config.size) == ("bgry", "image", "crop", 1024)
    image = np.random.default_rng(1).normal(size=(64, 64, 4))
    with torch.inference_mode():
        got = torch.sigmoid(network(torch.tensor(image.transpose(2, 0, 1)[None], dtype=torch.float32)))[0].numpy()
    assert got == pytest.approx(gapnet_by_hand(image, arrays), abs=1e-4)


def test_the_same_layers_under_other_names_are_matched_in_order(tmp_path):
    """As installable packages name them: only the order and the shapes are timm's."""
    torch.manual_seed(1)
    source = timm.create_model("resnet10t", num_classes=1000).state_dict()
    kept = {f"layer{number}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(source.items())
            if "num_batches" not in key}  # fmt: skip
    torch.save(kept, tmp_path / "other.pth")
    network = models.build("timm:resnet10t", 6, 1, size=64)
    message = weights.load_start(network, start("timm:resnet10t", tmp_path / "other.pth", channels="green"))
    assert "matched in order" in message and "new last layer" in message
    own = network.state_dict()
    assert torch.allclose(own["conv1.0.weight"], source["conv1.0.weight"].sum(1, keepdim=True)), "mean of RGB, times 3"
    assert all(
        torch.equal(own[key], source[key])
        for key in own
        if not key.startswith(("conv1.0", "fc")) and "num_b" not in key
    )
    torch.save(dict(reversed(kept.items())), tmp_path / "turned.pth")
    with pytest.raises(InputError, match="another network"):
        weights.load_start(network, start("timm:resnet10t", tmp_path / "turned.pth", channels="green"))


def test_safetensors_and_files_saved_from_several_gpus(tmp_path):
    torch.manual_seed(1)
    state = models.build("convnet", 28, 4).state_dict()
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "b.pth")
    for file in ("a.safetensors", "b.pth"):
        network = models.build("convnet", 28, 4)
        weights.load_start(network, start("convnet", tmp_path / file))
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    (tmp_path / "c.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="not a safetensors file"):
        weights.load_start(network, start("convnet", tmp_path / "c.safetensors"))


def trained():
    """A network and its optimiser after a step: -> network, state dicts of both."""
    torch.manual_seed(1)
    network = models.build("convnet", 28, 4)
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.randn(2, 4, 32, 32)).sum().backward()
    optimiser.step()
    return network.state_dict(), optimiser.state_dict()


def loads(path, state):
    network = models.build("convnet", 28, 4)
    weights.load_start(network, start("convnet", path))
    return all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", "model", "net"])
def test_a_state_dict_is_found_under_any_key(tmp_path, key):
    state, optimiser = trained()
    scheduler = {"last_epoch": 3, "_last_lr": [0.1]}
    beside = {
        "epoch": 3,
        "loss": torch.tensor(0.5),
        "optimizer_state_dict": optimiser,
        "scheduler": scheduler,
        "args": {},
    }
    for content in (
        {key: state}, beside | {key: state}, {key: state} | beside, {"checkpoint": beside | {key: state}},
        beside | {key: {f"module._orig_mod.{name}": value for name, value in state.items()}},
    ):  # fmt: skip
        torch.save(content, tmp_path / "x.pth")
        assert loads(tmp_path / "x.pth", state)


def test_of_several_state_dicts_the_one_that_fits_is_taken(tmp_path):
    state, optimiser = trained()
    other = {key: value + 1 for key, value in state.items()}
    for content in (
        {"teacher": models.build("gapnet_pl", 28, 4).state_dict(), "student": state},
        {"random": {"cpu": torch.zeros(5)}, "net": state, "optimiser": optimiser},
        {"state_dict": state, "state_dict_ema": other},
        {"best": state, "last": state},
        {"model_ema": other, "model": state},
    ):
        torch.save(content, tmp_path / "x.pth")
        assert loads(tmp_path / "x.pth", state)
    torch.save({"student": state, "teacher": other, "optimiser": optimiser}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x.pth holds several state dicts \(student, teacher\); save the one"):
        loads(tmp_path / "x.pth", state)
    torch.save({"nets": {"a": state, "b": other}}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"several state dicts \(nets.a, nets.b\)"):
        loads(tmp_path / "x.pth", state)
    torch.save({"optimiser": optimiser, "epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x.pth holds no state dict .*; save one with torch.save"):
        loads(tmp_path / "x.pth", state)


def test_every_branch_of_m_cnn_gets_the_new_channel_order(tmp_path):
    torch.manual_seed(1)
    source = models.build("m_cnn", 3, 4, size=128).eval()
    config = {"channels": "bgry", "class_names": ["a", "b", "c"]}
    checkpoint.save(tmp_path / "best.pt", {"config": config, "model": source.state_dict(), "epoch": 1, "score": 0.1})
    network = models.build("m_cnn", 3, 4, size=128).eval()
    weights.load_start(network, start("m_cnn", tmp_path / "best.pt", channels="rgby", class_names="abc"))
    red, green, blue, yellow = torch.randn(4, 1, 1, 128, 128)
    with torch.inference_mode():
        before = source(torch.cat([blue, green, red, yellow], 1))
        assert torch.allclose(network(torch.cat([red, green, blue, yellow], 1)), before, atol=1e-5)


def test_fewer_channels_see_what_the_others_being_empty_would_show(tmp_path):
    """GapNet-PL of four channels on one green one: normalised, an empty channel is 0 everywhere."""
    source = saved_gapnet(tmp_path / "best.pt", channels="bgry").eval()
    network = models.build("gapnet_pl", 3, 1).eval()
    weights.load_start(network, start("gapnet_pl", tmp_path / "best.pt", channels="green", class_names="abc"))
    green = torch.randn(1, 1, 64, 64)
    none = torch.zeros_like(green)
    with torch.inference_mode():
        assert torch.allclose(network(green), source(torch.cat([none, green, none, none], 1)), atol=1e-5)


def test_timms_own_weights_are_asked_for_and_their_absence_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))

    asked = []

    def no_network(*what, **_):
        asked.append(what[0])
        raise OSError("no route to host")

    network, real = models.build("timm:resnet10t", 5, 4, size=64), timm.create_model
    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(InputError, match=r"put resnet10t\.safetensors or .* into input"):
        weights.load_start(network, start("timm:resnet10t", "imagenet"))
    assert asked == ["resnet10t"] and not weights.WEIGHT_FOLDER.exists()
    monkeypatch.setattr(timm, "create_model", real)
    weights.WEIGHT_FOLDER.mkdir(parents=True)
    torch.manual_seed(1)
    source = real("resnet10t").state_dict()
    safetensors.torch.save_file(source, weights.WEIGHT_FOLDER / "resnet10t.safetensors")
    message = weights.load_start(network, start("timm:resnet10t", "imagenet"))
    assert "resnet10t.safetensors" in message and torch.equal(
        network.state_dict()["layer1.0.conv1.weight"], source["layer1.0.conv1.weight"]
    )
    (weights.WEIGHT_FOLDER / "resnet10t.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="resnet10t.safetensors is not a safetensors file"):
        weights.load_start(network, start("timm:resnet10t", "imagenet"))


def test_tensors_of_another_kind_are_not_matched_by_order(tmp_path):
    """A batch norm's four vectors have one shape: only their names tell them apart."""
    source = timm.create_model("resnet10t", num_classes=1000).state_dict()
    order = {"running_mean": 0, "running_var": 1, "weight": 2, "bias": 3}
    keys = [key for key in source if "num_batches" not in key]
    kept = {}
    for layer in dict.fromkeys(key.rpartition(".")[0] for key in keys):
        inside = [key for key in keys if key.rpartition(".")[0] == layer]
        kept |= {f"other.{key}": source[key] for key in sorted(inside, key=lambda key: order[key.rpartition(".")[2]])}
    torch.save(kept, tmp_path / "other.pth")
    with pytest.raises(InputError, match="another network"):
        weights.load_start(
            models.build("timm:resnet10t", 5, 4, size=64), start("timm:resnet10t", tmp_path / "other.pth")
        )


def test_a_network_of_another_size_is_told(tmp_path):
    config = {"channels": "rgby", "class_names": ["a"], "size": 128}
    state = models.build("m_cnn", 1, 4, size=128).state_dict()
    checkpoint.save(tmp_path / "best.pt", {"config": config, "model": state, "epoch": 1, "score": 0.1})
    wanted = start("m_cnn", tmp_path / "best.pt", class_names="a", size=256)
    with pytest.raises(InputError, match="made for images of 128 pixels"):
        weights.load_start(models.build("m_cnn", 1, 4, size=256), wanted)


def test_a_deeper_network_is_no_start_for_a_shallower_one(tmp_path):
    """All of resnet10t's layers are in resnet14t too."""
    torch.save(timm.create_model("resnet14t").state_dict(), tmp_path / "x.pth")
    with pytest.raises(InputError, match="another network than timm:resnet10t"):
        weights.load_start(models.build("timm:resnet10t", 5, 4, size=64), start("timm:resnet10t", tmp_path / "x.pth"))


def test_conv_mil_of_another_size_does_not_lose_its_maps_unnoticed(tmp_path):
    config = {"channels": "rgby", "class_names": list("ab"), "size": 64}
    state = models.build("conv_mil", 2, 4, size=64).state_dict()
    checkpoint.save(tmp_path / "best.pt", {"config": config, "model": state, "epoch": 1, "score": 0.1})
    wanted = start("conv_mil", tmp_path / "best.pt", class_names="ab", size=128)
    with pytest.raises(InputError, match="head.weight do not fit .it was made for images of 64 pixels"):
        weights.load_start(models.build("conv_mil", 2, 4, size=128), wanted)

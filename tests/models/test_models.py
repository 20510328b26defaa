"""The networks."""

import importlib
import math

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretrainedmodels.models import senet
from torchvision.models.resnet import Bottleneck

from utils import models
from utils.engine import inference
from utils.errors import InputError
from utils.models import conv_mil, layers
from utils.models.layers import widen_stem
from utils.runs import config

COUNTS = {  # Rumetshofer et al., Table 7; DeepLoc: what the layers of its Table 6 have
    "gapnet_pl": 626_221,
    "m_cnn": 34_193_853,
    "densenet121": 6_970_317,
    "deeploc": 201_715_277,
    "conv_mil": 593_143,
}
ANY_SIZE = set(models.NETWORKS) - {"m_cnn", "deeploc", "conv_mil"}


@pytest.mark.parametrize("name", models.NETWORKS)
def test_parameter_counts(name):
    """The paper's, and what each network's own file says."""
    with torch.device("meta"):  # DeepLoc has 800 MB
        network = models.build(name, classes=13, channels=4, size=1024)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == COUNTS.get(name, count)
    text = importlib.import_module(models.NETWORKS[name][0].__module__).__doc__
    assert f"{count:,} parameters" in text or f"enhanced {count:,}" in text


@pytest.mark.parametrize("name", models.NETWORKS)
@pytest.mark.parametrize("channels, size", [(4, 128), (1, 130)])
def test_any_channels_any_size(name, channels, size):
    network = models.build(name, classes=5, channels=channels, size=size).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, channels, size, size)).shape == (2, 5)
        other = torch.randn(1, channels, 192, 176)
        if name in ANY_SIZE:
            assert network(other).shape == (1, 5)
        else:
            with pytest.raises(InputError, match=f"made for {size}x{size} pixels, not 176x192"):
                network(other)


@pytest.mark.parametrize("name", models.NETWORKS)
def test_too_small_a_size_is_refused_and_the_size_named_works(name):
    with pytest.raises(InputError, match="or more, not 4; give --size") as told:
        models.build(name, 3, 1, size=4)
    size = int(str(told.value).split()[-1])
    network = models.build(name, 3, 1, size=size).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 1, size, size)).isfinite().all()


@pytest.mark.parametrize("name, blocks", [("gapnet_pl", 8), ("deeploc", 8)])
def test_selu_activations_keep_unit_variance(name, blocks):
    """What SELU and LeCun-normal weights are for (Klambauer et al. 2017)."""
    torch.manual_seed(0)
    network = models.build(name, 13, 4, 128).eval()
    seen = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.SELU):
            layer.register_forward_hook(lambda _, __, output: seen.append((output.ndim, float(output.std()))))
    with torch.inference_mode():
        network(torch.randn(4, 4, 128, 128))
    convolutions = [deviation for ndim, deviation in seen if ndim == 4]
    assert len(convolutions) == blocks and all(0.5 < deviation < 1.5 for deviation in convolutions), seen


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from([5.0, 7.5, 10.0]))
def test_noisy_and_is_its_closed_form(mean, threshold, slope):
    def sigma(x):
        return 1 / (1 + math.exp(-x))

    low, high = sigma(-slope * threshold), sigma(slope * (1 - threshold))
    expected = (sigma(slope * (mean - threshold)) - low) / (high - low)
    values = torch.tensor([mean, threshold], dtype=torch.float64)
    got = conv_mil.noisy_and(values[None, :1], values[1:], slope)
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_noisy_and_at_its_limits():
    threshold = torch.linspace(0, 1, 11, dtype=torch.float64)
    nothing, everything = (
        conv_mil.noisy_and(torch.full((1, 11), m, dtype=torch.float64), threshold) for m in (0.0, 1.0)
    )
    assert torch.allclose(nothing, torch.zeros(1, 11, dtype=torch.float64), atol=1e-15)
    assert torch.allclose(everything, torch.ones(1, 11, dtype=torch.float64))
    mean = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None].expand(101, 11)
    assert (conv_mil.noisy_and(mean, threshold).diff(dim=0) > 0).all(), "the more cells show a class, the surer"
    steep = conv_mil.noisy_and(mean, threshold[None, 5], slope=1e4)
    assert torch.equal(steep[:, 0] > 0.5, mean[:, 0] > 0.5) and steep[50, 0] == pytest.approx(0.5)


def test_conv_mil_trains_two_outputs_and_predicts_one():
    torch.manual_seed(0)
    network = models.build("conv_mil", 3, 1, 64)
    with torch.no_grad():
        network.threshold += torch.tensor([-0.5, 0.5, 1.5])
    images = torch.randn(2, 1, 64, 64)
    logits, pooled = network.train()(images)
    assert logits.shape == pooled.shape == (2, 3) and network.threshold.tolist() == [0, 0.5, 1]
    network.eval()
    with torch.inference_mode():
        maps = network.maps(network.convolutions(images))
        assert maps.shape == (2, 3, 2, 2)
        assert torch.allclose(network(images), network.head(maps.flatten(1)))


def test_liimatainens_output_is_the_mean_of_its_confidence_maps():
    network = models.build("liimatainen_fcn", 3, 2, 64).eval()
    images = torch.randn(2, 2, 64, 80)
    with torch.inference_mode():
        maps = network.confidence_maps(images)
        assert maps.shape == (2, 3, 4, 5)
        assert torch.allclose(torch.sigmoid(network(images)), maps.mean((2, 3)), atol=1e-6)


def test_enhanced_resnet50_has_one_more_convolution_in_each_identity_block():
    def convolutions(name):
        blocks = {
            path: block for path, block in models.build(name, 3, 1).named_modules() if isinstance(block, Bottleneck)
        }
        counts = {
            path: sum(isinstance(part, torch.nn.Conv2d) for part in block.modules()) for path, block in blocks.items()
        }
        return {path: count - 2 * bool(blocks[path].downsample) for path, count in counts.items()}

    plain, enhanced = convolutions("resnet50"), convolutions("resnet50_enhanced")
    identity = [path for path in plain if not path.endswith(".0")]
    assert len(plain) == 16 and len(identity) == 12
    assert {path for path in plain if enhanced[path] == plain[path] + 1} == set(identity)
    assert all(enhanced[path] == plain[path] for path in plain if path.endswith(".0"))


def test_the_second_output_of_inception_is_removed():
    network = models.build("pretrainedmodels:inceptionv3", classes=5, channels=4, size=299).train()
    with torch.no_grad():
        assert network(torch.randn(2, 4, 299, 299)).shape == (2, 5)


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:vit_tiny_patch16_224", "pretrainedmodels:resnet18"])
def test_networks_of_the_libraries_by_name(name):
    network = models.build(name, classes=5, channels=4, size=64).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 4, 64, 64)).shape == (2, 5)
    state = network.state_dict()
    assert state[models.parameters_of(network, network.stem_layers)[0]].shape[1] == 4
    assert all(state[key].shape[0] == 5 for key in models.parameters_of(network, network.head_layers))


UNKNOWN = {
    "timm:resnet19": "did you mean",
    "pretrainedmodels:x": "has no network 'x'",
    "gapnet": "timm:NAME",
    "pretrainedmodels:alexnet": "cannot take images of 64 pixels",
    "timm:resnet50.foo": "Invalid pretrained tag",
    "timm:xcit_nano_12_p16_224": "cannot take images of 65 pixels",
}


@pytest.mark.parametrize("name, says", UNKNOWN.items())
def test_unknown_networks_are_refused(name, says):
    with pytest.raises(InputError, match=says):
        models.build(name, 5, 4, size=65 if "xcit" in name else 64)


@pytest.mark.parametrize("layers, keys", [(50, 384), (101, 758)])
def test_se_resnext_shares_timms_state_dict(layers, keys):
    own = models.build(f"se_resnext{layers}_32x4d", 1000, 3)
    other = timm.create_model(f"legacy_seresnext{layers}_32x4d", pretrained=False, drop_rate=0).eval()
    assert list(own.state_dict()) == list(other.state_dict()) and len(own.state_dict()) == keys
    other.load_state_dict(own.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(own.eval()(image), other(image), atol=1e-5)


@pytest.mark.parametrize("layers", [50, 101])
def test_se_resnext_has_the_parameters_of_pretrainedmodels(layers):
    """But for the filters of a fourth plane, 7x7 each, and the last layer."""
    name = f"se_resnext{layers}_32x4d"
    with torch.device("meta"):
        original = getattr(senet, name)(num_classes=1000, pretrained=None)
        own = models.build(name, 13, 4)
    count, expected = (sum(weight.numel() for weight in network.parameters()) for network in (own, original))
    assert count == expected - 2049 * 1000 + 2049 * 13 + 49 * 64


def test_the_head_of_chens_commit_sees_the_average_of_each_quarter():
    network = models.build("se_resnext101_quarters", 5, 4).eval()
    images = torch.randn(2, 4, 128, 128)
    with torch.inference_mode():
        features = network.features(images)
        assert features.shape == (2, 2048, 4, 4)
        quarters = features.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)).flatten(1)
        weight, bias = network.last_linear.weight, network.last_linear.bias
        for form in (torch.contiguous_format, torch.channels_last):
            found = network(images.contiguous(memory_format=form))
            assert torch.allclose(found, quarters @ weight.T + bias, atol=1e-5)
    assert network.dropout.p == 0.01 and models.build("se_resnext101_32x4d", 5, 4).dropout is None
    network.dropout.p = 0.9
    assert not torch.equal(network.train()(images), network(images)), "dropout is applied"


FIRST_LAYERS = [*models.NETWORKS, "timm:resnet10t", "pretrainedmodels:resnet18"]


@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_a_random_network_knows_its_planes_apart(name):
    """With the same filters on every plane, swapping channels would change nothing. Their size is that of an ordinary layer."""
    networks = (models.build(name, 2, planes, 128) for planes in (4, 3))
    filters, rgb = (next(it for it in network.parameters() if it.ndim == 4).detach() for network in networks)
    assert filters.shape[1] == 4
    alike = np.corrcoef(filters.transpose(0, 1).flatten(1).numpy())
    assert np.abs(alike - np.eye(4)).max() < 0.5
    # A variance of 1/fan_in falls with more planes, one of 1/fan_out stays.
    assert 0.7 < filters.std() / rgb.std() < 1.2


def test_stems_do_what_they_say():
    rgb = torch.randn(64, 3, 7, 7)
    grey = torch.rand(1, 1, 32, 32)

    def response(weight):
        return torch.nn.functional.conv2d(grey.expand(1, weight.shape[1], 32, 32), weight)

    for stem in ("mean", "copy"):
        assert widen_stem(rgb, 4, stem).shape == (64, 4, 7, 7)
    assert torch.allclose(response(widen_stem(rgb, 4, "mean")), response(rgb), atol=1e-4), "grey images look the same"
    zero = widen_stem(rgb, 4, "zero")
    assert torch.equal(zero[:, :3], rgb) and (zero[:, 3] == 0).all()
    copied = widen_stem(rgb, 4, "copy") * 4 / 3
    assert torch.allclose(copied[:, :3], rgb) and torch.allclose(copied[:, 3], rgb[:, 0])


def test_the_options_of_the_stem_and_of_tta_are_those_that_exist():
    """Typed twice, so that reading a config need not import torch."""
    assert list(config.STEMS) == list(layers.STEMS) and list(config.TTA_VIEWS) == list(inference.TTA)

"""Class maps: what the logits are the mean of, and which networks have them."""

import pytest
import torch

from utils import models
from utils.engine import grad_cam, inference
from utils.errors import InputError

TIMM = ("timm:test_resnet", "timm:efficientnet_lite0")
EXACT = [(name, "own") for name in ("densenet121", "resnet50", "se_resnext50_32x4d", "xception", *TIMM)]
EXACT += [("densenet121", "attention"), ("timm:test_resnet", "attention"), ("timm:convnext_atto", "attention")]
OTHERS = [(name, "own") for name in ("gapnet_pl", "m_cnn", "convnet", "conv_mil", "deeploc", "liimatainen_fcn")]
OTHERS += [("se_resnext101_quarters", "own"), ("densenet121", "avg_max"), ("timm:test_resnet", "avg_max")]
# Of timm one with tokens, one with a norm and one with a layer after the average.
OTHERS += [(f"timm:{name}", "own") for name in ("test_vit", "convnext_atto", "mobilenetv3_small_050")]
OTHERS += [("pretrainedmodels:resnet18", "own")]


def build(name, size, head):
    torch.manual_seed(0)
    return models.build(name, 3, 4, size, head).eval()


@pytest.mark.parametrize("name, head", EXACT)
def test_maps_are_the_unclipped_grad_cam_and_their_means_the_logits(name, head):
    """Grad-CAM finds the last map from the outside and weights it by gradients; for these networks it is the part of the logit
    above its bias, clipped."""
    network, images = build(name, 96, head), torch.randn(2, 4, 96, 96)
    mapped = models.with_class_maps(network, name, 4, 96)
    with torch.inference_mode():
        maps, logits = mapped(images), network(images)
    assert maps.shape == (2, 3, 3, 3) and maps.std((2, 3)).min() > 1e-4
    torch.testing.assert_close(maps.mean((2, 3)), logits, rtol=1e-4, atol=1e-4)
    bias = 0 if head == "attention" else network.get_submodule(network.head_layers[0]).bias[[0, 2], None, None]
    expected = (maps[[0, 1], [0, 2]] - bias).clamp(min=0) / 9
    found = torch.from_numpy(grad_cam.grad_cam(network, images, [0, 2]).maps)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name, head", [("densenet121", "own"), ("timm:test_resnet", "attention")])
def test_batch_norm_is_folded_and_sixteen_bits_are_near(name, head):
    network, images = build(name, 64, head), torch.randn(2, 4, 64, 64)
    mapped = models.with_class_maps(network, name, 4, 64)
    with torch.inference_mode():
        expected = mapped(images)
        assert inference.copy_for_inference(mapped, images, None) is not mapped
        for amp, tolerance in ((None, 1e-3), (torch.bfloat16, 0.05)):
            ready = inference.prepare_network(mapped, images, amp)
            with inference.autocast(torch.device("cpu"), amp):
                found = ready(images).float()
            assert (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("name, head", OTHERS)
def test_networks_without_such_maps_are_refused(name, head):
    size = {"timm:test_vit": 160, "m_cnn": 128}.get(name, 64)
    with pytest.raises(InputError, match=f"a logit of {name} is not the mean of a map, .* or with --head attention"):
        models.with_class_maps(build(name, size, head), name, 4, size)

"""What a GPU will need for a recipe."""

import pytest
import torch
from conftest import kit, refuse

from utils.engine.recipes import RECIPES
from utils.tools import gpu_hours, gpu_memory

# GiB that the activations kept for the backward pass take in float32 and in 16 bits, counted layer by layer by someone else.
ACTIVATIONS = {"gapnet_pl": (5.8, 2.9), "m_cnn": (6.1, 3.0), "conv_mil": (7.1, 3.6)}


@pytest.mark.parametrize("recipe", ACTIVATIONS)
def test_the_memory_of_a_recipe_is_what_was_counted_elsewhere_and_what_comes_on_top(recipe):
    """On top: weights, optimiser, the gradients on their way."""
    options = RECIPES[recipe]
    for amp, counted in zip(gpu_memory.ARITHMETIC, ACTIVATIONS[recipe]):
        weights = {"m_cnn": 34_193_853 * 4 * 3}.get(recipe, 0)  # with gradients and momentum
        found = (gpu_memory.estimate(options, 13, amp) - weights) / 2**30
        assert counted <= found < 1.4 * counted, amp


def test_the_moments_of_adam_take_twice_the_weights_in_one_group_or_two():
    options = RECIPES["gapnet_pl"] | {"size": 128, "batch_size": 8, "momentum": 0.0}
    without = gpu_memory.estimate(options, 13, None)
    for more in ({}, {"decay_norms": False}):
        added = gpu_memory.estimate(options | {"optimiser": "adamw"} | more, 13, None) - without
        assert added == pytest.approx(2 * 4 * 626_221, rel=0.01)


def test_a_moving_average_takes_the_weights_once_more():
    options = RECIPES["gapnet_pl"] | {"size": 128, "batch_size": 8}
    added = gpu_memory.estimate(options | {"ema": 0.999}, 13, None) - gpu_memory.estimate(options, 13, None)
    assert added == pytest.approx(4 * 626_221, rel=0.01)


def test_memory_is_that_of_tensors_alive_at_once():
    with gpu_memory.Peak() as peak:
        kept = torch.zeros(1000)
        for _ in range(5):
            torch.ones(500).mul_(2).view(50, 10)
        kept.add_(1)
    assert peak.bytes == pytest.approx(6000, abs=16)


def test_parts_and_checkpointing_take_less(capsys):
    small = ["--size", 1024, "--batch-size", 16]
    sizes = []
    for more in ([], ["--accumulate", 4], ["--checkpointing"]):
        out = kit("utils.tools.gpu_memory", "gapnet_pl", *small, *more).out.splitlines()
        assert out[1].split()[:3] == ["gapnet_pl", "16", "1024"] and len(out) == 2
        sizes.append(float(out[1].split()[3]))
    assert sizes[1] < 0.5 * sizes[0] and sizes[2] < 0.95 * sizes[0], "of this network most is in its first layers"
    refuse("utils.tools.gpu_memory", "chan", says="unknown recipe 'chan'")
    refuse("utils.tools.gpu_memory", "gapnet_pl", "--head", "avg_max", says="gapnet_pl cannot have the head avg_max")
    refuse("utils.tools.gpu_memory", "--batch-size", 0, says="--batch-size 0 is out of range")


def test_hours_by_card_are_those_of_the_speed_that_was_measured():
    """SE-ResNeXt50 at 512² trains at 577 images a second on an H200; validation passes forward alone, a third of the work."""
    out = kit("utils.tools.gpu_memory", "chen", "--images", 27_000).out
    head, row = (
        line.replace("RTX 4090", "RTX4090").replace(" GB", "").replace(" h", "") for line in out.splitlines()[:2]
    )
    found = dict(zip(head.replace("16 bits", "bits").split(), row.split(), strict=True))
    on_h200 = 40 * ((27_000 + 3_000 / 3) / 577 + 422 * gpu_hours.STEP) / 3600
    assert float(found["H200"]) == pytest.approx(on_h200, abs=0.06)
    assert float(found["T4"]) == pytest.approx(40 * (28_000 / 577 * 4.8 / 0.32 + 422 * gpu_hours.STEP) / 3600, abs=0.06)

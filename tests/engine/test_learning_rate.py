"""The learning rate as a function of the step."""

from types import SimpleNamespace

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from utils.engine.learning_rate import count_warmup_steps, scheduled_rate

PER_EPOCH = 7


def rates(epochs, warmup, lr_schedule="cosine"):
    config = SimpleNamespace(lr=0.3, epochs=epochs, warmup=warmup, lr_schedule=lr_schedule)
    return [scheduled_rate(step, config, PER_EPOCH) for step in range(1, epochs * PER_EPOCH + 1)]


@pytest.mark.parametrize("warmup, steps", [(0, 0), (0.3, 2), (1, 7), (2.5, 18)])
def test_the_rate_is_that_of_torchs_schedulers(warmup, steps):
    """LinearLR over the first steps, CosineAnnealingLR over the rest."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    cosine = CosineAnnealingLR(optimiser, 4 * PER_EPOCH - steps)
    scheduler = cosine
    if steps:
        rise = LinearLR(optimiser, start_factor=1 / steps, total_iters=steps - 1)
        scheduler = SequentialLR(optimiser, [rise, cosine], [steps - 1])
    found = rates(4, warmup)
    expected = [] if not steps else [optimiser.param_groups[0]["lr"]]
    while len(expected) < len(found):
        optimiser.step()
        scheduler.step()
        expected.append(optimiser.param_groups[0]["lr"])
    assert found == pytest.approx(expected, abs=1e-9)
    assert found[steps - 1 if steps else 0] == pytest.approx(0.3, rel=0.01) and found[-1] == 0


def test_after_a_warm_up_alone_the_rate_is_the_optimisers():
    assert rates(2, 0.6, "none") == [*(0.3 * (step / 4) for step in (1, 2, 3, 4)), *[None] * 10]
    assert rates(2, 0, "none") == [None] * 14
    assert rates(1, 1)[-1] == 0.3, "a warm-up as long as the training"
    assert count_warmup_steps(SimpleNamespace(warmup=0.01), PER_EPOCH) == 0

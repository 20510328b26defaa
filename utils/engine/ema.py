"""Exponential moving average of a network's weights, validated and kept instead of the weights themselves."""

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """Averages weights and floating-point buffers (batch norm's statistics); integer buffers are copied.

    The first update copies; after n updates the next one keeps min(decay, (1 + n)/(10 + n)) of the average, so that the random
    initial weights soon stop counting. `module` is the averaged network. The updates are counted in Python, since torch's
    AveragedModel counts on the device, and every step would have to wait for that.
    """

    def __init__(self, network, decay):
        self.module, self.decay, self.updates = copy.deepcopy(network).requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, network):
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        averaged = [pair for pair in pairs if kept and pair[0].is_floating_point()]
        if averaged:
            get_ema_multi_avg_fn(kept)(*map(list, zip(*averaged, strict=True)), None)
        for own, other in pairs:
            if not (kept and own.is_floating_point()):
                own.copy_(other)
        self.updates += 1

    def state_dict(self):
        weights = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        return {"updates": torch.tensor(self.updates)} | weights

    def load_state_dict(self, state):
        self.updates = int(state["updates"])
        self.module.load_state_dict(
            {name.removeprefix("module."): value for name, value in state.items() if name != "updates"}
        )


def _tensors(network):
    return [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]

"""A moving average of a network's weights, to validate and keep instead of the weights themselves."""

import copy

import torch


class MovingAverage:
    """Exponential moving average of weights and of floating buffers (batch norm's statistics); whole numbers are copied.

    The first update copies; after n updates the next keeps min(decay, (1 + n)/(10 + n)) of the average, so that the random
    weights of the start are soon forgotten. `module` is the averaged network. The number of updates is kept in Python: a
    counter on the device would have to be waited for.
    """

    def __init__(self, network, decay):
        self.module, self.decay, self.updates = copy.deepcopy(network).requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, network):
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        if kept and floats:
            torch._foreach_lerp_(*map(list, zip(*floats, strict=True)), 1 - kept)
        if copied := [pair for pair in pairs if not (kept and pair[0].is_floating_point())]:
            torch._foreach_copy_(*map(list, zip(*copied, strict=True)))
        self.updates += 1

    def state_dict(self):
        """As of torch's AveragedModel."""
        return {"n_averaged": torch.tensor(self.updates)} | {
            f"module.{name}": value for name, value in self.module.state_dict().items()
        }

    def load_state_dict(self, state):
        self.updates = int(state["n_averaged"])
        self.module.load_state_dict(
            {name.removeprefix("module."): value for name, value in state.items() if name != "n_averaged"}
        )


def _tensors(network):
    return [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]

"""The learning rate halves when training stands still: Chen on the soft F1 of each step, others on the validation of each epoch."""

import torch

WINDOW = 50  # steps that the running mean of the training soft F1 looks back over


class Plateau:
    """config: `plateau` (step, epoch, none), `patience` in epochs, `min_gain` and `min_gain_mode` (abs, or rel to the best so far).
    The running mean is Adam's: biased towards 0 at first, and corrected for it."""

    def __init__(self, optimiser, config, steps_per_epoch):
        self.optimiser, self.config, self.steps_per_epoch = optimiser, config, steps_per_epoch
        self.restart()

    def restart(self):
        """Forget what was reached, keep the learning rate. Called when the loss changes: values under the old loss say nothing
        about standing still under the new one."""
        unit = self.steps_per_epoch if self.config.plateau == "step" else 1
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser,
            mode="max",
            factor=0.5,
            patience=round(self.config.patience * unit),
            threshold=self.config.min_gain,
            threshold_mode=self.config.min_gain_mode,
        )
        self.mean_f1 = 0.0

    def after_step(self, soft_f1, steps):
        """soft_f1: 1 − the loss, of the step just made. steps: made since the loss changed or the warm-up ended, not positive
        during the warm-up, which does not count."""
        if self.config.plateau != "step" or steps <= 0:
            return
        self.mean_f1 += (soft_f1 - self.mean_f1) / WINDOW
        if steps >= min(WINDOW, self.steps_per_epoch):  # before, one lucky batch would be the best for long
            self.scheduler.step(self.mean_f1 / (1 - (1 - 1 / WINDOW) ** steps))

    def after_epoch(self, score):
        if self.config.plateau == "epoch":
            self.scheduler.step(score)

    def state_dict(self):
        return {"mean_f1": self.mean_f1, "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state):
        self.mean_f1 = state["mean_f1"]
        self.scheduler.load_state_dict(state["scheduler"])

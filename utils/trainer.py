"""How a network is trained: one step, the learning rate's plateau, the switch of the loss, and when to stop."""

import argparse
import math
import time

import numpy as np
import torch

from utils import losses, models
from utils.data import Normaliser
from utils.device import autocast
from utils.errors import InputError
from utils.schedule import stage_at

CURVES = ["bce", "weighted_bce", "positive_bce", "focal", "soft_f1", "precision", "recall"]  # with loss and lr: nine
MEMORY = 50  # steps that the running mean of the training soft F1 looks back over
REMEMBERED = ("epoch", "step", "stage", "best_epoch", "score", "smooth_f1", "log", "steps")
OPTIMISERS = {
    "adadelta": lambda parameters, a: torch.optim.Adadelta(
        parameters, a.lr, rho=0.9, eps=1e-6, weight_decay=a.weight_decay
    ),
    "sgd": lambda parameters, a: torch.optim.SGD(parameters, a.lr, momentum=a.momentum, weight_decay=a.weight_decay),
    "adam": lambda parameters, a: torch.optim.Adam(parameters, a.lr, weight_decay=a.weight_decay),
    "adamw": lambda parameters, a: torch.optim.AdamW(parameters, a.lr, weight_decay=a.weight_decay),
}


class Trainer:
    """Network, optimiser, plateau and loss schedule: all that changes while a run trains, and how one step changes it."""

    def __init__(self, network, train_set, config, schedule, device, amp, steps_an_epoch, started=None):
        self.network, self.config, self.schedule, self.device, self.amp = network, config, schedule, device, amp
        self.steps_an_epoch = steps_an_epoch
        self.spent_before, self.started = 0.0, time.time() if started is None else started
        if config["layers"] == "last":
            last = models.parameters_of(network, network.head_layers)
            for name, weight in network.named_parameters():
                weight.requires_grad_(name in last)
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        self.optimiser = OPTIMISERS[config["optimiser"]](trained, argparse.Namespace(**config))
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
        self.normaliser = Normaliser(train_set.channels.mix, config["normalise"], config["mean"], config["std"], device)
        counts = train_set.targets.sum(axis=0, dtype=np.int64)
        self.class_weights = losses.balanced_weights(counts).to(device)
        used = {term for _, terms in schedule for term in terms}
        self.curves = [*CURVES, *sorted(used - set(CURVES))]
        self.pos_weights = None
        if "pos_weight_bce" in self.curves:
            self.pos_weights = losses.odds_against(counts, len(train_set.targets)).to(device)
        self.weights = [weight for weight in trained if weight.ndim > 1]  # what L1 shrinks: not biases
        self.epoch = self.step = self.stage = self.best_epoch = 0
        self.score, self.smooth_f1, self.log, self.steps = -1.0, 0.0, [], []
        self.repeat = False  # must one epoch be trained before the time limit counts?
        self.new_plateau()

    def new_plateau(self):
        """Begin the plateau and the running mean of soft F1 anew, keep the learning rate. Done when the loss changes: what was
        reached under the old loss says nothing about standing still under the new one."""
        unit = self.steps_an_epoch if self.config["plateau"] == "step" else 1
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser, mode="max", factor=0.5, patience=round(self.config["patience"] * unit),
            threshold=self.config["min_gain"], threshold_mode="abs",
        )  # fmt: skip
        self.smooth_f1 = 0.0

    def begin_epoch(self):
        self.epoch, self.repeat = self.epoch + 1, False
        torch.manual_seed(self.config["seed"] * 1_000_003 + self.epoch)  # dropout follows from (seed, epoch)
        stage, self.terms = stage_at(self.schedule, self.epoch)
        if stage != self.stage:
            self.stage = stage
            self.new_plateau()
        self.network.train()
        if self.config["layers"] == "last":
            for name, layer in self.network.named_modules():
                if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and not models.within(
                    name, self.network.head_layers
                ):
                    layer.eval()  # its running statistics belong to what is not trained

    def train_step(self, batch):
        """One step on one batch: -> {curve: float}, Chen's nine (Fig. 5) and what else the schedule names.

        A network with several outputs is trained by the same loss on each: `loss` is their sum, the other curves are the first's.
        """
        targets = batch["targets"].to(self.device, non_blocking=True)
        images = self.normaliser(batch)
        with autocast(self.device, self.amp):
            outputs = self.network(images)
        logits, *more = (part.float() for part in (outputs if isinstance(outputs, tuple) else (outputs,)))
        values = losses.curves(logits, targets, self.class_weights, self.pos_weights)
        loss = losses.weighted_sum(self.terms, values)
        for other in more:
            named = {
                term: losses.value(term, other, targets, self.class_weights, self.pos_weights) for term in self.terms
            }
            loss = loss + losses.weighted_sum(self.terms, named)
        penalty = self.config["l1"] * sum(weight.abs().sum() for weight in self.weights) if self.config["l1"] else 0.0
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss + penalty).backward()
        if self.config["clip"]:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config["clip"])
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        # One wait for the device, not one a curve.
        numbers = torch.stack([loss.detach(), *(values[name].detach() for name in self.curves)]).tolist()
        if not math.isfinite(numbers[0]):
            raise InputError(
                f"the loss became {numbers[0]} at step {self.step} (epoch {self.epoch}); try a lower --lr or --amp off"
            )
        curves = {"lr": self.lr} | dict(zip(["loss", *self.curves], numbers, strict=True))
        if self.config["plateau"] == "step":
            self.smooth_f1 += (1 - curves["soft_f1"] - self.smooth_f1) / MEMORY
            since = self.step - (self.schedule[self.stage][0] - 1) * self.steps_an_epoch  # steps with this loss
            mean = self.smooth_f1 / (1 - (1 - 1 / MEMORY) ** since)  # it began at 0
            if since >= min(MEMORY, self.steps_an_epoch):  # before, one lucky batch would be the best for long
                self.plateau.step(mean)
        return curves

    @property
    def lr(self):
        return self.optimiser.param_groups[0]["lr"]

    def end_epoch(self, score):
        """Take note of the validation score; -> is it the best so far?"""
        if self.config["plateau"] == "epoch":
            self.plateau.step(score)
        if better := score > self.score:
            self.score, self.best_epoch = score, self.epoch
        return better

    @property
    def spent(self):
        """Seconds since the run's start, without those between a stop and going on."""
        return self.spent_before + time.time() - self.started

    @property
    def out_of_time(self):
        """Would one more epoch, as long as the longest so far, go over --max-minutes?"""
        budget = 60 * self.config["max_minutes"]
        return (
            bool(budget and self.epoch and not self.repeat)
            and self.spent + max(row["seconds"] for row in self.log) > budget
        )

    @property
    def finished(self):
        """All epochs done, or none better for --early-stop epochs since the last change of loss."""
        last_change = max(first for first, _ in self.schedule if first <= self.config["epochs"])
        since = self.epoch - max(self.best_epoch, last_change - 1)
        return self.epoch >= self.config["epochs"] or 0 < self.config["early_stop"] <= since

    def state(self):
        parts = {name: getattr(self, name).state_dict() for name in ("optimiser", "plateau", "scaler")}
        return {
            "config": self.config,
            "model": self.network.state_dict(),
            "finished": self.finished,
            "spent": self.spent,
            "parts": parts,
        } | {name: getattr(self, name) for name in REMEMBERED}

    def restore(self, saved):
        self.network.load_state_dict(saved["model"])
        for name, part in saved["parts"].items():
            if part:  # a scaler that is switched off has no state
                getattr(self, name).load_state_dict(part)
        for name in REMEMBERED:
            setattr(self, name, saved[name])
        self.repeat = saved["repeat"]
        self.spent_before = saved.get("spent", sum(row["seconds"] for row in self.log))

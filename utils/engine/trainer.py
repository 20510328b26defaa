"""How a network is trained: one step, the learning rate's plateau, the switch of the loss, and when to stop."""

import argparse
import contextlib
import math
import time

import numpy as np
import torch

from utils import models
from utils.data.dataset import Normaliser
from utils.device import autocast, cudnn_benchmark
from utils.distributed import SINGLE_PROCESS
from utils.engine import losses
from utils.engine.activation_checkpointing import rehearsal
from utils.engine.compiling import explaining_compile_errors
from utils.engine.ema import MovingAverage
from utils.errors import InputError
from utils.runs.run_folder import CONFIG_DEFAULTS
from utils.schedule import stage_at

CURVES = ["bce", "weighted_bce", "positive_bce", "focal", "soft_f1", "precision", "recall"]  # with loss and lr: nine
MEMORY = 50  # steps that the running mean of the training soft F1 looks back over
REMEMBERED = ("epoch", "position", "step", "left_out", "stage", "best_epoch", "score", "smooth_f1", "log")
STATE = (*REMEMBERED, "config", "model", "finished", "spent", "spent_in_epoch", "random", "steps", "parts")
OPTIMISERS = {
    "adadelta": lambda parameters, a, fused: torch.optim.Adadelta(  # of which torch has no fused kernel
        parameters, a.lr, rho=0.9, eps=1e-6, weight_decay=a.weight_decay
    ),
    "sgd": lambda parameters, a, fused: torch.optim.SGD(
        parameters, a.lr, momentum=a.momentum, weight_decay=a.weight_decay, fused=fused
    ),
    "adam": lambda parameters, a, fused: torch.optim.Adam(parameters, a.lr, weight_decay=a.weight_decay, fused=fused),
    "adamw": lambda parameters, a, fused: torch.optim.AdamW(parameters, a.lr, weight_decay=a.weight_decay, fused=fused),
}
OF_THE_DEVICE = ("fused", "foreach")  # what of an optimiser's state says how it computes, not what


class NotFinite(Exception):
    """The loss of a batch, or its gradient, is NaN or infinite; the weights are as before it. `rows`: of this rank's samples."""

    def __init__(self, what, rows):
        super().__init__(what)
        self.what, self.rows = what, rows


class Trainer:
    """Network, optimiser, plateau and loss schedule: all that changes while a run trains, and how one step changes it.

    `epoch` is that of the last step, `position` the number of its batches that were trained on, 0 when it is complete, and `step`
    that of all batches so far, of which `left_out` were not learned from.
    """

    def __init__(
        self, network, train_set, config, schedule, device, amp, steps_an_epoch, started=None, ranks=SINGLE_PROCESS
    ):
        self.network, self.schedule, self.device, self.amp, self.ranks = network, schedule, device, amp, ranks
        self.config, self.steps_an_epoch = CONFIG_DEFAULTS | config, steps_an_epoch
        config = self.config
        self.spent_before, self.started = 0.0, time.time() if started is None else started
        if config["layers"] == "last":
            last = models.parameters_of(network, network.head_layers)
            for name, weight in network.named_parameters():
                weight.requires_grad_(name in last)
        trained = self.trained = [weight for weight in network.parameters() if weight.requires_grad]
        fused = True if device.type == "cuda" else None
        self.optimiser = OPTIMISERS[config["optimiser"]](trained, argparse.Namespace(**config), fused)
        self.average = MovingAverage(network, config["ema"]) if config["ema"] else None
        # What is called in training; evaluated and saved is the network itself.
        self.parallel = ranks.wrap(network, device)
        # For batches of the usual size: the smaller last one of an epoch is worth neither minutes of compiling nor seconds of tuning.
        self.compiled = torch.compile(self.parallel, dynamic=False) if config["compile"] else None
        self.usual = ranks.shard_size(min(config["batch_size"], len(train_set.targets)))
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
        self.normaliser = Normaliser(
            train_set.channels.mix, config["normalise"], config["mean"], config["std"], device, amp
        )
        counts = train_set.targets.sum(axis=0, dtype=np.int64)
        self.class_weights = losses.balanced_weights(counts).to(device)
        used = {term for _, terms in schedule for term in terms}
        self.curves = [*CURVES, *sorted(used - set(CURVES))]
        self.pos_weights = None
        if "pos_weight_bce" in self.curves:
            self.pos_weights = losses.odds_against(counts, len(train_set.targets)).to(device)
        self.weights = [weight for weight in trained if weight.ndim > 1]  # what L1 shrinks: not biases
        self.epoch = self.position = self.step = self.left_out = self.stage = self.best_epoch = 0
        self.score, self.smooth_f1, self.log, self.steps = -1.0, 0.0, [], []
        self.spent_in_epoch, self.epoch_started = 0.0, self.started
        self.repeat = False  # must one epoch be trained before the time limit counts?
        self.wish = 0  # the largest number that any rank's `meanwhile` returned in the last step
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
        """Make ready for the next epoch, or for the rest of one that was interrupted."""
        if not self.position:
            self.next_epoch()
        _, self.terms = stage_at(self.schedule, self.epoch)
        self.epoch_started = time.time() - self.spent_in_epoch
        models.set_training(self.network, self.config["layers"])

    def next_epoch(self):
        self.epoch, self.repeat, self.spent_in_epoch = self.epoch + 1, False, 0.0
        self.seed(self.epoch)
        stage, _ = stage_at(self.schedule, self.epoch)
        if stage != self.stage:
            self.stage = stage
            self.new_plateau()

    def seed(self, number):
        """Let dropout follow from (seed, number), on each rank another."""
        torch.manual_seed(self.config["seed"] * 1_000_003 + number + self.ranks.rank * 2**40)

    def train_step(self, batch, meanwhile=None):
        """One step on one batch: -> {curve: float}, Chen's nine (Fig. 5) and what else the schedule names.

        A network with several outputs is trained by the same loss on each: `loss` is their sum, the other curves are the first's.
        Raises NotFinite before anything is learned from a batch of which nothing can be learned.

        meanwhile: a function that is called while the device computes, before the one time in a step that it is waited for: what
        the CPU does in it costs a GPU no time. It returns a whole number, and `wish` becomes the largest of all ranks'.
        """
        targets = batch["targets"].to(self.device, non_blocking=True)
        self.optimiser.zero_grad(set_to_none=True)
        buffers = [buffer.clone() for buffer in self.network.buffers()] if self.config["skip_nan"] else []
        with explaining_compile_errors(self.config["model"]) if self.config["compile"] else contextlib.nullcontext():
            real = (batch["rows"] >= 0).numpy()
            with cudnn_benchmark(len(real) == self.usual):
                loss, values = self.backward(self.normaliser(batch), targets, real, batch.get("whole", len(real)))
        norm = self.gradient_norm()
        scale = self.scaler.scale(torch.ones((), device=self.device))
        numbers = {"loss": loss, "norm": norm, "scale": scale} | values
        self.wish = meanwhile() if meanwhile else 0
        if self.ranks.world_size > 1:
            numbers["wish"] = self.ranks.all_reduce_max(self.wish, self.device)
        waited = torch.stack([number.detach() for number in numbers.values()]).tolist()
        numbers = dict(zip(numbers, waited, strict=True))
        self.step, self.position, self.wish = self.step + 1, self.position + 1, int(numbers.pop("wish", self.wish))
        loss, norm, scale = (numbers.pop(name) for name in ("loss", "norm", "scale"))
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimiser.step()
            if self.average:
                self.average.update(self.network)
        if self.scaler.is_enabled():
            self.scaler.update()  # also forgets the gradients of a batch that is left out
        # In float16 a gradient may overflow because of the scale alone, which has been lowered now.
        if not math.isfinite(loss) or not (math.isfinite(norm) or scale > 1):
            for buffer, before in zip(self.network.buffers(), buffers):  # batch norm has counted what was no number
                buffer.copy_(before)
            what = f"a gradient became {norm}" if math.isfinite(loss) else f"the loss became {loss}"
            raise NotFinite(what, batch["rows"][batch["rows"] >= 0].tolist())
        curves = {"lr": self.lr, "loss": loss} | numbers
        if self.config["plateau"] == "step":
            self.follow_plateau(1 - curves["soft_f1"])
        return curves

    def follow_plateau(self, soft_f1):
        """Take a step's training soft F1 into its running mean, and let the plateau see that."""
        self.smooth_f1 += (soft_f1 - self.smooth_f1) / MEMORY
        since = self.step - (self.schedule[self.stage][0] - 1) * self.steps_an_epoch  # steps with this loss
        mean = self.smooth_f1 / (1 - (1 - 1 / MEMORY) ** since)  # it began at 0
        if since >= min(MEMORY, self.steps_an_epoch):  # before, one lucky batch would be the best for long
            self.plateau.step(mean)

    def gradient_norm(self):
        """The norm of all gradients, 0-d, without the scaler's factor, before they are clipped to --clip."""
        self.scaler.unscale_(self.optimiser)  # nothing but in float16
        weights = [weight for weight in self.trained if weight.grad is not None]
        if self.config["clip"]:
            return torch.nn.utils.clip_grad_norm_(weights, self.config["clip"])
        return torch.nn.utils.get_total_norm([weight.grad for weight in weights])

    def backward(self, images, targets, real, samples):
        """Add the gradients of the loss of the whole batch, L1 penalty included, scaled by the scaler:
        -> (loss without the penalty, {curve: value}), 0-d tensors.

        The whole batch are the `samples` of all ranks that are `real` (n,) bool array, first among each rank's. Gradients are averaged
        over ranks, so that the loss counts as often as there are ranks to come out as its sum.

        With --accumulate the batch goes through the network in parts, each with its own backward pass, so that only one part's
        activations are in memory at a time. Where the loss couples the samples of a batch, all parts go through once before, to
        know the loss's slope at every output.
        """
        which = self.ranks.real_rows(samples, self.device)
        whole = self.ranks.all_gather(targets, which)
        usual = self.compiled is not None and len(images) == self.usual
        network = self.compiled if usual else self.parallel
        images = images.tensor_split(self.count_parts(len(images)))
        if len(images) == 1:
            outputs = [self.ranks.all_gather(output, which) for output in self.outputs(network, images[0])]
            values = self.values(outputs[0], whole, learned=self.terms)
            loss = self.loss(outputs, whole, values)
            self.scaler.scale(loss * self.ranks.world_size + self.penalty()).backward()
            return loss, values
        slopes = self.slopes(network, images, whole, which) if losses.COUPLED & set(self.terms) else None
        targets = targets.tensor_split(len(images))
        counts = [int(part.sum()) for part in np.array_split(real, len(images))]
        seen = []
        for number, (part, count) in enumerate(zip(images, counts, strict=True)):
            last = number == len(images) - 1
            with self.unsynced() if not last else contextlib.nullcontext():
                outputs = self.outputs(network, part)
                seen.append([output.detach() for output in outputs])
                if slopes:
                    total = sum((output * slope).sum() for output, slope in zip(outputs, slopes[number], strict=True))
                elif count:
                    mean = self.loss([output[:count] for output in outputs], targets[number][:count])
                    total = self.scaler.scale(mean * (self.ranks.world_size * count / len(whole)))
                else:  # all ranks take part in every backward pass, for nothing too
                    total = sum(0 * output.sum() for output in outputs)
                if last and self.config["l1"]:
                    total = total + self.scaler.scale(self.penalty())
                total.backward()
        with torch.no_grad():
            outputs = [self.ranks.all_gather(torch.cat(parts), which) for parts in zip(*seen, strict=True)]
            values = self.values(outputs[0], whole)
            return self.loss(outputs, whole, values), values

    def count_parts(self, samples):
        """In how many parts a rank's share of a batch goes through the network: none larger than those of a full batch, but of two
        samples at least, from which batch norm can learn."""
        largest = math.ceil(math.ceil(self.config["batch_size"] / self.ranks.world_size) / self.config["accumulate"])
        return max(1, min(math.ceil(samples / largest), samples // 2)) if self.config["accumulate"] > 1 else 1

    def slopes(self, network, images, targets, which):
        """The scaled loss's derivative by every output of every part: a list (parts) of lists (outputs) of (part, C). targets: of
        all ranks' real samples."""
        with self.unsynced(), rehearsal(self.network, self.device):
            # With gradients, if for nothing, so that a compiled network draws its dropout as it will again.
            seen = [[output.detach() for output in self.outputs(network, part)] for part in images]
        outputs = [torch.cat(parts).requires_grad_() for parts in zip(*seen, strict=True)]
        loss = self.loss([self.ranks.all_gather(output, which) for output in outputs], targets)
        slopes = torch.autograd.grad(self.scaler.scale(loss * self.ranks.world_size), outputs)
        return list(zip(*(slope.tensor_split(len(images)) for slope in slopes), strict=True))

    def outputs(self, network, images):
        """The outputs in training of `network`, which computes as `self.network` does: a list of (B, C) float32 logits, of which the
        first predicts."""
        with autocast(self.device, self.amp):
            outputs = network(images)
        return [output.float() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    def loss(self, outputs, targets, first=None):
        """The stage's loss, summed over the outputs; `first`: the curves of the first of them, where they are known."""
        known, rest = ([first], outputs[1:]) if first else ([], outputs)
        values = known + [self.values(output, targets, self.terms, self.terms) for output in rest]
        return sum(losses.weighted_sum(self.terms, each) for each in values)

    def values(self, output, targets, names=None, learned=()):
        """The curves of a network's output, all that are kept or those called `names`, see `losses.curves`."""
        return losses.curves(names or self.curves, output, targets, self.class_weights, self.pos_weights, learned)

    def penalty(self):
        return self.config["l1"] * sum(weight.abs().sum() for weight in self.weights) if self.config["l1"] else 0.0

    def unsynced(self):
        """For a backward pass after which another follows in the same step: processes that train together wait for that."""
        return self.parallel.no_sync() if hasattr(self.parallel, "no_sync") else contextlib.nullcontext()

    @property
    def evaluated(self):
        """The network that is validated and kept: the average of --ema, or the trained one itself."""
        return self.average.module if self.average else self.network

    @property
    def lr(self):
        return self.optimiser.param_groups[0]["lr"]

    def end_epoch(self, score):
        """Take note of the validation score; -> is it the best so far?"""
        if self.config["plateau"] == "epoch":
            self.plateau.step(score)
        if better := score > self.score:
            self.score, self.best_epoch = score, self.epoch
        self.position, self.spent_in_epoch = 0, 0.0
        return better

    @property
    def seconds_in_epoch(self):
        """Seconds since the epoch began, without those between a stop and going on."""
        return time.time() - self.epoch_started

    @property
    def spent(self):
        """Seconds since the run's start, without those between a stop and going on."""
        return self.spent_before + time.time() - self.started

    @property
    def out_of_time(self):
        """Would one more epoch, as long as the longest so far, go over --max-minutes?"""
        return not self.repeat and not self.position and out_of_time(self.config, self.spent, self.log)

    @property
    def finished(self):
        """All epochs done, or none better for --early-stop epochs since the last change of loss."""
        if self.position:
            return False
        last_change = max(first for first, _ in self.schedule if first <= self.config["epochs"])
        since = self.epoch - max(self.best_epoch, last_change - 1)
        return self.epoch >= self.config["epochs"] or 0 < self.config["early_stop"] <= since

    def state(self):
        """All that the rest of the training follows from, beside the data. To be called on every rank."""
        kept = ["optimiser", "plateau", "scaler", *(["average"] if self.average else [])]
        names = list(self.steps[0]) if self.steps else []
        return {
            "config": self.config,
            "model": self.network.state_dict(),
            "finished": self.finished,
            "spent": self.spent,
            "spent_in_epoch": self.seconds_in_epoch if self.position else 0.0,
            "random": self.ranks.all_gather_object(random_state(self.device)),
            "steps": {name: torch.from_numpy(np.array([row[name] for row in self.steps])) for name in names},
            "parts": {name: getattr(self, name).state_dict() for name in kept},
        } | {name: getattr(self, name) for name in REMEMBERED}

    def restore(self, saved):
        """Become what `state` has described."""
        self.network.load_state_dict(saved["model"])
        own, stored = (part["param_groups"] for part in (self.optimiser.state_dict(), saved["parts"]["optimiser"]))
        for mine, other in zip(own, stored, strict=True):
            other.update({key: mine[key] for key in OF_THE_DEVICE if key in mine})
        for name, part in saved["parts"].items():
            if part:  # a scaler that is switched off has no state
                getattr(self, name).load_state_dict(part)
        for name in REMEMBERED:
            setattr(self, name, saved[name])
        columns = [values.tolist() for values in saved["steps"].values()]
        self.steps = [dict(zip(saved["steps"], row, strict=True)) for row in zip(*columns, strict=True)]
        self.repeat, self.spent_before, self.spent_in_epoch = saved["repeat"], saved["spent"], saved["spent_in_epoch"]
        if len(saved["random"]) == self.ranks.world_size:
            set_random_state(saved["random"][self.ranks.rank], self.device)
        else:  # on another number of GPUs: as good, but not the same
            self.seed(self.step)

    def check_finite(self):
        """Raise InputError where the weights are no longer numbers: such a state is not worth keeping."""
        networks = [self.network, *([self.average.module] if self.average else [])]
        kept = [value for network in networks for value in network.state_dict().values() if value.is_floating_point()]
        if not torch.nn.utils.get_total_norm(kept).isfinite():
            raise InputError(
                f"weights became infinite or NaN at step {self.step:,} (epoch {self.epoch}) or the one before, and were not saved; "
                "train anew (--overwrite) with a lower --lr or --amp off"
            )


def random_state(device):
    """What torch draws from next, on the CPU and on the device: {name: (n,) uint8}."""
    return {"cpu": torch.get_rng_state()} | (
        {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    )


def set_random_state(state, device):
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def out_of_time(config, spent, log):
    """Would one more epoch, as long as the longest in `log`, after `spent` seconds go over --max-minutes?"""
    budget = 60 * config["max_minutes"]
    return bool(budget and log) and spent + max(row["seconds"] for row in log) > budget

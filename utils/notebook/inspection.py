"""Inspect a run's validation images: true positives, false negatives and false positives per class, Grad-CAM maps."""

from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from utils.data.image_files import find_files, scan_folders
from utils.data.images import CHANNELS, ChannelSet, image_size, load_sample, parse_channels
from utils.device import pick_device
from utils.engine import grad_cam
from utils.engine.checkpoint import load_network
from utils.errors import InputError
from utils.notebook.blanking import measure_blanking
from utils.plots.image_sheets import in_colour, stretch
from utils.runs.run_folder import ANY_WEIGHTS, first_file
from utils.runs.thresholds_file import read_per_class, read_rule
from utils.safe_load import read_json
from utils.scoring.metrics import f1_per_class
from utils.tools.compare import read_runs

# probabilities (with a stack its scores, fitted on these rows), truth (N, C); thresholds (C,); known: columns of
# thresholds.json; fold (N,): row's index in `folds`; files: each row's files for the network; shown, names: each row's
# files to show, and their channels.
Judged = namedtuple("Judged", "folds classes ids truth probabilities thresholds known fold files shown names")
# One image and one class. image (H, W, 3) in [0, 1]; protein (H, W) in [0, 1] and map (H, W) >= 0, or None.
Sample = namedtuple("Sample", "probability true_classes image protein map", defaults=(None, None))
Rare = namedtuple("Rare", "name threshold positives average_precision f1 ranks samples false_positive")
KINDS = ("found, highest probability first", "missed, lowest first", "wrongly predicted, highest first")
KNOWN = ("positives", "f1_in_sample", "f1_cross_fitted")
SHOWN_SIDE = 256  # pixels


def read_judged(run, thresholds, images=None):
    """Read the validation predictions in a folder of a run or fold, and the thresholds.json fitted on the run: ->
    Judged. images: image folders (default: those of the run's config)."""
    runs = read_runs([run])
    if len(runs) > 1:
        raise InputError(f"the folds of {run} were trained with different options; name one fold's folder")
    pooled, config = runs[0], runs[0].folds[0].config
    rule, known = read_rule(thresholds, pooled.classes), read_per_class(thresholds, pooled.classes, KNOWN)
    pooled = pooled._replace(probabilities=rule.scores(pooled.probabilities))
    check_fitted(thresholds, known, rule.thresholds, pooled)
    folders = images or config.images or ["input/train"]
    found = scan_folders(folders)
    files = find_files(folders, pooled.ids, parse_channels(config.channels), found)
    names = tuple(name for name in CHANNELS.values() if all(name in found[id_] for id_ in pooled.ids))
    shown = find_files(folders, pooled.ids, ChannelSet(names), found)
    fold = np.repeat(np.arange(len(pooled.folds)), [len(fold.ids) for fold in pooled.folds])
    parts = pooled.folds, pooled.classes, pooled.ids, pooled.truth, pooled.probabilities
    return Judged(*parts, rule.thresholds, known, fold, files, shown, names)


def check_fitted(path, known, thresholds, pooled):
    """Raise InputError if a thresholds.json was not fitted on these predictions. It may include further folds."""
    content = read_json(path, "a thresholds.json", "run threshold.py again")
    fitted_on, own = content.get("fitted_on"), {str((fold.folder / "oof.csv").resolve()) for fold in pooled.folds}
    positives = pooled.truth.sum(axis=0)
    if isinstance(fitted_on, list) and own < set(map(str, fitted_on)):
        same = (known["positives"] >= positives).all()
    else:  # the same files, unless the run was moved: compare the numbers
        same = np.array_equal(known["positives"], positives)
        if content.get("shares") is None:  # with "shares", its F1 belongs to other thresholds
            f1 = f1_per_class(pooled.truth, pooled.probabilities >= thresholds)
            same = same and np.allclose(known["f1_in_sample"], f1, atol=1e-6)
    if not same:
        raise InputError(f"{path} was not fitted on the predictions of {pooled.folder}; run threshold.py again")


def load_networks(judged):
    """-> [(network, config)], one per fold."""
    return [load_network(first_file(fold.folder, *ANY_WEIGHTS), pick_device("auto")) for fold in judged.folds]


def rows_by_kind(truth, probabilities, threshold):
    """Sort the rows of one class into `KINDS`: -> dict of arrays. truth, probabilities: (N,)."""
    positive, predicted = np.asarray(truth, bool), probabilities >= threshold
    rising, falling = (np.argsort(sign * probabilities, kind="stable") for sign in (1, -1))
    orders = (falling, positive & predicted), (rising, positive & ~predicted), (falling, ~positive & predicted)
    return {kind: order[rows[order]] for kind, (order, rows) in zip(KINDS, orders, strict=True)}


def samples_of(judged, name, count=6, networks=None):
    """-> arguments of `utils.plots.samples.class_samples`: a class, its threshold, and {kind with its number of images:
    up to `count` Samples}. With `networks` of `load_networks`, the Samples have maps, computed by `maps_of_rows`."""
    if name not in judged.classes:
        raise InputError(f"{name!r} is not a class of {judged.folds[0].folder}; it has {', '.join(judged.classes)}")
    column = judged.classes.index(name)
    groups, threshold = {}, float(judged.thresholds[column])
    for kind, rows in rows_by_kind(judged.truth[:, column], judged.probabilities[:, column], threshold).items():
        maps = maps_of_rows(judged, networks, rows[:count], column) if networks else [None] * len(rows[:count])
        shown = [read_sample(judged, row, column, one) for row, one in zip(rows[:count], maps, strict=True)]
        groups[f"{kind} ({len(rows):,})"] = shown
    return name, threshold, groups


def maps_of_rows(judged, networks, rows, column):
    """Compute each row's map of one class, with the network that did not train on it: -> list of (H, W) float32."""
    maps = {}
    for number, (network, config) in enumerate(networks):
        if own := [row for row in rows if judged.fold[row] == number]:
            found, *_ = grad_cam.sample_maps(network, config, [judged.files[row] for row in own], [column] * len(own))
            maps |= dict(zip(own, found, strict=True))
    return [maps[row] for row in rows]


def read_sample(judged, row, column, map_=None):
    """-> the Sample of one row and class."""
    height, width = image_size(judged.shown[row][0])
    planes = load_sample(judged.shown[row], None if height == width <= SHOWN_SIDE else SHOWN_SIDE)
    protein = None
    if map_ is not None:
        protein = stretch(planes[..., judged.names.index("green") if "green" in judged.names else 0])
    true_classes = [name for name, true in zip(judged.classes, judged.truth[row], strict=True) if true]
    image, probability = in_colour(planes, judged.names), float(judged.probabilities[row, column])
    return Sample(probability, true_classes, image, protein, map_)


def blank_hits(judged, networks, most=100, seed=0):
    """Run `measure_blanking` on up to `most` random true positives (an image and a class)."""
    hits = np.argwhere((judged.truth > 0) & (judged.probabilities >= judged.thresholds))
    hits = hits[np.sort(np.random.default_rng(seed).permutation(len(hits))[:most])]
    falls = [{"marked": np.zeros(0, np.float32), "random": np.zeros(0, np.float32)}] if not len(hits) else []
    for number, (network, config) in enumerate(networks):
        rows, columns = hits[judged.fold[hits[:, 0]] == number].T
        if len(rows):
            files = [judged.files[row] for row in rows]
            falls.append(measure_blanking(network, config, files, columns, seed=seed))
    return {name: np.concatenate([part[name] for part in falls]) for name in falls[0]}


def rarest(judged, count=5, most=5):
    """-> list of `Rare`: the `count` rarest classes with validation images, rarest first. Each has up to `most` of its
    images by descending probability, and the most probable image without the class (None if every image has it).

    An image's rank is the number of validation images whose probability is at least as high, including itself."""
    found, positives = [], judged.truth.sum(axis=0, dtype=int)
    for column in [column for column in np.argsort(positives, kind="stable") if positives[column]][:count]:
        truth, values = judged.truth[:, column] > 0, judged.probabilities[:, column]
        ranks = rankdata(-values, method="max").astype(int)
        order = np.argsort(-values, kind="stable")
        own, others = order[truth[order]], order[~truth[order]]
        wrong = (int(ranks[others[0]]), read_sample(judged, others[0], column)) if len(others) else None
        precision, f1 = average_precision_score(truth, values), judged.known["f1_cross_fitted"][column]
        numbers = float(judged.thresholds[column]), len(own), float(precision), float(f1)
        samples = [read_sample(judged, row, column) for row in own[:most]]
        found.append(Rare(judged.classes[column], *numbers, ranks[own].tolist(), samples, wrong))
    return found


def rare_table(rare, images):
    """-> the result of `rarest` as a DataFrame, one row per class. images: the number of ranked images."""
    rows = [
        {
            "class": one.name,
            "images": one.positives,
            f"ranks among {images:,}": ", ".join(map(str, one.ranks)),
            "highest false positive": one.false_positive[0] if one.false_positive else "none",
            "threshold": f"{one.threshold:.2g}",
            "average precision": f"{one.average_precision:.3f}",
            "F1, cross-fitted": f"{one.f1:.3f}",
        }
        for one in rare
    ]
    return pd.DataFrame(rows)


def default_thresholds(run):
    """-> the path of thresholds.json, which threshold.py writes into the run's folder. run: folder of a run or fold."""
    run = Path(run)
    return (run.parent if (run / "oof.csv").is_file() else run) / "thresholds.json"

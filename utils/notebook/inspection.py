"""A run's validation images one by one: which a network found, missed or called by mistake, and where it looked."""

from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from utils.data.images import CHANNELS, ChannelSet, find_files, image_size, load_sample, parse_channels, scan_folders
from utils.device import pick_device
from utils.engine.checkpoint import load_network
from utils.errors import InputError
from utils.notebook import grad_cam
from utils.plots.image_sheets import in_colour, stretch
from utils.runs.run_folder import ANY_WEIGHTS, first_file
from utils.safe_load import read_json
from utils.scoring.metrics import f1_per_class
from utils.scoring.thresholds import read_per_class, read_thresholds
from utils.tools.compare import read_runs

# probabilities (N, C); thresholds (C,); known: columns of thresholds.json; fold (N,): number of the row's fold in `folds`; files: of
# each row, for the network; shown, names: those to be seen, and their channels.
Judged = namedtuple("Judged", "folds classes ids truth probabilities thresholds known fold files shown names")
# One image and one class. probability; truly: names; picture (H, W, 3) in [0, 1]; protein (H, W) in [0, 1] and map (H, W), 0 or more,
# or None.
Sample = namedtuple("Sample", "probability truly picture protein map", defaults=(None, None))
Rare = namedtuple("Rare", "name threshold positives average_precision f1 ranks samples alarm")
KINDS = ("found, surest first", "missed, lowest first", "called by mistake, surest first")
KNOWN = ("positives", "f1_in_sample", "f1_cross_fitted")
SEEN = 256  # pixels of the pictures shown


def read_judged(run, thresholds, images=None):
    """All validation images of a run's folder, or of one fold's, decided with a thresholds.json that was fitted on the run:
    -> Judged. images: folders of the images; else those of the run's config."""
    runs = read_runs([run])
    if len(runs) > 1:
        raise InputError(f"{run}: its folds were trained with different options; name one fold's folder")
    pooled, config = runs[0], runs[0].folds[0].config
    cuts, known = read_thresholds(thresholds, pooled.classes), read_per_class(thresholds, pooled.classes, KNOWN)
    check_fitted(thresholds, known, cuts, pooled)
    folders = images or config["images"] or ["input/train"]
    found = scan_folders(folders)
    files = find_files(folders, pooled.ids, parse_channels(config["channels"]), found)
    names = tuple(name for name in CHANNELS.values() if all(name in found[id_] for id_ in pooled.ids))
    shown = find_files(folders, pooled.ids, ChannelSet(names), found)
    fold = np.repeat(np.arange(len(pooled.folds)), [len(fold.ids) for fold in pooled.folds])
    return Judged(
        pooled.folds,
        pooled.classes,
        pooled.ids,
        pooled.truth,
        pooled.probabilities,
        cuts,
        known,
        fold,
        files,
        shown,
        names,
    )


def check_fitted(path, known, cuts, pooled):
    """Raise InputError where a thresholds.json was fitted on other predictions, or on what these were before. A fold alone may be
    decided with what was fitted on it and others."""
    content = read_json(path, "a thresholds.json", "run threshold.py anew")
    fitted_on, own = content.get("fitted_on"), {str((fold.folder / "oof.csv").resolve()) for fold in pooled.folds}
    positives = pooled.truth.sum(axis=0)
    if isinstance(fitted_on, list) and own < set(map(str, fitted_on)):
        same = (known["positives"] >= positives).all()
    else:  # the same files, or a run that was moved: only the numbers tell
        same = np.array_equal(known["positives"], positives)
        if content.get("shares") is None:  # else its F1 are those of other thresholds
            f1 = f1_per_class(pooled.truth, pooled.probabilities >= cuts)
            same = same and np.allclose(known["f1_in_sample"], f1, atol=1e-6)
    if not same:
        raise InputError(f"{path} was fitted on other predictions than those of {pooled.folder}; run threshold.py anew")


def load_networks(judged):
    """The network of each fold: list of (network, config)."""
    return [
        load_network(path, pick_device("auto"))
        for path in (first_file(fold.folder, *ANY_WEIGHTS) for fold in judged.folds)
    ]


def kinds_of(truth, probabilities, threshold):
    """Rows of one class by `KINDS`, all of each: dict of arrays. truth, probabilities: (N,)."""
    positive, called = np.asarray(truth, bool), probabilities >= threshold
    rising = np.argsort(probabilities, kind="stable")
    falling = np.argsort(-probabilities, kind="stable")
    orders = (falling, positive & called), (rising, positive & ~called), (falling, ~positive & called)
    return {kind: order[rows[order]] for kind, (order, rows) in zip(KINDS, orders, strict=True)}


def samples_of(judged, name, count=6, networks=None):
    """What to show of one class: its name, its threshold, and {kind with its number of images: up to `count` Samples}; with
    `networks` (of `load_networks`) each has the protein and the map of its own fold's network."""
    column = number_of(judged, name)
    kinds = kinds_of(judged.truth[:, column], judged.probabilities[:, column], judged.thresholds[column])
    groups = {}
    for kind, rows in kinds.items():
        shown = rows[:count]
        maps = maps_of(judged, networks, shown, column) if networks else [None] * len(shown)
        groups[f"{kind} ({len(rows):,})"] = [
            sample_of(judged, row, column, one) for row, one in zip(shown, maps, strict=True)
        ]
    return judged.classes[column], float(judged.thresholds[column]), groups


def number_of(judged, name):
    if name not in judged.classes:
        raise InputError(f"{name!r} is no class of {judged.folds[0].folder}; it has {', '.join(judged.classes)}")
    return judged.classes.index(name)


def maps_of(judged, networks, rows, column):
    """The map of one class for each of the rows, by the network that did not train on it: list of (H, W) float32."""
    maps = {}
    for number, (network, config) in enumerate(networks):
        own = [row for row in rows if judged.fold[row] == number]
        if own:
            found, *_ = grad_cam.sample_maps(network, config, [judged.files[row] for row in own], [column] * len(own))
            maps |= dict(zip(own, found, strict=True))
    return [maps[row] for row in rows]


def sample_of(judged, row, column, one=None):
    height, width = image_size(judged.shown[row][0])
    image = load_sample(judged.shown[row], None if height == width <= SEEN else SEEN)
    colours = [name for name in judged.names if name != "yellow"] or judged.names
    truly = [name for name, true in zip(judged.classes, judged.truth[row], strict=True) if true]
    protein = None
    if one is not None:
        protein = stretch(image[..., judged.names.index("green") if "green" in judged.names else 0])
    picture = in_colour(image[..., [judged.names.index(name) for name in colours]], colours)
    return Sample(float(judged.probabilities[row, column]), truly, picture, protein, one)


def blanked(judged, networks, most=100, seed=0):
    """`cam.blanking` over hits: up to `most` pairs of an image and a class that it has and that was called, drawn by `seed`."""
    hits = np.argwhere((judged.truth > 0) & (judged.probabilities >= judged.thresholds))
    hits = hits[np.sort(np.random.default_rng(seed).permutation(len(hits))[:most])]
    falls = []
    for number, (network, config) in enumerate(networks):
        rows, columns = hits[judged.fold[hits[:, 0]] == number].T
        if len(rows):
            falls.append(grad_cam.blanking(network, config, [judged.files[row] for row in rows], columns, seed=seed))
    if not falls:  # no class was found in any image
        return {"marked": np.zeros(0, np.float32), "random": np.zeros(0, np.float32)}
    return {name: np.concatenate([part[name] for part in falls]) for name in falls[0]}


def rarest(judged, count=5, most=5):
    """The `count` rarest classes that have validation images, the rarest first: list of `Rare`, each with up to `most` of its images,
    likeliest first, and the false alarm that stands highest (None where every image has the class).

    A rank is how many validation images are at least as likely, the image itself among them: so many have to be looked at to
    find it.
    """
    positives = judged.truth.sum(axis=0, dtype=int)
    order = [column for column in np.argsort(positives, kind="stable") if positives[column]][:count]
    return [_rare(judged, column, most) for column in order]


def _rare(judged, column, most):
    truth, values = judged.truth[:, column].astype(bool), judged.probabilities[:, column]
    ranks = rankdata(-values, method="max").astype(int)
    own, others = (
        part[np.argsort(-values[part], kind="stable")] for part in (np.flatnonzero(truth), np.flatnonzero(~truth))
    )
    alarm = (int(ranks[others[0]]), sample_of(judged, others[0], column)) if len(others) else None
    return Rare(
        judged.classes[column], float(judged.thresholds[column]), len(own), float(average_precision_score(truth, values)),
        float(judged.known["f1_cross_fitted"][column]), ranks[own].tolist(),
        [sample_of(judged, row, column) for row in own[:most]], alarm,
    )  # fmt: skip


def rare_table(rare, images):
    """What `rarest` found as a DataFrame, a row a class. images: how many are ranked."""
    return pd.DataFrame(
        {
            "class": [one.name for one in rare],
            "images": [one.positives for one in rare],
            f"ranks among {images:,}": [", ".join(map(str, one.ranks)) for one in rare],
            "highest false alarm": [one.alarm[0] if one.alarm else "none" for one in rare],
            "threshold": [f"{one.threshold:.2g}" for one in rare],
            "average precision": [f"{one.average_precision:.3f}" for one in rare],
            "F1, cross-fitted": [f"{one.f1:.3f}" for one in rare],
        }
    )


def thresholds_beside(run):
    """Where threshold.py leaves the thresholds.json of a run's folder, or of the run that a fold's folder is in."""
    run = Path(run)
    return (run.parent if (run / "oof.csv").is_file() else run) / "thresholds.json"

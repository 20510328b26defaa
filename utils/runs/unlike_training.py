"""Images unlike those that a fold was trained on (out of distribution): its image_statistics.json, and what is unusual."""

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from utils.data.crops import middle
from utils.data.image_statistics import LEAST_AREA, OF_NUCLEI, image_statistics, statistic_names
from utils.errors import InputError, plural, refusal
from utils.files import write_json
from utils.parallel import cores
from utils.safe_load import check_plain, read_json
from utils.scoring import mahalanobis

FILE = "image_statistics.json"
MOST_IMAGES, LEAST_IMAGES = 1000, mahalanobis.PARTS  # that statistics are fitted on
FALSE_ALARM_RATE = 0.01
SWAPPED = 0.7  # times the threshold: the distance below which an order of the channels is believed
LEAST_CONTRAST = np.log2(8 / 255)  # of a channel that shows something
UNUSUAL = 3  # standard deviations from which a statistic is unusual; correlations are a reason only if no other is
MUCH_WIDER = 1.5  # times: nuclei of another magnification; those of other cell types differ less
LARGEST = 1e6  # of the numbers in a file
FIX = "write it again with python -m utils.tools.judge_unlike FOLD --images FOLDER --write, or delete it"
WORDS = {  # of a statistic that is too low, too high
    "background": ("dark background", "bright background"),
    "brightness": ("dark", "bright"),
    "contrast": ("faint", "strong contrast"),
    "saturation": ("not saturated", "saturated"),
    "sharpness": ("blurred", "noisy"),
    "texture": ("blurred", "noisy"),
    "nuclei": ("few or no nuclei", "many nuclei"),
    "nuclear size": ("small nuclei", "large nuclei"),
    "nuclear contrast": ("few or no nuclei", "bright nuclei"),
    "correlation": ("channels unrelated", "channels alike"),
}


class TrainingImages(NamedTuple):
    """What images a fold was trained on: their channels, names, and a Gaussian of their statistics, whose distance
    `threshold` a new image like them exceeds with probability `rate`. images: how many it was fitted on."""

    channels: tuple
    gaussian: mahalanobis.Gaussian
    threshold: float
    rate: float
    images: int


def measure(images, channels):
    """The statistics of up to `MOST_IMAGES` evenly spaced `Images`: (n, F) float32."""
    rows = np.unique(np.linspace(0, len(images) - 1, min(MOST_IMAGES, len(images))).astype(int)).tolist()
    with ThreadPoolExecutor(cores()) as pool:
        return np.stack(list(pool.map(lambda row: _statistics(images, row, channels), rows)))


def _statistics(images, row, channels):
    try:
        return image_statistics(images.read(row), channels)
    except Exception as error:
        raise refusal(error, images.files[row][0]) from None


def fit(values, channels):
    """Fit the statistics (n, F) of `LEAST_IMAGES` training images or more: -> TrainingImages."""
    values = values.astype(np.float64)
    threshold, rate = mahalanobis.fit_threshold(values, FALSE_ALARM_RATE)
    return TrainingImages(tuple(channels), mahalanobis.fit(values), threshold, rate, len(values))


def write(folder, fitted):
    """Write a fold's image_statistics.json."""
    names = {"channels": list(fitted.channels), "statistics": statistic_names(fitted.channels)}
    facts = {"images": fitted.images, "false_alarm_rate": fitted.rate, "threshold": fitted.threshold}
    numbers = {name: value.tolist() for name, value in fitted.gaussian._asdict().items()}
    write_json(Path(folder) / FILE, names | facts | numbers)


def read(folder, channels):
    """Read a fold's image_statistics.json: -> TrainingImages, or None without one. Raise InputError unless it is of these
    channels."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    content = read_json(path, "a table of image statistics", FIX)
    try:
        check_plain(content)
        names = statistic_names(channels)
        if content["channels"] != list(channels) or content["statistics"] != names:
            raise ValueError("it is of other channels or of another version")
        shapes = {"mean": (len(names),), "deviation": (len(names),), "covariance": (len(names),) * 2}
        numbers = [np.array(content[name], np.float64) for name in shapes]
        threshold, rate, images = (float(content[name]) for name in ("threshold", "false_alarm_rate", "images"))
        if [value.shape for value in numbers] != list(shapes.values()):
            raise ValueError(f"it lacks numbers of {len(names)} statistics")
        mean, deviation, covariance = numbers
        usable = [(np.abs(value) <= LARGEST).all() for value in (*numbers, threshold, rate, images)]  # NaN is not
        if not all(usable) or min(threshold, deviation.min()) < 1 / LARGEST:
            raise ValueError("its numbers are not usable")
        if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance)[0] < 1 / LARGEST:
            raise ValueError("its covariance is not positive definite")
    except (ValueError, KeyError, TypeError, OverflowError, np.linalg.LinAlgError) as error:
        raise InputError(f"{path} is not a table of image statistics ({str(error)[:100]}); {FIX}") from None
    return TrainingImages(
        tuple(channels), mahalanobis.Gaussian(mean, deviation, covariance), threshold, rate, int(images)
    )


class Watch:
    """Called with row and pixels (H, W, channels) of each image that is read, in any thread, measures it for `judge`."""

    def __init__(self, folds):
        self.folds, self.channels, self.values = folds, folds[0].channels, {}

    def __call__(self, row, image):
        self.values[row] = image_statistics(image, self.channels)

    def middles(self, size):
        """Return the function that measures the middle size² of larger images, as networks see their tiles."""
        return lambda row, image: self(row, middle(image, size))

    def judge(self, context):
        """`judge` all images that the processes of `context` have read, by ascending row."""
        self.values = context.merge_dicts(self.values)
        return judge(self.folds, np.stack(list(self.values.values())))

    def nuclei_wider(self):
        """How many times as wide the nuclei of these images are as in training, None if about as wide or unknown."""
        return nuclei_wider(self.folds, np.stack(list(self.values.values())))


def watch(folders, channels):
    """-> the `Watch` of the folds in these folders that have an image_statistics.json; None, and a line that says so, if
    none has. Raise InputError as `read` does."""
    if folds := [fold for folder in folders if (fold := read(folder, channels))]:
        return Watch(folds)
    why = f"{folders[0]} has no {FILE}: images unlike the training images are not counted"
    print(f"{why} (python -m utils.tools.judge_unlike {folders[0]} --images FOLDER --write)")
    return None


def judge(folds, values):
    """How unlike the training images of several `folds`, TrainingImages, images with the statistics (N, F) are.

    -> DataFrame with the columns unlike_training, the mean over the folds of distance / threshold, and reason, a text that is
    empty unless that exceeds 1: what is most unusual, ``blurred``, and in brackets in which channels if not in all.
    """
    values = values.astype(np.float64)
    scores = np.mean([fold.gaussian.distance(values) / fold.threshold for fold in folds], axis=0)
    marked = np.flatnonzero(scores > 1)
    reasons = np.full(len(values), "", object)
    reasons[marked] = [_reason(folds, row) for row in values[marked]]
    return pd.DataFrame({"unlike_training": scores, "reason": reasons})


def nuclei_wider(folds, values):
    """How many times as wide, in parts of the image, the nuclei of images with the statistics (N, F) are as in training, by the
    median of those with nuclei: a number at least `MUCH_WIDER` or at most its inverse, else None."""
    names = statistic_names(folds[0].channels)
    if "nuclear size" not in names:
        return None
    place = names.index("nuclear size")
    found = 2 ** values[:, place].astype(np.float64) - LEAST_AREA
    trained = np.mean([2 ** fold.gaussian.mean[place] for fold in folds]) - LEAST_AREA
    if not (found > LEAST_AREA).any() or trained <= LEAST_AREA:
        return None
    wider = float(np.sqrt(np.median(found[found > LEAST_AREA]) / trained))
    return None if 1 / MUCH_WIDER < wider < MUCH_WIDER else wider


def describe(ids, table):
    """Count what `judge` has marked of `ids`: ``12 of 300 images are unlike the training images (blurred 7, faint 5),
    most of all a, b, c``."""
    marked = table["unlike_training"].to_numpy() > 1
    kinds = Counter(reason.split(" (")[0] for reason in table["reason"][marked])
    what = f"{marked.sum():,} of {plural(len(table), 'image')} {'is' if 1 in (marked.sum(), len(table)) else 'are'}"
    counts = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
    order = np.argsort(-table["unlike_training"].to_numpy(), kind="stable")
    worst = [ids[row] for row in order[: min(3, marked.sum())]]
    most = f" ({counts}), most of all {', '.join(worst)}" if worst else ""
    return f"{what} unlike the training images{most}"


def _reason(folds, values):
    """The words for the statistic that is most standard deviations off, or for channels that show nothing or are swapped."""
    channels, names = folds[0].channels, statistic_names(folds[0].channels)
    apart = dict(zip(names, np.mean([fold.gaussian.standardise(values) for fold in folds], axis=0), strict=True))
    dark = {name for name in channels if values[names.index(f"{name} contrast")] < LEAST_CONTRAST}
    dark = {name for name in dark if apart[f"{name} brightness"] < UNUSUAL}
    if empty := [name for name in channels if name in dark and apart[f"{name} contrast"] < -UNUSUAL]:
        return _in_channels("faint", empty, channels)  # its noise may be further off, but is no reason
    if not dark and (swapped := _swapped(folds[0], values)):
        return f"channels swapped ({', '.join(swapped)})"
    levels = {name: value for name, value in apart.items() if not name.endswith("correlation")}
    off = levels if max(map(abs, levels.values())) > UNUSUAL else apart
    worst = max(off, key=lambda name: abs(off[name]))
    where, kind = _parts(worst)
    words = WORDS[kind][int(off[worst] > 0)]
    if where not in channels:
        return f"{words} ({where})" if where else words
    return _in_channels(words, [name for name in channels if apart[f"{name} {kind}"] / apart[worst] > 0.5], channels)


def _in_channels(words, found, channels):
    if words == "faint" and found == ["blue"]:
        return WORDS["nuclei"][0]
    return words if found == list(channels) else f"{words} ({', '.join(found)})"


def _parts(name):
    """Split the name of a statistic: ``red brightness`` -> red, brightness; ``nuclear size`` -> "", nuclear size."""
    where, _, kind = name.partition(" ")
    return ("", name) if name in OF_NUCLEI else (where, kind)


def _swapped(fold, values):
    """The channels that have changed places, in another order of which the image is like the training images; () if no
    order makes it so. Nuclei, measured in blue only, do not count."""
    names = statistic_names(fold.channels)
    kept = [number for number, name in enumerate(names) if name not in OF_NUCLEI]
    mean, deviation, covariance = fold.gaussian
    nearest, swapped = SWAPPED * fold.threshold, ()
    for order in itertools.permutations(fold.channels):
        other = dict(zip(fold.channels, order, strict=True))
        source = [_place(names[number], other, names) for number in kept]
        apart = (values[source] - mean[kept]) / deviation[kept]
        if (found := mahalanobis.distance(apart[None], covariance[np.ix_(kept, kept)])[0]) < nearest:
            nearest, swapped = found, tuple(name for name in fold.channels if other[name] != name)
    return swapped


def _place(name, other, names):
    """Where the statistic `name` is among `names` if each channel's pixels are in the `other` one's place."""
    where, kind = _parts(name)
    pair = [other[each] for each in where.split("–")]
    return next(names.index(each) for order in (pair, pair[::-1]) if (each := f"{'–'.join(order)} {kind}") in names)

"""A baseline without a network: a linear classifier on texture features.

    python -m utils.tools.baseline --folds input/folds.csv --fold 0 \\
        --images input/train
    python -m utils.tools.baseline --fold 0 --train-limit 1000 \\
        --name linear1000
    python threshold.py runs/linear

writes runs/<name>/fold<k>/oof.csv, probabilities of the same rows as
train.py's, and config.json. Images are resized to --size, with grey values
from 0 to 1. Features of each channel (34):
    mean, standard deviation, skewness                                  3
    quantiles .1, .25, .5, .75, .9, .99                                 6
    log variance of five octaves, differences of Gaussians of
    0, 1, 2, 4, 8, 16                                                   5
    frequencies of the ten rotation-invariant local binary patterns
    (riu2; Ojala et al. 2002, eq. 9), at full and at half size         20
Between green and each other channel (6): correlation of the images and of
each octave. Green and the nucleus, blue above Otsu's threshold (7): the
nucleus' fraction of the image; mean and deviation of green inside and outside;
mean green in a rim around it; log of the ratio of inside to outside.
"""

import multiprocessing
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from utils.cli import check_least, option_parser, run_script
from utils.data.image_files import check_files, find_files
from utils.data.images import MOST_SIDE, load_sample, parse_channels
from utils.data.labels import encode, load_classes, split_fold
from utils.errors import InputError, plural
from utils.files import check_name, check_writable, write_json
from utils.opencv import cv2
from utils.parallel import cores, starting
from utils.runs.predictions import write_predictions
from utils.runs.run_folder import write_rows
from utils.scoring.metrics import best_global_threshold, macro_f1

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
SIGMAS = (1, 2, 4, 8, 16)  # pixels; each octave lies between two of them
FAINT = 1e-6  # variance (grey values 0 to 1) below which a plane is constant; 8-bit steps are 4e-3


def features(image, names):
    """Compute one image's features (see the module docstring): (S, S, C) float32 in [0, 1], C names -> (F,) float64."""
    octaves, side = split_octaves(image), len(image) // 2
    half = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)
    pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
    mean, std = pixels.mean(axis=0), pixels.std(axis=0)
    found = [mean, std, ((pixels - mean) ** 3).mean(axis=0) / np.maximum(std, FAINT**0.5) ** 3]
    found += [np.quantile(pixels, QUANTILES, axis=0), np.log(octaves.var(axis=(1, 2)) + FAINT)]
    found += [pattern_frequencies(image), pattern_frequencies(half)]
    if "green" in names:
        green = names.index("green")
        for other in (number for number in range(len(names)) if number != green):
            found += [correlation(plane[..., green], plane[..., other]) for plane in (image, *octaves)]
        if "blue" in names:
            found.append(nucleus_features(image[..., green], image[..., names.index("blue")]))
    return np.concatenate([np.ravel(values) for values in found])


def split_octaves(image):
    """Compute differences of Gaussians: (S, S, C) -> (5, S, S, C), finest first."""
    blurred = [image, *(cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape) for sigma in SIGMAS)]
    return np.stack([fine - coarse for fine, coarse in zip(blurred, blurred[1:])])


def pattern_frequencies(image):
    """Compute the frequencies of the ten riu2 patterns in each channel: (S, S, C) -> (10, C), sum 1 over patterns.

    A pixel's pattern is the number of its 8 neighbours that are at least as bright, if they are contiguous, else 9.
    """
    height, width = image.shape[:2]
    ring = zip(
        (0, 0, 0, 1, 2, 2, 2, 1), (0, 1, 2, 2, 2, 1, 0, 0)
    )  # offsets of the 8 neighbours, in order around the circle
    brighter = np.stack([image[y : y + height - 2, x : x + width - 2] >= image[1:-1, 1:-1] for y, x in ring])
    changes = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
    pattern = np.where(changes <= 2, brighter.sum(axis=0), 9)
    return np.stack([(pattern == number).mean(axis=(0, 1)) for number in range(10)])


def correlation(first, second):
    """Pearson's correlation of two planes, 0 if one is nearly constant."""
    first, second = first - first.mean(), second - second.mean()
    variances = float((first**2).mean()), float((second**2).mean())
    return float((first * second).mean()) / np.sqrt(variances[0] * variances[1]) if min(variances) > FAINT else 0.0


def nucleus_features(green, blue):
    """Measure green inside, outside and around the nucleus: two (S, S) -> (7,), 0 for empty regions."""
    inside = cv2.threshold(np.rint(255 * blue).astype(np.uint8), 0, 1, cv2.THRESH_OTSU)[1]
    reach = 2 * max(1, len(green) // 64) + 1
    rim = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) > inside
    regions = (green[inside > 0], green[inside == 0], green[rim])
    (mean_in, std_in), (mean_out, std_out), (mean_rim, _) = ((r.mean(), r.std()) if r.size else (0, 0) for r in regions)
    return inside.mean(), mean_in, std_in, mean_out, std_out, mean_rim, np.log((mean_in + 0.01) / (mean_out + 0.01))


def read_features(paths, size, names):
    image = load_sample(paths, size)
    return features(image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1), names)


def read_all_features(files, size, names, workers):
    """Read the features of all samples: list of N tuples of paths -> (N, F) float64."""
    one = partial(read_features, size=size, names=names)
    progress = dict(desc="features", total=len(files), unit="img", disable=None, leave=False)
    if workers == 1:
        return np.stack(list(tqdm(map(one, files), **progress)))
    with starting("worker processes", "--workers 1"):
        pool = multiprocessing.Pool(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    with pool:  # workers ignore Ctrl+C; this process stops them
        return np.stack(list(tqdm(pool.imap(one, files, chunksize=8), **progress)))


def fit_predict(known, truth, unknown):
    """Fit a logistic regression per class: features (N, F), labels (N, C), features (M, F) -> probabilities (M, C), 0
    or 1 for a class without positives or without negatives."""
    scaler = StandardScaler().fit(known)
    known, unknown = scaler.transform(known), scaler.transform(unknown)
    probabilities = np.tile(truth.mean(axis=0), (len(unknown), 1))
    fitted = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    for column in tqdm(fitted, desc="fitting", unit="class", disable=None, leave=False):
        model = LogisticRegression(max_iter=2000).fit(known, truth[:, column])
        probabilities[:, column] = model.predict_proba(unknown)[:, 1]
    return probabilities


def run_folder(args):
    """Return the fold's folder. Raises InputError if it is unwritable, holds a network, or needs --overwrite."""
    check_name(args.name)
    folder = Path(args.runs) / args.name / f"fold{args.fold}"
    if networks := sorted(folder.parent.glob("fold*/best.*")):
        raise InputError(f"{networks[0].parent} holds a trained network; choose another --name")
    if (folder / "oof.csv").exists() and not args.overwrite:
        raise InputError(f"{folder / 'oof.csv'} exists already; choose another --name or give --overwrite")
    check_writable(folder / "oof.csv")
    return folder


def parse_args():
    parser = option_parser(__doc__, "utils.tools.baseline")
    arg = parser.add_argument
    arg("--folds", default="input/folds.csv", help="table made by make_folds.py (default: %(default)s)")
    arg("--fold", type=int, required=True, help="the validation fold")
    arg("--images", action="append", help="folder of images or images.csv, may be repeated (default: input/train)")
    arg("--classes", default="hpa", help="hpa, cyto, hpa2021 or a CSV class,name (default: %(default)s)")
    arg("--channels", default="rgby", help="rgby, any of its letters, green (default: %(default)s)")
    arg("--size", type=int, default=128, help="pixels that images are resized to (default: %(default)s)")
    arg("--limit", type=int, default=0, metavar="N", help="only N training and N validation images; 0: all")
    arg("--train-limit", type=int, default=0, metavar="N", help="only N training images, all validation images; 0: all")
    source = "validate on the rows of this source alone, kaggle say (default: %(default)s)"
    arg("--valid-source", default="all", metavar="NAME", help=source)
    arg("--name", default="linear", help="name of the run (default: %(default)s)")
    arg("--runs", default="runs", help="folder of all runs (default: %(default)s)")
    arg("--seed", type=int, default=0, help="seed of the limits' choice of rows (default: %(default)s)")
    arg("--workers", type=int, default=cores(), help="processes that read images (default: all cores)")
    arg("--overwrite", action="store_true", help="replace an earlier baseline of this name")
    return parser.parse_args()


def main():
    args, started = parse_args(), time.time()
    check_least(args, fold=0, size=(32, MOST_SIDE), limit=0, train_limit=0, seed=0, workers=1)
    folder = run_folder(args)
    classes, channels = load_classes(args.classes), parse_channels(args.channels)
    if channels.mix:
        raise InputError(f"--channels {args.channels} mixes channels; name plain ones, such as rgby or green")
    choice = {"train_limit": args.train_limit, "valid_source": args.valid_source}
    train_rows, valid_rows = split_fold(args.folds, classes, args.fold, args.limit, args.seed, **choice)
    files = find_files(args.images or ["input/train"], [*train_rows["Id"], *valid_rows["Id"]], channels)
    check_files(files)
    known, unknown = np.split(read_all_features(files, args.size, channels.names, args.workers), [len(train_rows)])
    probabilities = fit_predict(known, encode(train_rows["Target"], classes), unknown)
    write_json(folder / "config.json", vars(args) | {"class_names": classes, "features": known.shape[1]})
    write_rows(folder / "rows.csv", train_rows, valid_rows)
    write_predictions(folder / "oof.csv", valid_rows["Id"], probabilities, classes)
    truth = encode(valid_rows["Target"], classes)
    threshold, best = best_global_threshold(truth, probabilities)
    half = macro_f1(truth, probabilities >= 0.5)
    print(f"{plural(known.shape[1], 'feature')}; {len(known):,} images to train on, {len(unknown):,} to validate")
    print(f"macro F1 {half:.4f} at 0.5; {best:.4f} at one threshold {threshold:.3f}, the best for these images")
    print(f"{time.time() - started:.1f} s -> {folder / 'oof.csv'}")


if __name__ == "__main__":
    run_script(main)

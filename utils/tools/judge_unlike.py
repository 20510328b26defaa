"""Measure how well images unlike the training images are found: damage clean
images and count those that are marked.

    python -m utils.tools.judge_unlike runs/chen/fold0 --images input/train
    python -m utils.tools.judge_unlike runs/chen/fold0 --images input/train \\
        --write
    python -m utils.tools.judge_unlike --images my_cells --others new_cells

With the folder of a fold, its image_statistics.json marks the images that it
was validated on. If there is none, it is fitted on the images that the fold
was trained on (--write keeps it). Without a fold, statistics are fitted on a
random half of the images and mark the other half.

The first row is the false-alarm rate, the others the detection rate, with the
area under the ROC curve (AUC) between damaged and clean images, and what is
most often said to be unusual.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from utils.cli import check_least, option_parser, run_script
from utils.data.cache import open_images
from utils.data.image_files import find_files, scan_folders
from utils.data.image_statistics import image_statistics
from utils.data.images import parse_channels
from utils.data.tables import read_table
from utils.errors import InputError, listing, plural
from utils.files import check_writable, write_csv
from utils.opencv import cv2
from utils.runs import unlike_training
from utils.runs.run_folder import read_config

BACKGROUND = 0.05  # quantile of grey values


def damages(channels):
    """{name: function of (H, W, channels) float32 in [0, 1] and a Generator} that damage an image of these channels."""
    found = {"brightfield": _brightfield, "empty field": _empty, "noise": _noise}
    found |= {"8 times as bright": lambda image, _: 8 * image, "8 times as dark": lambda image, _: image / 8}
    found |= {f"out of focus, 1/{part} of the side": _blur(part) for part in (256, 128, 64, 32)}
    found |= {f"enlarged {times} times": _enlarge(times) for times in (2, 4)}
    found["reduced 2 times"] = _reduce
    names = {"no nuclei": "blue", "no protein": "green"}
    found |= {name: _without(channels.index(channel)) for name, channel in names.items() if channel in channels}
    for pair in (("red", "blue"), ("green", "blue"), ("red", "yellow")):
        if set(pair) <= set(channels):
            found[f"{pair[0]} and {pair[1]} swapped"] = _swap(*map(channels.index, pair))
    return found


def _brightfield(image, rng):
    grey = 0.75 - 0.35 * image.mean(axis=-1, keepdims=True) + rng.normal(0, 0.01, (*image.shape[:2], 1))
    return np.repeat(grey, image.shape[-1], axis=-1)


def _empty(image, rng):
    return np.quantile(image, BACKGROUND, axis=(0, 1)) + rng.normal(0, 0.01, image.shape)


def _noise(image, rng):
    return rng.normal(image.mean(axis=(0, 1)), image.std(axis=(0, 1)), image.shape)


def _blur(part):
    return lambda image, _: cv2.GaussianBlur(image, (0, 0), max(image.shape[:2]) / part)


def _enlarge(times):
    def centre(image, _):
        height, width = (max(1, side // times) for side in image.shape[:2])
        y, x = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        return cv2.resize(image[y : y + height, x : x + width], image.shape[1::-1], interpolation=cv2.INTER_CUBIC)

    return centre


def _reduce(image, _):
    half = cv2.resize(image, [max(1, -(-side // 2)) for side in image.shape[1::-1]], interpolation=cv2.INTER_AREA)
    row = np.concatenate([half, half[:, ::-1]], axis=1)
    return np.concatenate([row, row[::-1]])[: image.shape[0], : image.shape[1]]


def _without(plane):
    return lambda image, rng: np.where(np.arange(image.shape[-1]) == plane, _empty(image, rng), image)


def _swap(one, other):
    def swapped(image, _):
        order = list(range(image.shape[-1]))
        order[one], order[other] = other, one
        return image[..., order]

    return swapped


def damage(image, function, rng):
    """Apply one of `damages` to pixels as `Images.read` returns them: -> pixels of the same dtype."""
    white = 255 if image.dtype == np.uint8 else 1
    pixels = image.astype(np.float32).reshape(*image.shape[:2], -1) / np.float32(white)
    pixels = np.clip(function(pixels, rng).reshape(image.shape), 0, 1) * white
    return np.ascontiguousarray(pixels.round() if white == 255 else pixels, dtype=image.dtype)


def main():
    parser = option_parser(__doc__, "utils.tools.judge_unlike")
    arg = parser.add_argument
    arg("fold", nargs="?", metavar="FOLD", help="folder of a trained fold, with its config.json and rows.csv")
    arg("--images", action="append", required=True, help="folder of images or images.csv, may be repeated")
    arg("--others", metavar="IMAGES", help="also count the images of this folder, or images.csv, that are marked")
    arg("--channels", default="rgby", help="without a fold: as of train.py (default: %(default)s)")
    arg("--size", type=int, default=128, help="without a fold: pixels to resize to (default: %(default)s)")
    arg("--limit", type=int, default=200, help="clean images to damage (default: %(default)s)")
    arg("--seed", type=int, default=0, help="of noise and halves (default: %(default)s)")
    arg("--write", action="store_true", help="write the fold's image_statistics.json anew")
    arg("-o", "--out", metavar="CSV", help="also write the table: images,marked,low,high,auc,reason of each damage")
    args = parser.parse_args()
    check_least(args, size=16, limit=2, seed=0)
    if args.out:
        check_writable(args.out)
    if args.write and not args.fold:
        raise InputError("--write needs the folder of a fold to write to; name one, or leave it out")
    training, clean, others = open_fold(args) if args.fold else open_halves(args)
    table = judge(training, clean, others, args.limit, args.seed)
    print(f"fitted on {plural(training.images, 'image')}; false-alarm rate set to {training.rate:.2%}")
    print_table(table)
    if args.out:
        write_csv(args.out, table)
        print(f"-> {args.out}")


def open_fold(args):
    """-> TrainingImages, Images that the fold was validated on, Images of --others or None."""
    config = read_config(args.fold, "channels", "size", "fit")
    channels = parse_channels(config.channels)
    rows = read_table(Path(args.fold) / "rows.csv", ["Id", "part"], what="a fold's rows.csv")
    options = {"size": config.size, "fit": config.fit, "bits": config.bits}
    trained, valid = (rows["Id"][rows["part"] == part].tolist() for part in ("train", "valid"))
    found = None if args.write else unlike_training.read(args.fold, channels.names)
    if found is None:
        images = open_folders(args.images, channels, trained, **options)
        found = unlike_training.fit(unlike_training.measure(images, channels.names), channels.names)
        if args.write:
            unlike_training.write(args.fold, found)
            print(f"-> {Path(args.fold) / unlike_training.FILE}")
    clean = open_folders(args.images, channels, valid, **options)
    return found, clean, args.others and open_folders([args.others], channels, **options)


def open_halves(args):
    """The same of a random half of the images, and of the other half."""
    channels, options = parse_channels(args.channels), {"size": args.size, "fit": "resize"}
    images = open_folders(args.images, channels, **options)
    rows = np.random.default_rng(args.seed).permutation(len(images)).tolist()
    values = unlike_training.measure(images[rows[::2]], channels.names)
    others = args.others and open_folders([args.others], channels, **options)
    return unlike_training.fit(values, channels.names), images[rows[1::2]], others


def open_folders(folders, channels, ids=None, **options):
    """Open the images of these Ids, or all: -> Images."""
    scanned = scan_folders(folders)
    files = find_files(folders, sorted(scanned) if ids is None else ids, channels, scanned)
    if len(files) < 2 * unlike_training.LEAST_IMAGES:
        raise InputError(f"{listing(folders)}: {plural(len(files), 'image')} to measure; give 10 or more")
    return open_images(files, channels.names, cache=None, **options)[0]


def judge(training, clean, others, limit, seed):
    """Count the marked ones of up to `limit` evenly spaced `clean` images, of each damage to them, and of `others`.

    -> DataFrame with the columns images (what they are), count, marked, low, high (fractions, with the exact 95 % interval), auc,
    reason (the most frequent one of those marked, and its fraction of them).
    """
    rows = np.unique(np.linspace(0, len(clean) - 1, min(limit, len(clean))).astype(int)).tolist()
    sources = [clean.read(row) for row in rows]

    def judged(images):
        values = np.stack([image_statistics(image, training.channels) for image in images])
        return unlike_training.judge([training], values)

    tables = {"clean": judged(sources)}
    for name, function in damages(training.channels).items():
        rng = np.random.default_rng(seed)
        tables[name] = judged([damage(image, function, rng) for image in sources])
    if others:
        tables["others"] = judged([others.read(row) for row in range(len(others))])
    found = []
    for name, table in tables.items():
        scores, marked = table["unlike_training"], table["reason"][table["unlike_training"] > 1]
        interval = binomtest(len(marked), len(table)).proportion_ci()
        both, truth = [*tables["clean"]["unlike_training"], *scores], [0] * len(sources) + [1] * len(table)
        auc = np.nan if name == "clean" else roc_auc_score(truth, both)
        (reason, count), *_ = Counter(text.split(" (")[0] for text in marked).most_common(1) or [("", 0)]
        said = f"{reason} {count / len(marked):.0%}" if count else ""
        found.append((name, len(table), len(marked) / len(table), interval.low, interval.high, auc, said))
    return pd.DataFrame(found, columns=["images", "count", "marked", "low", "high", "auc", "reason"])


def print_table(table):
    print(f"{'images':36}{'count':>6}{'marked':>8}{'95 % interval':>17}{'AUC':>7}  most frequent reason")
    for name, count, marked, low, high, auc, reason in table.itertuples(index=False):
        auc = "" if np.isnan(auc) else f"{auc:.3f}"
        print(f"{name:36}{count:>6,}{marked:>8.1%}{f'{low:.1%}–{high:.1%}':>17}{auc:>7}  {reason}")
    print(f"{'mean of the damages':36}{'':6}{damaged(table)['marked'].mean():>8.1%}")


def damaged(table):
    """The rows of the damages."""
    return table[~table["images"].isin(["clean", "others"])]


if __name__ == "__main__":
    run_script(main)

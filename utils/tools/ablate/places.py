"""Where experiments are measured: the images that networks are trained on, and others that they are scored on."""

import argparse
from pathlib import Path
from typing import NamedTuple

from utils.data.labels import load_classes, split_fold
from utils.runs.config import DEFAULTS
from utils.tools.ablate.experiments import OWN_DATA

HEP2 = Path("input/hep2")
DRAWN = 18  # images of 128² that one core draws in a second
FILES, PACKED = 35_000, 2**16  # bytes of an image of 128² as PNGs, and packed


class Place(NamedTuple):
    """make: {file: the command (words after python) that writes it}. train, predict: options of train.py and predict.py. labels:
    a table of all images that predict.py is given. images: (trained on, validated in each epoch, scored). drawn: by
    utils.simulator, counted as images of 128². needs: a file of the user."""

    make: dict
    train: list
    predict: list
    labels: Path
    images: tuple
    drawn: int = 0
    needs: Path | None = None

    @property
    def missing(self):
        return {file: words for file, words in self.make.items() if not file.is_file()}

    @property
    def seconds(self):
        """Of one core, to draw what is missing."""
        return self.drawn / DRAWN if any("utils.simulator" in words for words in self.missing.values()) else 0

    @property
    def disk(self):
        """Bytes of what is made and of packed images."""
        return sum(self.images[::2]) * PACKED + self.drawn * FILES


def find_place(name, data, fraction, options):
    """The place of that name, or one's own data for ``fold0``. data: folder of what is made. fraction: of the images in the full
    experiments. options: of train.py, given by the user."""
    if name == OWN_DATA:
        return _own_data(options)
    return PLACES[name](data, lambda count: max(2, round(count * fraction)))


def _atlas(data, scaled, side=128):
    """Trained on 6,000 images with labels as rare as the real ones, scored on 4,000 others in which they are less rare."""
    name = "atlas" if side == 128 else f"atlas{side}"
    train, test, table = data / name, data / f"{name}_test", data / f"{name}.csv"
    rows, scored = scaled(6600), scaled(4000)
    make = {
        train / "train.csv": _draw(train, rows, side, 1, 101),
        table: _split(train, table),
        test / "train.csv": _draw(test, scored, side, 0.2, 102, "--duplicates", 0),
    }
    options = ["--folds", table, "--images", train / "train"]
    drawn = (rows + scored) * side**2 // 128**2
    return Place(make, options, ["--images", test / "train"], test / "train.csv", _parts(rows, scored), drawn)


def _external(data, scaled):
    """Trained on 1,500 images, arms also on another laboratory's 6,000, scored on 4,000 of the test set, which is darker."""
    few, dark = data / "few", data / "dark_test"
    rows, others, scored = scaled(1650), scaled(6000), scaled(4000)
    tables = data / "few.csv", data / "few_external.csv"
    always = ["--images", few / "external", "--always-train", f"external={few / 'external.csv'}"]
    make = {
        few / "external.csv": _draw(few, rows, 128, 1, 103, "--external", others),
        tables[0]: _split(few, tables[0]),
        tables[1]: _split(few, tables[1], *always),
        dark / "solution.csv": _draw(dark, 1, 128, 0.2, 104, "--duplicates", 0, "--test", scored),
    }
    train = ["--folds", tables[0], "--images", few / "train", "--images", few / "external"]
    images = _parts(rows, scored)
    return Place(make, train, ["--images", dark / "test"], dark / "solution.csv", images, rows + others + scored)


def _hep2(data, scaled):
    """Trained on 2,000 real images of the HEp-2 cells, other ones for each seed, scored on 4,000 others."""
    table, classes, limit = data / "hep2.csv", HEP2 / "classes.csv", scaled(2000)
    images = ["--images", HEP2 / "images"]
    split = ["make_folds.py", "--labels", HEP2 / "train.csv", *images, "--classes", classes, "--split", "6376:500:4000"]
    split += ["--hash-channels", "g", "--hash-distance", 0, "-o", table]
    train = ["--folds", table, *images, "--classes", classes, "--channels", "green", "--limit", limit, "--epochs", 8]
    predict = [*images, "--ids", table, "--fold", -2]
    return Place({table: split}, train, predict, table, (limit, min(500, limit), 4000), needs=HEP2 / "train.csv")


def _own_data(options):
    """Fold 0 of one's own data: trained on the other folds, scored on its rows. options: of train.py, given by the user."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--folds", type=Path, default=DEFAULTS["folds"])
    parser.add_argument("--classes", default=DEFAULTS["classes"])
    parser.add_argument("--images", action="append")
    given = parser.parse_known_args(options)[0]
    table, classes = given.folds, load_classes(given.classes)
    images = [word for folder in given.images or ["input/train"] for word in ("--images", folder)]
    train, valid = split_fold(table, classes, 0)
    return Place({}, [], [*images, "--ids", table, "--fold", 0], table, (len(train), len(valid), len(valid)))


def _draw(folder, rows, side, power, seed, *more):
    words = ["-m", "utils.simulator", "--out", folder, "--train", rows, "--test", 0, "--size", side, "--power", power]
    return [*words, "--seed", seed, *more]


def _split(folder, table, *more):
    """A tenth as many images as are trained on validate."""
    words = [
        "make_folds.py",
        "--labels",
        folder / "train.csv",
        "--images",
        folder / "train",
        "--folds",
        11,
        "-o",
        table,
    ]
    return [*words, *more]


def _parts(rows, scored):
    return rows * 10 // 11, rows // 11, scored


PLACES = {
    "atlas": _atlas,
    "atlas256": lambda data, scaled: _atlas(data, scaled, 256),
    "external": _external,
    "hep2": _hep2,
}

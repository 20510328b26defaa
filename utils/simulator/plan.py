"""Plan of a simulated atlas: the classes that each image shows, and its label, before anything is drawn."""

import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from utils.cli import check_least
from utils.data.labels import CYTO_CLASSES, HPA_TO_CYTO
from utils.errors import InputError

SPLITS = ("train", "test", "external")
LABEL, NAME, SCENE, VIEW, PROTEIN, FORM, DAMAGE = range(7)  # independent random streams of one image
# The two compartments with which annotators confuse each of the 28: they differ in number, size or place.
_MISTAKEN = """4 5, 0 6, 3 0, 2 5, 5 0, 4 3, 25 23, 24 9, 9 10, 10 8, 9 20, 14 12, 21 13, 12 21, 11 25, 14 9, 14 21, 14 19,
    19 7, 18 5, 10 26, 22 25, 21 13, 6 25, 7 26, 6 21, 9 20, 26 24"""
MISTAKEN_FOR = [tuple(map(int, pair.split())) for pair in _MISTAKEN.split(",")]


@dataclass(frozen=True)
class Settings:
    """Settings that determine an atlas. Raises InputError for values out of range.

    power: a label set's frequency is its real count to this power. duplicates: fraction of near-duplicates of a train
    image. label_noise: fraction of train and external images with a wrong label. ambiguity: 0 every labelled
    compartment is clearly visible .. 1 very unequal weights, traces of other compartments, many cells without the
    protein. form: ``kaggle`` or ``cyto``. corrupt: fraction of images with a damaged file.
    """

    train: int
    test: int
    external: int = 0
    size: int = 128
    seed: int = 0
    power: float = 1.0
    duplicates: float = 0.02
    label_noise: float = 0.0
    ambiguity: float = 0.5
    form: str = "kaggle"
    corrupt: float = 0.0

    def __post_init__(self):
        fractions = dict.fromkeys(("duplicates", "label_noise", "ambiguity", "corrupt"), (0, 1))
        check_least(self, size=(32, 2048), train=1, test=0, external=0, seed=0, power=0, **fractions)
        if self.form not in ("kaggle", "cyto"):
            raise InputError(f"--form {self.form} is unknown; choose kaggle or cyto")


@dataclass(frozen=True)
class Plan:
    """One image. shows, label: class numbers. copies: index of the train image that it nearly duplicates, or None."""

    split: str
    index: int
    id: str
    shows: tuple
    label: tuple
    copies: int | None


def random_stream(seed, split, index, purpose):
    """Return the random generator of one `purpose` in one image."""
    return np.random.default_rng((seed, SPLITS.index(split), index, purpose))


@lru_cache
def label_sets():
    """-> the real label sets (577 tuples of numbers), and their counts among the 31,072 images (577,) int64."""
    frame = pd.read_csv(Path(__file__).with_name("label_sets.csv"), dtype={"Target": str})
    return [tuple(map(int, target.split())) for target in frame["Target"]], frame["count"].to_numpy()


def plan_image(settings, split, index):
    """Return the Plan of image `index` of `split`, which settings, split and index determine."""
    rng = random_stream(settings.seed, split, index, LABEL)
    name = str(uuid.UUID(bytes=random_stream(settings.seed, split, index, NAME).bytes(16), version=4))
    copies = None
    copying = rng.random() < settings.duplicates
    earlier = index if split == "train" else settings.train
    if copying and earlier:
        original = plan_image(settings, "train", int(rng.integers(earlier)))
        shows, copies = original.shows, original.index if original.copies is None else original.copies
    else:
        sets, counts = label_sets()
        upto = np.cumsum((counts / counts.max()) ** settings.power)
        shows = sets[np.searchsorted(upto, rng.random() * upto[-1], side="right")]
    wrong = rng.random() < settings.label_noise and split != "test"
    label = _mislabelled(rng, shows, settings.form) if wrong else shows
    return Plan(split, index, name, shows, label, copies)


def _mislabelled(rng, shows, form):
    """Return a label whose written form differs from that of `shows`: a class missing, added or replaced."""
    fault = rng.choice(["other", "missing", "extra"], p=[0.5, 0.25, 0.25])
    chosen = int(rng.choice(shows))
    others = MISTAKEN_FOR[chosen] if form == "kaggle" else range(28)
    taken = [number for number in others if not written({number}, form) <= written(shows, form)]
    rest = tuple(number for number in shows if number != chosen)
    if rest and written(rest, form) != written(shows, form) and (fault == "missing" or not taken):
        return rest
    extra = int(rng.choice(taken or sorted({*range(28)} - {*shows})))
    return tuple(sorted({*shows, extra} if fault == "extra" else {*rest, extra}))


def written(classes, form):
    """Return the class numbers of a label: of the 28 classes, or in the Cyto form of the 13."""
    if form == "cyto":
        return {CYTO_CLASSES.index(HPA_TO_CYTO[number]) for number in classes}
    return set(classes)

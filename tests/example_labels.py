"""Label tables of the competition's classes, and folders laid out as the competition's."""

import shutil

import numpy as np
import pandas as pd

from utils.data.labels import HPA_CLASSES, encode
from utils.simulator.plan import label_sets

COLOURS = ["red", "green", "blue", "yellow"]
LABELS = encode(["0 25", "0", "25", "0 2 25", "27", "2 0"], HPA_CLASSES)


def real_labels():
    """The competition's label table, 31,072 rows, without its Ids."""
    sets, counts = label_sets()
    return np.repeat(encode([" ".join(map(str, one)) for one in sets], HPA_CLASSES), counts, axis=0)


def lay_out(root, atlas, ids, test=True, more=()):
    """Some samples of an atlas in the place of the competition's files, and labels of `more` that have no image."""
    for split, names in (("train", ids), ("test", sorted({path.name[:36] for path in (atlas / "test").iterdir()}))):
        (root / split).mkdir(parents=True, exist_ok=True)
        for name in names if split == "train" or test else ():
            for colour in COLOURS:
                shutil.copy(atlas / split / f"{name}_{colour}.png", root / split)
    table = pd.read_csv(atlas / "train.csv", dtype=str)
    table[table["Id"].isin([*ids, *more])].to_csv(root / "train.csv", index=False)
    return root

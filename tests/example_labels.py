"""Label tables of the competition's classes."""

import numpy as np

from utils.data.labels import HPA_CLASSES, encode
from utils.simulator.plan import label_sets

COLOURS = ["red", "green", "blue", "yellow"]
LABELS = encode(["0 25", "0", "25", "0 2 25", "27", "2 0"], HPA_CLASSES)


def real_labels():
    """The competition's label table, 31,072 rows, without its Ids."""
    sets, counts = label_sets()
    return np.repeat(encode([" ".join(map(str, one)) for one in sets], HPA_CLASSES), counts, axis=0)

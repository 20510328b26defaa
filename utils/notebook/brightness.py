"""How bright the images are, channel by channel, in train and in test."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from utils.data.images import CHANNELS, load_sample
from utils.parallel import cores

# Means of all pixels of the competition's images, grey values 0 to 1, as its competitors published them.
PUBLISHED = {
    "train": dict(zip(CHANNELS.values(), (0.0807, 0.0526, 0.0549, 0.0828), strict=True)),
    "test": dict(zip(CHANNELS.values(), (0.0591, 0.0454, 0.0407, 0.0593), strict=True)),
}


def channel_means(files):
    """Mean grey value of each channel of each sample: N tuples of paths -> (N, channels) float64 in [0, 1], (0,) of none."""

    def one(paths):
        image = load_sample(paths)
        return image.mean(axis=(0, 1), dtype=np.float64) / (255 if image.dtype == np.uint8 else 1)

    with ThreadPoolExecutor(cores()) as pool:  # decoding leaves the interpreter lock
        return np.array(list(pool.map(one, files)))


def brightness_table(means, published=None):
    """Each channel's mean over images, in train and in test, and the change in percent: {"train": (N, 4), "test": (M, 4)} -> a
    DataFrame; a part without images is left out. published: `PUBLISHED`, for columns with its numbers."""
    parts = [part for part in means if len(means[part])]
    table = pd.DataFrame({part: means[part].mean(axis=0) for part in parts}, index=list(CHANNELS.values()))
    if len(parts) == 2:
        table["change, %"] = 100 * (table["test"] / table["train"] - 1)
    for part in published or {}:
        table[f"{part}, published"] = pd.Series(published[part])
    return table

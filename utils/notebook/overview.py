"""Statistics of a data set: imbalance, co-occurrence, folds, brightness, file formats."""

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from PIL import Image

from utils.data.image_files import scan_folder
from utils.data.images import CHANNELS, UNREADABLE, image_size, load_sample
from utils.data.labels import TEST_FOLD, encode, read_folds
from utils.errors import InputError, plural
from utils.parallel import cores

# Published means of all pixels of the competition's images, grey values in [0, 1].
PUBLISHED = {
    "train": dict(zip(CHANNELS.values(), (0.0807, 0.0526, 0.0549, 0.0828), strict=True)),
    "test": dict(zip(CHANNELS.values(), (0.0591, 0.0454, 0.0407, 0.0593), strict=True)),
}
# PNG specification, table 11.1
COLOUR_TYPES = {0: "grey", 2: "colour", 3: "palette", 4: "grey with opacity", 6: "colour with opacity"}


def imbalance(counts):
    """-> largest class count / smallest nonzero one. counts: (C,) int. NaN without images."""
    some = np.asarray(counts)[np.asarray(counts) > 0]
    return float(some.max() / some.min()) if len(some) else float("nan")


def co_occurrence(labels):
    """-> (C, C): percent of the images of a class (row) with another class (column); NaN for a row without images."""
    labels = np.asarray(labels, float)
    with np.errstate(invalid="ignore"):
        return 100 * (labels.T @ labels) / labels.sum(axis=0)[:, None]


def plainest_of_each(labels, ids, seed=0):
    """For each class, find the image with the fewest other classes: (N, C) 0/1 and N ids -> [(class, id, number of
    others)], from common to rare; ties are broken at random. Classes without an image are left out."""
    labels = np.asarray(labels)
    size = labels.sum(axis=1) + np.random.default_rng(seed).random(len(labels))
    order = [number for number in np.argsort(-labels.sum(axis=0), kind="stable") if labels[:, number].any()]
    rows = [int(np.where(labels[:, number] > 0, size, np.inf).argmin()) for number in order]
    return [(int(number), ids[row], int(labels[row].sum()) - 1) for number, row in zip(order, rows, strict=True)]


def read_split(path, classes):
    """Read a folds.csv as arguments of `fold_split`: -> labels (N, C) 0/1, fold (N,) int, dealt (N,) bool, {fold:
    fraction}. If fold 0 is the only one, it is the validation part of make_folds.py --split, and the fractions are
    those of its parts."""
    table = read_folds(path, classes)
    labels, fold = encode(table["Target"], classes), table["fold"].to_numpy()
    numbers = sorted(set(fold[fold >= 0].tolist()))
    if numbers == [0]:
        parts = {part: float((fold == part).mean()) for part in (-1, 0, TEST_FOLD) if (fold == part).any()}
        return labels, fold, np.ones(len(fold), bool), parts
    return labels, fold, fold >= 0, dict.fromkeys(numbers, 1 / max(1, len(numbers)))


def fold_options(data, out, folds=5, most=5000):
    """-> options of make_folds.py that split the Data (utils.notebook.available_data) into the table `out`. It searches
    for near- duplicates only if there are at most `most` samples and all have a green and a blue channel."""
    options = ["--labels", data.folder / "train.csv", "--folds", folds, "--seed", 0, "-o", out]
    found = scan_folder(data.folder / "train")
    complete = all({"green", "blue"} <= set(found.get(id_, ())) for id_ in data.labels["Id"])
    if len(data.labels) > most or not complete:
        return [*options, "--hash-distance", -1]
    return [*options, "--images", data.folder / "train", "--allow-unlabelled"]


def channel_means(files):
    """Average each channel of each sample: N tuples of paths -> (N, channels) float64 in [0, 1]; (0,) if N is 0."""

    def read_means(paths):
        image = load_sample(paths)
        return image.mean(axis=(0, 1), dtype=np.float64) / (255 if image.dtype == np.uint8 else 1)

    with ThreadPoolExecutor(cores()) as pool:  # decoding releases the GIL
        return np.array(list(pool.map(read_means, files)))


def brightness_table(means, published=None):
    """Average each channel over images: {"train": (N, 4), "test": (M, 4)} -> DataFrame with the means and their change
    in percent; a part without images is left out. published: `PUBLISHED`, to add its columns."""
    parts = [part for part in means if len(means[part])]
    table = pd.DataFrame({part: means[part].mean(axis=0) for part in parts}, index=list(CHANNELS.values()))
    if len(parts) == 2:
        table["change, %"] = 100 * (table["test"] / table["train"] - 1)
    return table.assign(**{f"{part}, published": pd.Series(values) for part, values in (published or {}).items()})


def file_formats(files):
    """Count files by the size, depth and format in their headers: N tuples of paths -> DataFrame width, height
    (pixels), depth (str), ending, files, the most common first."""
    rows = [(*image_size(path)[::-1], depth(path), path.suffix[1:].lower()) for paths in files for path in paths]
    table = pd.DataFrame(rows, columns=["width", "height", "depth", "ending"])
    return table.value_counts().rename("files").reset_index()


def depth(path):
    """Read the header of a PNG, JPEG or TIFF: -> "8-bit grey" or similar. Raises InputError for other files."""
    with open(path, "rb") as file:
        head = file.read(26)
    if head.startswith(b"\x89PNG") and len(head) == 26:
        bits, colour = struct.unpack(">BB", head[24:])
        return f"{bits}-bit {COLOUR_TYPES.get(colour, 'of unknown colour')}"
    try:
        with Image.open(path, formats=("JPEG", "TIFF")) as image:
            bits = image.tag_v2.get(258, (1,))[0] if image.format == "TIFF" else 8  # tag 258: BitsPerSample
            return f"{bits}-bit {'colour' if len(image.getbands()) > 2 else 'grey'}"
    except UNREADABLE:
        raise InputError(f"{path} is not a readable PNG, JPEG or TIFF image; fetch it again") from None


def describe_formats(formats):
    """Describe the result of `file_formats`: its only format, or the number of formats."""
    total = plural(int(formats["files"].sum()), "file")
    if len(formats) == 1:
        one = formats.iloc[0]
        return f"all {total} examined are {one['width']} x {one['height']} pixels, {one['depth']}, {one['ending']}"
    sizes = plural(len(formats.drop_duplicates(["width", "height"])), "size")
    depths = plural(formats["depth"].nunique(), "depth")
    return f"{total} examined have {plural(len(formats), 'format')}: {sizes}, {depths}"

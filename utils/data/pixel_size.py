"""Pixel sizes in micrometres (µm): images rescaled so that a network sees cells as large as those that it was trained on."""

from pathlib import Path

import numpy as np

from utils.data.cache import Images
from utils.data.image_files import check_files
from utils.data.images import MOST_SIDE, load_sample
from utils.data.labels import CLASS_LISTS
from utils.data.tables import read_table
from utils.errors import InputError, listing, plural
from utils.files import nfc

COLUMN = "pixel_size"  # of a table of images
LEAST, MOST = 0.005, 50  # µm
HPA_FIELD = 2048 * 0.08  # µm, the height and width of the Human Protein Atlas' images (Ouyang et al. 2019, methods)
SAME = 0.05  # a side that is this fraction off a multiple of the network's input becomes the multiple


def check_pixel_size(option, value):
    """Raise InputError unless an option's value is a pixel size in µm, or 0."""
    if value and not LEAST <= value <= MOST:
        raise InputError(f"{option} {value:g} is out of range; give {LEAST} to {MOST} micrometres, or 0")


def of_input(pixel_size, sizes, size, fit):
    """The pixel size of a network's input of size², trained on images of this pixel size and `sizes` (N, 2); with `crop`
    that of the images, else of the whole image, of the median side, resized to `size`."""
    return float(pixel_size if fit == "crop" else pixel_size * np.median(np.sqrt(sizes.prod(axis=1))) / size)


def read_pixel_sizes(tables, ids):
    """The column `pixel_size` of tables of images for each of `ids`: (N,) float in µm, NaN where none of the paths in
    `tables` is a table with a value. Raise InputError for values that are no pixel size."""
    found = {}
    for path in filter(lambda path: Path(path).is_file(), tables):
        table = read_table(path, ["Id"], "a table of images")
        for row, (id_, text) in enumerate(zip(table["Id"], table.get(COLUMN, []), strict=False), 2):
            try:
                found[nfc(id_)] = float(text) if text.strip() else np.nan
            except ValueError:
                found[nfc(id_)] = -1
            if not (np.isnan(found[nfc(id_)]) or LEAST <= found[nfc(id_)] <= MOST):
                what = f"{path}, row {row}: {COLUMN} {text[:40]!r} is not in micrometres, {LEAST} to {MOST}"
                raise InputError(f"{what}; fix it, or empty the cell")
    return np.array([found.get(nfc(id_), np.nan) for id_ in ids])


def find_scales(given, tables, ids, config, run):
    """How many times larger each image must be for the cells to be as large as in training: (N,), or None to rescale none.

    given: the pixel size of all images in µm, 0: do not rescale; None: as `read_pixel_sizes` finds them in `tables`. config: the
    RunConfig of the networks, whose `input_pixel_size` may be None; run: its name in messages. Raise InputError if the pixel
    size of some images or, if it is asked for, of the network is not known.
    """
    own = read_pixel_sizes(tables, ids) if given is None else np.full(len(ids), given or np.nan)
    if (unknown := np.isnan(own)).all():
        return None
    if unknown.any():
        lacking = [id_ for id_, each in zip(ids, unknown, strict=True) if each]
        what = f"{plural(len(lacking), 'Id')} of {len(ids):,} without a {COLUMN}: {listing(lacking)}"
        raise InputError(f"{what}; fill in the column, or give --pixel-size for all images, or 0 to rescale none")
    seen, source = config.input_pixel_size, ""
    if not seen and config.fit != "crop" and config.class_names in map(list, CLASS_LISTS.values()):
        seen, source = HPA_FIELD / config.size, ", if trained on the Atlas's"
    if not seen:
        raise InputError(f"{run} does not record its pixel size; train with --pixel-size, or give --pixel-size 0")
    scales = own / seen
    network = f"the network sees {seen * config.size:.4g} µm at {seen:.3g} µm a pixel{source}"
    print(f"images of {_span(own)} µm a pixel, rescaled {_span(scales)} times: {network}")
    return scales


def _span(values):
    """``0.5`` or ``0.5 to 2``"""
    return " to ".join(dict.fromkeys(f"{each:.3g}" for each in (values.min(), values.max())))


def open_rescaled(files, config, scales):
    """Check files and rescale their images for networks of this RunConfig: -> RescaledImages, sizes (N, 2) with borders."""
    shapes = rescaled_shapes(check_files(files), scales, config.size)
    return RescaledImages(files, config.size, shapes, config.bits), np.maximum(shapes, config.size)


def rescaled_shapes(sizes, scales, size):
    """The (N, 2) heights and widths of images of `sizes` (N, 2) that are enlarged `scales` (N,) times for a network of
    size² input: rounded, to a multiple of `size` if they are almost one."""
    shapes = sizes * scales[:, None]
    multiples = np.maximum(1, np.round(shapes / size)) * size
    shapes = np.where(np.abs(shapes / multiples - 1) <= SAME, multiples, shapes)
    return np.maximum(1, np.round(shapes)).astype(int)


class RescaledImages(Images):
    """Samples of any pixel size, each resized to its own of `shapes` (N, 2) and, where that is less than size², mirrored at its
    borders: black borders cost more than no rescaling."""

    def __init__(self, files, size, shapes, bits=0):
        super().__init__(files, size, bits=bits)
        self.shapes = shapes
        if len(large := np.flatnonzero(shapes.max(axis=1) > MOST_SIDE)):
            height, width = shapes[large[0]]
            what = f"{plural(len(large), 'image')} would be enlarged to more than {MOST_SIDE} pixels"
            raise InputError(f"{what}, {files[large[0]][0]} to {width}x{height}; check the pixel size")

    def __getitem__(self, rows):
        return RescaledImages([self.files[row] for row in rows], self.size, self.shapes[rows], self.bits)

    def shape(self, row):
        return tuple(np.maximum(self.shapes[row], self.size).tolist())

    def read(self, row):
        image = load_sample(self.files[row], bits=self.bits, shape=self.shapes[row].tolist())
        borders = [(before, whole - inner - before) for before, whole, inner in self._borders(row, image.shape)]
        return np.pad(image, [*borders, (0, 0)], mode="symmetric") if any(map(any, borders)) else image

    def inside(self, whole, row):
        """The part of (H, W, …), as large as what `read` returns, that shows the image: a view."""
        height, width = self.shapes[row]
        (y, *_), (x, *_) = self._borders(row, (height, width))
        return whole[y : y + height, x : x + width]

    def _borders(self, row, shape):
        """Return (pixels before, whole, inner) of height and width."""
        return [((whole - inner) // 2, whole, inner) for whole, inner in zip(self.shape(row), shape)]

"""Masks as runs of pixels, and as the text of the single-cell competition of 2021: base64 of zlib of COCO's run-length code.

The runs of a mask are an ascending (2n,) int64 array: where each of n runs of its pixels starts, and the place after its
end. Places count the image's pixels column by column, down from the top left corner, as COCO does.

COCO's code (github.com/cocodataset/cocoapi, common/maskApi.c) has the lengths of runs, the first outside the mask and
perhaps 0. From the fourth on a length is stored as its difference to the one before the last. A number is stored in groups
of five bits, the lowest first, a sixth bit for "more follow"; each group is one character, 48 added. The sign is that of
the highest bit stored.
"""

import base64
import zlib

import numpy as np
from scipy.ndimage import find_objects

from utils.errors import InputError

NOT_COCO = "the mask is not in COCO's run-length code"


def runs_of_cells(labels):
    """-> {cell: its runs}, of each cell in a label image (H, W) of integers, 0 for none; ascending."""
    boxes = enumerate(find_objects(labels), start=1)
    height = len(labels)
    return {cell: _runs_in_box(labels[box] == cell, box, height) for cell, box in boxes if box is not None}


def _runs_in_box(inside, box, height):
    """Runs of a mask that is given in its box, two slices of an image of that height."""
    columns = np.zeros((inside.shape[1], inside.shape[0] + 2), bool)
    columns[:, 1:-1] = inside.T
    column, row = np.nonzero(columns[:, 1:] != columns[:, :-1])
    places = (column + box[1].start) * height + row + box[0].start
    joined = np.flatnonzero(places[1:-1:2] == places[2::2])  # a run over the lower border goes on in the next column
    return np.delete(places, np.concatenate([2 * joined + 1, 2 * joined + 2]))


def encode_runs(runs, pixels):
    """Runs of a mask in an image of that many pixels -> str."""
    lengths = np.diff(runs, prepend=0, append=pixels)
    if len(lengths) > 1 and lengths[-1] == 0:
        lengths = lengths[:-1]
    rest, more = lengths.copy(), np.ones(len(lengths), bool)
    rest[3:] -= lengths[1:-2]
    groups = []
    while more.any():
        bits, rest = rest & 31, rest >> 5
        follow = np.where(bits & 16, rest != -1, rest != 0)
        groups.append(np.where(more, 48 + bits + 32 * follow, 0))
        more &= follow
    codes = np.column_stack(groups).astype(np.uint8)
    return base64.b64encode(zlib.compress(codes[codes > 0].tobytes(), zlib.Z_BEST_COMPRESSION)).decode()


def decode_runs(text, pixels):
    """Invert `encode_runs`. Raise InputError unless the text is the mask of an image of that many pixels; the message says
    why, not where."""
    try:
        unpacker = zlib.decompressobj()
        codes = unpacker.decompress(base64.b64decode(text, validate=True), 7 * (pixels + 1))
    except (ValueError, zlib.error):
        raise InputError("the mask is not base64 of a zlib stream") from None
    codes = np.frombuffer(codes, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes < 32)  # of each number
    if not unpacker.eof or not len(last) or last[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() > 63:
        raise InputError(NOT_COCO)
    first = np.append(0, last[:-1] + 1)
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    if place.max() > 6:  # more than 31 bits
        raise InputError(NOT_COCO)
    lengths = np.add.reduceat((codes & 31) << 5 * place, first)
    lengths -= np.where(codes[last] & 16, 32 << 5 * place[last], 0)
    for parity in (1, 2):
        lengths[parity::2] = np.cumsum(lengths[parity::2])
    places = np.cumsum(lengths)
    if lengths.min() < 0:
        raise InputError(NOT_COCO)
    if places[-1] != pixels:
        raise InputError(f"the mask is that of an image of {places[-1]:,} pixels, not {pixels:,}")
    return places[: len(places) // 2 * 2]


def iou_of_runs(first, second):
    """Intersection over union of each mask of a list with each of another: two lists of runs -> (A, B) float64. Masks of a list
    may overlap; two empty ones have 0."""
    owner = np.repeat(np.arange(len(first)), [len(runs) // 2 for runs in first])
    starts, ends = (np.concatenate([runs[side::2] for runs in first] or [[]]) for side in (0, 1))
    common = np.zeros((len(first), len(second)))
    for column, runs in enumerate(second):
        if len(runs):
            covered = np.zeros(len(runs))  # how many pixels of the mask lie before each place, linear in between
            covered[1::2] = np.cumsum(runs[1::2] - runs[::2])
            covered[2::2] = covered[1:-1:2]
            inside = np.interp(ends, runs, covered) - np.interp(starts, runs, covered)
            common[:, column] = np.bincount(owner, inside, minlength=len(first))
    areas = [np.array([(runs[1::2] - runs[::2]).sum() for runs in masks]) for masks in (first, second)]
    return common / np.maximum(areas[0][:, None] + areas[1] - common, 1)

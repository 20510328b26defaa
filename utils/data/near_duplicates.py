"""Near-duplicate images by perceptual hash, so that near-duplicates never lie on both sides of a split."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from utils.data.images import read_plane
from utils.opencv import cv2
from utils.parallel import cores

BITS = 64  # a channel


def perceptual_hash(plane):
    """64 bits of a picture's coarse structure: (H, W) of any dtype -> (64,) bool.

    The picture shrunk to 32², its 8 x 8 lowest frequencies but the constant (discrete cosine transform), each compared
    with their median: unmoved by brightness, contrast, noise and compression (Zauner 2010, "pHash").
    """
    small = cv2.resize(plane.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:9, :9].ravel()[1 : BITS + 1]
    return low > np.median(low)


def hash_samples(files, progress="hashing images"):
    """Hashes of samples: list of N tuples of paths -> (N, 64 x channels) bool. Reads on all cores."""

    def one(paths):
        return np.concatenate([perceptual_hash(read_plane(path)) for path in paths])

    with ThreadPoolExecutor(cores()) as pool:  # decoding and resizing leave the interpreter lock
        return np.stack(list(tqdm(pool.map(one, files), desc=progress, total=len(files), unit="img", disable=None)))


def close_pairs(hashes, distance, block=512):
    """All pairs of rows that differ in at most `distance` bits: (N, B) bool -> first, second, bits: three (P,) int.

    As signs ±1 two rows' product is B − 2 x (bits that differ), so matrix products give all distances exactly.
    """
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    length, found = signs.shape[1], []
    for start in tqdm(range(0, len(signs), block), desc="comparing hashes", disable=None, leave=False):
        product = signs[start : start + block] @ signs[start:].T
        first, second = np.nonzero(product >= length - 2 * distance)
        keep = second > first  # each pair once, and no row with itself
        first, second = first[keep], second[keep]
        bits = (length - product[first, second]) / 2
        found.append(np.stack([first + start, second + start, bits.astype(int)]))
    return np.concatenate(found, axis=1) if found else np.empty((3, 0), int)


def groups_from_pairs(count, first, second):
    """Number the connected groups of `count` rows: -> (count,) int; rows without a twin are alone in theirs."""
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]

"""Near-duplicate images: perceptual hashes, pairs, groups, averaged predictions and leaked labels."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from utils.data.images import read_plane
from utils.data.labels import encode, read_labels
from utils.data.tables import as_number, read_table
from utils.errors import InputError, plural
from utils.opencv import cv2
from utils.parallel import cores

BITS = 64  # per channel


def perceptual_hash(plane):
    """Hash an image's coarse structure: (H, W) of any dtype -> (64,) bool.

    The image is shrunk to 32², and the 64 lowest frequencies of its discrete cosine transform except the constant are
    compared with their median: robust to brightness, contrast, noise and compression (Zauner 2010, "pHash").
    """
    small = cv2.resize(plane.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:9, :9].ravel()[1 : BITS + 1]
    return low > np.median(low)


def hash_samples(files, progress="hashing images"):
    """Hash samples on all cores: list of N tuples of paths -> (N, 64 x channels) bool."""

    def hash_sample(paths):
        return np.concatenate([perceptual_hash(read_plane(path)) for path in paths])

    with ThreadPoolExecutor(cores()) as pool:  # decoding and resizing release the interpreter lock
        hashes = pool.map(hash_sample, files)
        return np.stack(list(tqdm(hashes, desc=progress, total=len(files), unit="img", disable=None)))


def close_pairs(hashes, distance, block=512):
    """Find all pairs of rows that differ in at most `distance` bits: (N, B) bool -> first, second, bits: (3, P) int.

    With bits as ±1, the product of two rows is B − 2 x (bits that differ): matrix products give exact distances.
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


def nearest(hashes, known, own, block=512):
    """Find each row's nearest row of `known`: (N, B), (K, B) bool, (N,) int -> row of `known`, bits that differ: (N,) int.

    own: the row of `known` that is the same image and does not count, −1 if there is none. K > 1.
    """
    signs, known = (np.where(part, np.float32(1), np.float32(-1)) for part in (hashes, known))
    places, products = np.empty(len(signs), int), np.empty(len(signs))
    for start in tqdm(range(0, len(signs), block), desc="comparing hashes", disable=None, leave=False):
        product = signs[start : start + block] @ known.T
        same = np.flatnonzero(own[start : start + block] >= 0)
        product[same, own[start + same]] = -np.inf
        places[start : start + block] = product.argmax(axis=1)
        products[start : start + block] = product.max(axis=1)
    return places, ((signs.shape[1] - products) / 2).astype(int)


def groups_from_pairs(count, first, second):
    """Number the connected components of `count` rows: -> (count,) int. A row in no pair is its own group."""
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def read_pairs(path, ids):
    """Read pairs of near-duplicates: -> DataFrame Id, twin (str), bits (float), nearest first. Raise InputError if no
    pair has an image among `ids`."""
    table = read_table(path, ["Id", "twin", "bits"], what="a list of near-duplicates", least=0)[["Id", "twin", "bits"]]
    bits = [as_number(text) for text in table["bits"]]
    for row, (own, other, number) in enumerate(zip(table["Id"], table["twin"], bits, strict=True), start=2):
        if not own or not other or own == other or number is None or not 0 <= number < math.inf:
            wanted = "two different Ids and the number of bits that differ"
            raise InputError(f"{path}: row {row} ({own!r}, {other!r}) should be {wanted}")
    if len(table) and not (table["Id"].isin(ids) | table["twin"].isin(ids)).any():
        fix = "look for near-duplicates among the test images too"
        raise InputError(f"{path} has no pair with a predicted image; {fix}")
    return table.assign(bits=bits).sort_values("bits", kind="stable").reset_index(drop=True)


def read_known_labels(path, classes):
    """Read a label table: -> {Id: (C,) uint8 of 0 and 1}."""
    table = read_labels(path, classes)
    return dict(zip(table["Id"], encode(table["Target"], classes), strict=True))


def average_scores(ids, scores, pairs):
    """Replace the scores (N, C) of each group of near-duplicates by their mean. A chain of pairs makes a group, also
    through images that are not among `ids`."""
    names = {name: number for number, name in enumerate(dict.fromkeys([*ids, *pairs["Id"], *pairs["twin"]]))}
    first, second = ([names[name] for name in pairs[column]] for column in ("Id", "twin"))
    group = groups_from_pairs(len(names), first, second)[: len(ids)]
    counts = np.bincount(group)
    sums = np.zeros((len(counts), scores.shape[1]))
    np.add.at(sums, group, scores)
    together = counts[group] > 1
    groups = plural(int((counts > 1).sum()), "group")
    print(f"near-duplicates: {plural(int(together.sum()), 'row')} in {groups} averaged")
    return np.where(together[:, None], sums[group] / counts[group, None], scores)


def carry_over_labels(ids, decisions, pairs, known):
    """Replace each image's decisions by the labels of its nearest near-duplicate with known labels, if any: -> (N, C),
    (N,) bool of the images replaced. pairs: of `read_pairs`; known: {Id: labels (C,), perhaps all 0}."""
    place = {name: number for number, name in enumerate(ids)}
    decisions, done = decisions.copy(), set()
    for pair in zip(pairs["Id"], pairs["twin"], strict=True):  # the nearest first
        for own, other in (pair, pair[::-1]):
            if own in place and own not in done and own not in known and other in known:
                decisions[place[own]] = known[other]
                done.add(own)
    print(f"label leak: {plural(len(done), 'row')} got the labels of a near-duplicate")
    return decisions, np.array([name in done for name in ids])

"""Near-duplicate pictures by perceptual hash, so that twins never stand on both
sides of a split.

    python -m utils.duplicates --images input/train --images input/test \\
        -o input/twins.csv

lists the pairs in these folders, Id,twin,bits, for ensemble.py --twins.
make_folds.py looks for those of the training set by itself.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from utils import cores
from utils.errors import InputError, plural, run_script
from utils.files import check_outputs, write_csv
from utils.images import check_files, find_files, parse_channels, read_plane, scan_folders

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


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.duplicates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg = parser.add_argument
    arg("--images", action="append", required=True, metavar="FOLDER", help="folder of images, may be repeated")
    arg("--hash-channels", default="gb", help="channels compared (default: %(default)s)")
    arg(
        "--hash-distance",
        type=int,
        default=14,
        metavar="BITS",
        help="bits of 64 a channel that may differ on average (default: %(default)s)",
    )
    arg("-o", "--out", required=True, metavar="CSV", help="where to write the pairs")
    return parser.parse_args()


def main():
    args = parse_args()
    if not 0 <= args.hash_distance < BITS // 2:
        raise InputError(f"--hash-distance {args.hash_distance} is out of range; give 0 to {BITS // 2 - 1}")
    channels = parse_channels(args.hash_channels)
    found = scan_folders(args.images)
    ids = sorted(found)
    if not ids:
        raise InputError(f"no <Id>_<colour>.png files in {', '.join(args.images)}; name the folder with --images")
    files = find_files(args.images, ids, channels, found)
    check_outputs([args.out], [path for paths in files for path in paths])
    check_files(files)
    first, second, bits = close_pairs(hash_samples(files), args.hash_distance * len(channels.names))
    names = np.array(ids, object)
    write_csv(args.out, pd.DataFrame({"Id": names[first], "twin": names[second], "bits": bits}))
    print(f"{plural(len(first), 'pair')} of near-duplicates among {plural(len(ids), 'image')}\n-> {args.out}")


if __name__ == "__main__":
    run_script(main)

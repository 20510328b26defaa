"""Near-duplicate images by perceptual hash, so that they never lie on both
sides of a split.

    python -m utils.tools.find_duplicates --images input/train \\
        --images input/test -o input/near_duplicates.csv

lists the pairs in these folders, Id,twin,bits, for
ensemble.py --near-duplicates.
make_folds.py looks for those of the training set by itself.
"""

import numpy as np
import pandas as pd

from utils.cli import check_least, option_parser, run_script
from utils.data.image_files import check_files, find_files, scan_folders
from utils.data.images import parse_channels
from utils.data.near_duplicates import BITS, close_pairs, hash_samples
from utils.errors import InputError, plural
from utils.files import check_outputs, write_csv


def parse_args():
    parser = option_parser(__doc__, "utils.tools.find_duplicates")
    arg = parser.add_argument
    distance = f"bits of {BITS} per channel in which near-duplicates differ at most, on average (default: %(default)s)"
    arg("--images", action="append", required=True, help="folder of images or images.csv, may be repeated")
    arg("--hash-channels", default="gb", help="channels compared (default: %(default)s)")
    arg("--hash-distance", type=int, default=14, metavar="BITS", help=distance)
    arg("-o", "--out", required=True, metavar="CSV", help="where to write the pairs")
    return parser.parse_args()


def main():
    args = parse_args()
    check_least(args, hash_distance=(0, BITS // 2 - 1))
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

"""Fetch version 18 of the Human Protein Atlas: more images than the
competition's, which serve to train on or as a test set.

    python -m utils.kaggle.hpav18 --limit 100        # a trial
    python -m utils.kaggle.hpav18                    # all
    python -m utils.kaggle.hpav18 --labels FILE.csv --to input/hpav18

The labels are the table Id,Target that competitors shared on Kaggle
(discussion 69984): 71,437 samples with certain labels. Another one,
…/432870/10816/HPAv18RBGY_wodpl.csv, has uncertain labels as well. An Id such
as 10580_1610_C1_1 has its four channels at
https://v18.proteinatlas.org/images/10580/1610_C1_1_red.jpg and so on, each in
its colour. They are turned to grey, resized and written to
<to>/<Id>_<colour>.png; <to>.csv lists the complete samples, and
<to>_missing.csv those with an image that is missing or damaged, and why.
Interrupted in any way, the same command goes on; it tries missing images
again.
"""

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.cli import check_least, option_parser, run_script
from utils.data.images import CHANNELS, LEAST_SIDE, MOST_SIDE, decode_plane, image_size, resize, size_of
from utils.data.labels import load_classes, read_labels
from utils.errors import InputError, data_size, listing, plural
from utils.files import check_outputs, destination, whole_file, write_csv
from utils.kaggle.download import NotFetched, check_url, download
from utils.kaggle.fetch import check_room
from utils.opencv import cv2
from utils.parallel import in_order

LABELS = (
    "https://storage.googleapis.com/kaggle-forum-message-attachments/430860/10774/HPAv18RGBY_WithoutUncertain_wodpl.csv"
)
IMAGES = "https://v18.proteinatlas.org/images"
MOST_LABELS, MOST_IMAGE = 2**26, 2**26  # bytes
JPEG_BYTES = 0.4e6  # an image, estimated: 2048² of the competition as JPEG of qualities 75 to 90, in colour
PNG_BYTES = 0.43  # a pixel: the competition's PNGs of 512²
FULL_SIDE = 2048  # pixels of most images
JPEG = b"\xff\xd8\xff"
GIVE_UP = 32  # samples in a row that fail: an antibody that was withdrawn has at most 16


def main():
    args = parse_args()
    check_least(args, size=(0, MOST_SIDE), limit=0, threads=(1, 32))
    if 0 < args.size < LEAST_SIDE:
        raise InputError(f"--size {args.size} is too small; give {LEAST_SIDE} or more, or 0 to keep the images' size")
    check_url("--labels-url", args.labels_url)
    check_url("--images-url", args.images_url)
    folder = destination(Path(args.to), folder=True)
    out, missing = Path(f"{Path(args.to)}.csv"), Path(f"{Path(args.to)}_missing.csv")
    labels = Path(args.labels) if args.labels else folder / "labels.csv"
    check_outputs([out, missing], [labels])
    folder.mkdir(parents=True, exist_ok=True)

    rows = choose_rows(read_rows(labels, args), args.limit)
    todo = find_missing_images(folder, rows["Id"], args.size)
    announce(folder, rows, todo, args)
    failed = fetch_all(todo, folder, args)

    complete = rows[~rows["Id"].isin(set(failed))]
    if not len(complete):
        raise InputError(f"no sample is complete, the first because: {next(iter(failed.values()))}")
    if failed:
        write_csv(missing, pd.DataFrame({"Id": list(failed), "why": list(failed.values())}, dtype=object))
    else:
        missing.unlink(missing_ok=True)  # that of an earlier call
    write_csv(out, complete)
    print(f"{out}: {len(complete):,} of {plural(len(rows), 'sample')} with all four images in {args.to}")
    if failed:
        lack = plural(len(failed), "sample lacks", "samples lack")
        print(f"{lack} an image, {missing} says why; the same command tries again")


def parse_args():
    parser = option_parser(__doc__, "utils.kaggle.hpav18")
    arg = parser.add_argument
    arg("--to", default="input/hpav18", metavar="FOLDER", help="folder of the images (default: %(default)s)")
    arg("--labels", metavar="CSV", help="table Id,Target (if not given: fetched to labels.csv in the folder)")
    side = "pixels of the square images written; 0: as they come (default: %(default)s)"
    arg("--size", type=int, default=512, metavar="N", help=side)
    limit = "only N samples, chosen at random, always the same; 0: all (default: %(default)s)"
    arg("--limit", type=int, default=0, metavar="N", help=limit)
    arg("--threads", type=int, default=4, metavar="N", help="downloads at the same time (default: %(default)s)")
    arg("--labels-url", default=LABELS, metavar="URL", help="from where labels are fetched")
    arg("--images-url", default=IMAGES, metavar="URL", help="from where images are fetched (default: %(default)s)")
    return parser.parse_args()


def read_rows(path, args):
    """Read the labels, fetched if they are not there: -> DataFrame Id, Target."""
    fix = "" if args.labels else f"; delete it to fetch it again from {args.labels_url}, or name another with --labels"
    if not args.labels and not path.is_file():
        try:
            content = download(args.labels_url, MOST_LABELS, threading.Event())
        except NotFetched as error:
            raise InputError(f"the labels cannot be fetched ({error}); name a table Id,Target with --labels") from None
        with whole_file(path, "wb") as file:
            file.write(content)
    try:
        rows = read_labels(path, load_classes("hpa"))[["Id", "Target"]]
    except InputError as error:
        raise InputError(f"{error}{fix}") from None
    if bad := [f"row {row + 2} ({id_})" for row, id_ in rows["Id"].items() if not all(id_.partition("_"))]:
        what = f"{plural(len(bad), 'Id')} not of the form <antibody>_<image>, such as 10580_1610_C1_1"
        raise InputError(f"{path}: {what}: {listing(bad)}{fix or '; fix them'}")
    return rows


def choose_rows(rows, limit):
    """`limit` rows at random, in their order; a smaller limit is a subset of a larger one. 0: all."""
    order = np.random.default_rng(0).permutation(len(rows))
    return rows.iloc[np.sort(order[: limit or len(rows)])]


def find_missing_images(folder, ids, size):
    """-> {Id: [colours to fetch]} of the samples that lack an undamaged image. Raises InputError for one of another
    size."""
    names, todo = set(os.listdir(folder)), {}
    for id_ in tqdm(ids, desc="checking images", unit="sample", disable=None, leave=False):
        lacking = [colour for colour in CHANNELS.values() if not _is_there(folder, f"{id_}_{colour}.png", names, size)]
        if lacking:
            todo[id_] = lacking
    return todo


def _is_there(folder, name, names, size):
    if name not in names:
        return False
    try:
        height, width = image_size(folder / name)
    except InputError:  # damaged
        return False
    if size and (height, width) != (size, size):
        raise InputError(f"{folder / name} has {width}x{height} pixels, not --size {size}; give another --to or --size")
    return True


def announce(folder, rows, todo, args):
    """Print what will be fetched. Raises InputError if the disk is too small for it."""
    images = sum(map(len, todo.values()))
    print(f"{args.to}: {plural(len(rows), 'sample')}, {len(rows) - len(todo):,} of them complete")
    if not images:
        return
    form, side = (f"{args.size}x{args.size}", args.size) if args.size else ("their own size", FULL_SIDE)
    room = PNG_BYTES * side**2 * images
    print(
        f"{plural(images, 'image')} to fetch from {args.images_url}, roughly {data_size(JPEG_BYTES * images)}, "
        f"{data_size(room)} on disk at {form}; Ctrl+C stops, the same command goes on"
    )
    check_room(folder, f"{args.to} with {plural(images, 'image')} more", room)


def fetch_all(todo, folder, args):
    """Fetch images in parallel: -> {Id: why} of the samples that lack one. todo: as `find_missing_images`."""
    stop, failed, in_a_row, fetched = threading.Event(), {}, 0, 0
    bar = tqdm(total=len(todo), unit="sample", disable=None)
    with ThreadPoolExecutor(args.threads) as pool, bar:

        def submit(item):
            return pool.submit(fetch_sample, *item, folder, args.images_url, args.size, stop)

        try:
            for id_, future in zip(todo, in_order(submit, todo.items(), ahead=16 * args.threads)):
                try:
                    fetched += future.result()
                    in_a_row = 0
                except NotFetched as error:
                    failed[id_] = str(error)
                    in_a_row += 1
                if in_a_row == GIVE_UP:
                    what = f"{GIVE_UP} samples in a row cannot be fetched, the last because: {failed[id_]}"
                    raise InputError(f"{what}; check the address and the labels; the same command goes on")
                bar.set_postfix_str(data_size(fetched), refresh=False)
                bar.update()
        except BaseException:  # Ctrl+C as well
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def fetch_sample(id_, colours, folder, url, size, stop):
    """Fetch the images of one sample: -> bytes. Raises NotFetched for the first that is missing or damaged."""
    antibody, _, image = id_.partition("_")
    fetched = 0
    for colour in colours:
        address = f"{url.rstrip('/')}/{quote(antibody)}/{quote(image)}_{colour}.jpg"
        data = download(address, MOST_IMAGE, stop)
        plane = read_jpeg(address, data)
        plane = resize(plane, size, size) if size else plane
        with whole_file(folder / f"{id_}_{colour}.png", "wb") as file:
            file.write(cv2.imencode(".png", plane)[1].tobytes())
        fetched += len(data)
    return fetched


def read_jpeg(address, data):
    """Decode a channel: bytes -> (H, W) uint8. Raises NotFetched for anything but a whole JPEG of one channel."""
    if not data.startswith(JPEG):
        raise NotFetched(f"{address} is not a JPEG but begins with {data[:20]!r}")
    try:
        size_of(address, io.BytesIO(data), len(data))  # decoding alone does not notice that the end is missing
        return decode_plane(address, np.frombuffer(data, np.uint8))
    except InputError as error:
        raise NotFetched(str(error)) from None


if __name__ == "__main__":
    run_script(main)

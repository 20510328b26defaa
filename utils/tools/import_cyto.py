"""Convert the Cyto Challenge 2017 from the form in which the authors of
GapNet-PL publish it: a folder of .npz samples and lists of labels.

    python -m utils.tools.import_cyto npzs --labels labels_train.txt \\
        --labels labels_val.txt --to input/cyto

writes input/cyto/train/<Id>_<colour>.png and input/cyto/train.csv, which lists
the samples that can be used; train_dropped.csv lists the others, and why: no
file, a damaged one, another form, a channel with one value everywhere.
Interrupted, the same command goes on. Then

    python make_folds.py --labels input/cyto/train.csv \\
        --images input/cyto/train --classes cyto --split 8:1:1 \\
        -o input/cyto/split.csv
    python train.py --recipe gapnet_pl --classes cyto --fold 0 \\
        --folds input/cyto/split.csv --images input/cyto/train

The form is that which their code reads (github.com/ml-jku/gapnet-pl,
pytorch_models/datasets.py and configs/): <Id>.npz holds the array "sample",
(height, width, 4) uint8; a line of a list is an Id and the names of its
classes, with ", " between. Their code does not name the channels; their
published weights take blue, green, red, yellow, in this order.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.cli import option_parser, run_script
from utils.data.images import CHANNELS, LEAST_SIDE, image_size, parse_channels
from utils.data.labels import CYTO_CLASSES
from utils.errors import InputError, data_size, listing, plural
from utils.files import check_outputs, is_stem, nfc, whole_file, write_csv
from utils.opencv import MOST_PIXELS, cv2
from utils.parallel import cores, in_order
from utils.safe_load import file_size, read_npz

MOST_LIST = 2**26  # bytes of a list of labels


def main():
    parser = option_parser(__doc__, "utils.tools.import_cyto")
    arg = parser.add_argument
    arg("samples", metavar="FOLDER", help="folder of <Id>.npz files")
    arg("--labels", action="append", required=True, metavar="TXT", help="list of labels, may be repeated")
    arg("--channels", default="bgry", help="order of the channels in a sample (default: %(default)s)")
    arg("--to", default="input/cyto", metavar="FOLDER", help="folder to write to (default: %(default)s)")
    args = parser.parse_args()
    colours = parse_channels(args.channels).names
    if set(colours) != set(CHANNELS.values()) or len(args.channels) != 4:
        raise InputError(f"--channels {args.channels!r} should name the four channels, each once, such as bgry")
    if not Path(args.samples).is_dir():
        raise InputError(f"{args.samples} is not a folder; name that of the .npz files")
    folder, table, dropped_table = (Path(args.to) / name for name in ("train", "train.csv", "train_dropped.csv"))
    check_outputs([table, dropped_table], args.labels)
    labels = read_lists(args.labels)

    dropped = convert_all(list(labels), Path(args.samples), folder, colours)
    kept = {id_: target for id_, target in labels.items() if id_ not in dropped}
    if not kept:
        raise InputError(f"no sample can be used, the first because: {next(iter(dropped.values()))}")
    if dropped:
        write_csv(dropped_table, pd.DataFrame({"Id": list(dropped), "why": list(dropped.values())}, dtype=object))
    else:
        dropped_table.unlink(missing_ok=True)  # that of an earlier call
    write_csv(table, pd.DataFrame({"Id": list(kept), "Target": list(kept.values())}, dtype=object))
    where = f", {dropped_table} says why" if dropped else ""
    print(f"{table}: {len(kept):,} of {plural(len(labels), 'sample')}, {len(dropped):,} left out{where}")


def read_lists(paths):
    """Read lists of labels: -> {Id: Target}, in their order. Raises InputError with the first bad lines."""
    labels = {}
    for path in paths:
        file_size(path, MOST_LIST)
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeError):
            raise InputError(
                f"{path} is not text in UTF-8; give a list of lines such as: a1, Nucleus, Cytosol"
            ) from None
        bad = []
        for number, line in enumerate(lines, 1):
            id_, *names = (word.strip() for word in nfc(line).split(","))
            if not id_ and not names:
                continue
            if id_ in labels or not is_stem(id_) or not set(CYTO_CLASSES).issuperset(names):
                bad.append(f"line {number} ({'a second time: ' * (id_ in labels)}{line[:60]!r})")
                continue
            labels[id_] = " ".join(map(str, sorted({CYTO_CLASSES.index(name) for name in names})))
        if bad:
            what = f"{plural(len(bad), 'line')} without a new Id and its classes: {listing(bad)}"
            raise InputError(f"{path}: {what}; fix them, the classes are {', '.join(CYTO_CLASSES)}")
    if not labels:
        raise InputError(f"{listing(paths)}: no line with an Id; give the lists of labels")
    return labels


def convert_all(ids, samples, folder, colours):
    """Write the images of all samples in parallel: -> {Id: why} of those that cannot be used."""
    names = set(os.listdir(folder)) if folder.is_dir() else set()
    todo = [id_ for id_ in ids if not _is_converted(folder, id_, names)]
    files = [path for path in (samples / f"{id_}.npz" for id_ in todo) if path.is_file()]
    size = data_size(sum(path.stat().st_size for path in files))
    print(f"{plural(len(ids), 'sample')}, {len(ids) - len(todo):,} converted already, {size} to read")
    dropped = {}
    with ThreadPoolExecutor(cores()) as pool:
        try:
            whys = in_order(lambda id_: pool.submit(convert, samples, id_, folder, colours), todo, ahead=2 * cores())
            for id_, why in zip(todo, tqdm(whys, total=len(todo), unit="sample", disable=None)):
                if why := why.result():
                    dropped[id_] = why
        except BaseException:  # Ctrl+C as well
            pool.shutdown(cancel_futures=True)
            raise
    return dropped


def _is_converted(folder, id_, names):
    """Return whether all four images are there, undamaged and of one size."""
    files = [f"{id_}_{colour}.png" for colour in CHANNELS.values()]
    try:
        return names.issuperset(files) and len({image_size(folder / name) for name in files}) == 1
    except InputError:
        return False


def convert(samples, id_, folder, colours):
    """Write the four images of a sample: -> "", or why it cannot be used."""
    try:
        sample = read_sample(samples / f"{id_}.npz", colours)
    except InputError as error:
        return str(error)
    for number, colour in enumerate(colours):
        with whole_file(folder / f"{id_}_{colour}.png", "wb") as file:
            file.write(cv2.imencode(".png", np.ascontiguousarray(sample[..., number]))[1].tobytes())
    return ""


def read_sample(path, colours):
    """Read a sample: -> (H, W, 4) uint8. Raises InputError for anything else, and for a channel that shows nothing."""
    (sample,) = read_npz(path, ["sample"], "a sample")
    if sample.dtype != np.uint8 or sample.ndim != 3 or sample.shape[-1] != 4:
        form = "x".join(map(str, sample.shape))
        raise InputError(f"{path}: the array is {form} {sample.dtype}, not height x width x 4 uint8")
    height, width = sample.shape[:2]
    if min(height, width) < LEAST_SIDE or height * width > MOST_PIXELS:
        raise InputError(f"{path}: {width}x{height} pixels are too few or too many")
    if empty := [colour for number, colour in enumerate(colours) if np.ptp(sample[..., number]) == 0]:
        raise InputError(f"{path}: {' and '.join(empty)} has one value everywhere")
    return sample


if __name__ == "__main__":
    run_script(main)

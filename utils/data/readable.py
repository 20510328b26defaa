"""Images that cannot be read are found before a training begins: they stop it with a list of all, or are left out of it."""

from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from tqdm import tqdm

from utils.data.images import find_files, load_sample, told
from utils.data.packing import open_sound
from utils.errors import InputError, plural
from utils.files import write_csv
from utils.parallel import cores, in_order

Readable = namedtuple("Readable", "train valid images sizes skipped")


def open_readable(train, valid, channels, options, before, group):
    """Open the images to train and validate on, and see that every one can be read, among ranks the same for all.

    train, valid: rows (DataFrames). channels: ChannelSet. options: of train.py, a dict. before: Ids that a run to go on with
    has left out at its beginning, None for a new run; they are left out unseen, and no others with them.
    -> namedtuple: the rows of `train` and `valid` that are left, `images` and `sizes` (N, 2) of both, one after the other, as
    of `open_images`, and `skipped`, a DataFrame Id, part, reason. Raises InputError on images that cannot be read or are
    missing, and where none are left.
    """
    rows = pd.concat([train.assign(part="train"), valid.assign(part="valid")], ignore_index=True)
    absent = rows["Id"].isin(before or ())
    skipped, rows = rows[absent].assign(reason="left out before"), rows[~absent].reset_index(drop=True)
    files = find_files(options["images"] or ["input/train"], rows["Id"].tolist(), channels)
    images, sizes, bad = _look_at_all(files, channels, options, group)
    if bad:
        if before is not None:
            raise InputError(f"{told(bad)}; the run began with {'it' if len(bad) == 1 else 'them'}")
        if not options["skip_bad"]:
            raise InputError(f"{told(bad)}; or leave out such images with --skip-bad")
        skipped = rows.loc[list(bad)].assign(reason=["; ".join(wrong) for wrong in bad.values()])
        print(f"{plural(len(bad), 'image')} left out: {told(bad)}")
    elif len(skipped):
        print(f"{plural(len(skipped), 'image')} left out, as the run began")
    rows = rows.drop(index=list(bad))
    train, valid = (rows[rows["part"] == part].drop(columns="part") for part in ("train", "valid"))
    for part, purpose in ((train, "train"), (valid, "validate")):
        if not len(part):
            raise InputError(f"no image is left to {purpose} on: {told(bad)}")
    kept = rows.index.tolist()
    return Readable(
        train.reset_index(drop=True), valid.reset_index(drop=True), images[kept], sizes[kept], skipped[["Id", "part", "reason"]]
    )  # fmt: skip


def _look_at_all(files, channels, options, group):
    """Images, sizes, {row: [what is wrong]}. The ranks of a machine share out the decoding of what is not packed."""
    cache = None if options["no_cache"] else options["cache"]
    images, sizes, bad = group.local_main_first(
        lambda: open_sound(files, channels.names, options["size"], options["fit"], cache, options["bits"])
    )
    unseen = [row for row in images.decoded().tolist() if row not in bad]
    return (
        images,
        sizes,
        group.merge_dicts(
            bad | undecodable(files, unseen[group.local_rank :: group.local_world_size], options["bits"])
        ),
    )


def undecodable(files, rows, bits=0):
    """Decode the samples `rows` of `files`, tuples of paths: -> {row: [what is wrong]}, only of those that cannot be decoded."""

    def fault(row):
        try:
            load_sample(files[row], bits=bits)
        except InputError as error:
            return [str(error)]

    bar = tqdm(total=len(rows), desc="decoding every image", unit="img", disable=None, leave=False)
    bad = {}
    with bar, ThreadPoolExecutor(cores()) as pool:  # OpenCV lets go of the interpreter while it decodes
        for row, found in zip(rows, in_order(lambda row: pool.submit(fault, row), rows, 2 * cores()), strict=True):
            bar.update()
            if found.result():
                bad[row] = found.result()
    return bad


def write_skipped(run, skipped):
    """Keep in a run's directory what it leaves out, and why; where that is nothing, not even an older list."""
    path = run / "skipped.csv"
    if len(skipped):
        write_csv(path, skipped)
    else:
        path.unlink(missing_ok=True)

"""Finding unusable images before a training or a split, which then stops with a list of them or skips them."""

from collections import Counter, namedtuple
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from tqdm import tqdm

from utils.data.cache import open_and_check
from utils.data.image_files import describe_problems, find_files
from utils.data.images import CHANNELS, image_size, load_sample
from utils.errors import InputError, plural
from utils.files import write_csv
from utils.parallel import cores, in_order

Readable = namedtuple("Readable", "train valid images sizes skipped")


def open_readable(train, valid, channels, options, before, context):
    """Open the images to train and validate on and check that all are readable; same result in all processes.

    train, valid: rows (DataFrames). channels: ChannelSet. options: of train.py, a dict. before: Ids that a resumed run
    skipped at its start, which are skipped unchecked, and no others; None for a new run. -> namedtuple: the remaining
    rows of `train` and `valid`, `images` and `sizes` (N, 2) of both as of `open_images`, train first, and `skipped`, a
    DataFrame Id, part, reason. Raise InputError for missing or unreadable images, and if none are left.
    """
    rows = pd.concat([train.assign(part="train"), valid.assign(part="valid")], ignore_index=True)
    absent = rows["Id"].isin(before or ())
    skipped, rows = rows[absent].assign(reason="left out before"), rows[~absent].reset_index(drop=True)
    files = find_files(options["images"] or ["input/train"], rows["Id"].tolist(), channels)
    images, sizes, bad = _open_and_decode(files, channels, options, context)
    if bad:
        problems = describe_problems(bad)
        if before is not None:
            raise InputError(f"{problems}; the run began with {'it' if len(bad) == 1 else 'them'}")
        if not options["skip_bad"]:
            raise InputError(f"{problems}; or leave out such images with --skip-bad")
        skipped = rows.loc[list(bad)].assign(reason=["; ".join(row) for row in bad.values()])
        print(f"{plural(len(bad), 'image')} left out: {problems}")
    elif len(skipped):
        print(f"{plural(len(skipped), 'image')} left out, as at the start of the run")
    rows = rows.drop(index=list(bad))
    parts = [rows[rows["part"] == part].drop(columns="part").reset_index(drop=True) for part in ("train", "valid")]
    for part, purpose in zip(parts, ("train", "validate"), strict=True):
        if not len(part):
            raise InputError(f"no image is left to {purpose} on: {describe_problems(bad)}")
    kept = rows.index.tolist()
    return Readable(*parts, images[kept], sizes[kept], skipped[["Id", "part", "reason"]])


def _open_and_decode(files, channels, options, context):
    """Return images, sizes and {row: [problem]}. A machine's processes share the decoding of unpacked samples."""
    cache = None if options["no_cache"] else options["cache"]
    images, sizes, bad = context.local_main_first(
        lambda: open_and_check(files, channels.names, options["size"], options["fit"], cache, options["bits"])
    )
    unchecked = [row for row in images.decoded().tolist() if row not in bad]
    own = unchecked[context.local_rank :: context.local_world_size]
    return images, sizes, context.merge_dicts(bad | find_undecodable(files, own, options["bits"]))


def find_undecodable(files, rows, bits=0):
    """Decode the samples `rows` of `files`, tuples of paths: -> {row: [problem]} of those that cannot be decoded. In a
    JPEG only truncation is found, since its pixels have no checksum."""

    def problem(row):
        try:
            for path in files[row]:
                image_size(path)
            load_sample(files[row], bits=bits)
        except InputError as error:
            return [str(error)]

    bar = tqdm(total=len(rows), desc="decoding every image", unit="img", disable=None, leave=False)
    bad = {}
    with bar, ThreadPoolExecutor(cores()) as pool:  # OpenCV releases the interpreter lock while it decodes
        for row, found in zip(rows, in_order(lambda row: pool.submit(problem, row), rows, 2 * cores()), strict=True):
            bar.update()
            if found.result():
                bad[row] = found.result()
    return bad


def find_unusable(found, ids):
    """Decode the samples `ids`: -> {Id: problem} for missing or damaged channels and channels that differ in size.

    found: {Id: {channel: path}} of `scan_folders`; ids: samples of one source, all in `found`. Channels that most of
    them have are required.
    """
    available = Counter(name for id_ in ids for name in found[id_])
    wanted = [name for name in CHANNELS.values() if 2 * available[name] > len(ids)]
    missing = {id_: [name for name in wanted if name not in found[id_]] for id_ in ids}
    complete = {id_: tuple(found[id_][name] for name in wanted) for id_ in ids if not missing[id_]}
    undecodable = find_undecodable(complete, list(complete))
    problems = {id_: f"{', '.join(names)} missing" for id_, names in missing.items() if names}
    problems |= {id_: problem for id_, (problem,) in undecodable.items()}
    return {id_: problems[id_] for id_ in ids if id_ in problems}


def write_skipped(run, skipped):
    """Write the skipped images of a run and why to its folder; without any, remove an older list."""
    path = run / "skipped.csv"
    if len(skipped):
        write_csv(path, skipped)
    else:
        path.unlink(missing_ok=True)

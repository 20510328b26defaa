"""Split labelled images into cross-validation folds: labels -> folds.csv

    python make_folds.py     # input/train.csv, input/train/ -> input/folds.csv
    python make_folds.py --labels input/train.csv --images input/train \\
        --folds 10 --seed 0 -o input/folds.csv
    python make_folds.py --external hpav18=input/hpav18.csv
    python make_folds.py --test hpav18=input/hpav18.csv \\
        --images input/train --images input/hpav18
    python make_folds.py --plot input/folds.png    # distribution and split
    python make_folds.py --split 8:1:1 --drop-corrupt --images input/train

Every class is spread over the folds as evenly as its images allow, and
near-duplicate images stay in one fold: a network that has seen one of them in
training would be tested on the other.

With --split the table has one training, validation and test part instead of
folds: fold -1, 0 and -2, so that train.py --fold 0 trains on the first and
validates on the second, and predict.py --fold -2 predicts the third. The
parts have exactly the sizes asked for, as far as near-duplicates allow.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from utils.cli import option_parser, run_script
from utils.data import near_duplicates, readable
from utils.data.image_files import check_files, find_files, scan_folders
from utils.data.images import ChannelSet, parse_channels
from utils.data.labels import TEST_FOLD, encode, load_classes, part_name, read_labels
from utils.data.tables import check_ids
from utils.errors import InputError, listing, plural
from utils.files import check_writable, write_csv
from utils.plots.dataset_figures import fold_split
from utils.scoring.stratify import stratify

DEFAULT_LABELS = "input/train.csv"


def parse_args():
    parser = option_parser(__doc__)
    arg = parser.add_argument
    source = {"action": "append", "default": [], "metavar": "NAME=CSV"}
    distance = "bits of 64 per channel in which near-duplicates differ at most, on average; -1: do not look for them"
    corrupt = "decode every image first, and leave out and list samples with a missing or damaged channel"
    arg("--labels", default=DEFAULT_LABELS, help="Id,Target table (default: %(default)s)")
    images = "folder of the images or images.csv; may be repeated (default: input/train if it exists)"
    arg("--images", action="append", help=images)
    arg("--classes", default="hpa", help="hpa (28), cyto (13), hpa2021 (19) or a CSV class,name (default: %(default)s)")
    arg("--folds", type=int, help="number of folds (default: 10)")
    arg("--split", metavar="T:V:E", help="one split in this ratio instead: 8:1:1, 24000:3000:4072")
    arg("--seed", type=int, default=0, help="another seed, another split (default: %(default)s)")
    arg("--external", **source, help="more rows to split, with the name of their source")
    arg("--always-train", **source, help="rows for training only: fold -1")
    arg("--test", **source, help="rows never to train nor validate on: fold -2")
    arg("--hash-channels", default="gb", help="channels compared for near-duplicates (default: %(default)s)")
    arg("--hash-distance", type=int, default=14, metavar="BITS", help=f"{distance} (default: %(default)s)")
    arg(
        "--allow-unlabelled", action="store_true", help="skip images without a row in a label table instead of stopping"
    )
    arg("--drop-corrupt", action="store_true", help=corrupt)
    arg("--plot", metavar="PNG", help="draw class distribution and split")
    arg("-o", "--out", default="input/folds.csv", help="where to write (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    started = time.time()
    parts = parse_parts(args.folds, args.split)
    if not 0 <= args.seed < 2**32:
        raise InputError(f"--seed {args.seed} is out of range; give a whole number from 0 to 4294967295")
    classes = load_classes(args.classes)
    if args.split and args.test:
        raise InputError("--split has a test part of its own; give --folds with --test")
    rows = gather_rows(args, classes, parts)
    out = Path(args.out)
    pairs_file, dropped_file = (out.with_name(f"{out.stem}_{what}.csv") for what in ("duplicates", "dropped"))
    for path in filter(None, [args.out, pairs_file, dropped_file, args.plot]):
        check_writable(path)
    folders, found, dropped = image_folders(args), None, None
    if folders and (args.hash_distance >= 0 or args.drop_corrupt):
        found = scan_folders(folders)
        check_images(rows, args, folders, found)
    if args.drop_corrupt:
        rows, dropped = drop_corrupt(rows, folders, found, parts)

    rows["group"], pairs = find_groups(rows, args, folders, found, parts)
    rows = drop_near_duplicates_of_training(rows)
    labels, use = encode(rows["Target"], classes), rows["use"].to_numpy()
    sizes = exact_sizes(parts, int((use == "split").sum())) if args.split else None
    trained, groups = use != "test", rows["group"].to_numpy()
    fold = np.full(len(rows), TEST_FOLD)
    fold[trained] = assign_folds(labels[trained], groups[trained], (use == "always")[trained], parts, args.seed, sizes)
    if empty := [part_name(part, parts) for part in parts if not (fold[use == "split"] == part).any()]:
        are = "part is" if len(empty) == 1 else "parts are"
        split = plural(int((use == "split").sum()), "row")
        raise InputError(f"the {listing(empty)} {are} empty, {split} cannot fill this ratio; give more rows")
    rows["fold"] = fold

    for path, table in ((pairs_file, pairs), (dropped_file, dropped)):
        if table is None:
            path.unlink(missing_ok=True)  # that of an earlier call would belong to other folds
        else:
            write_csv(path, table)
    write_csv(args.out, rows[["Id", "Target", "fold", "source", "group"]])
    if args.plot:
        fold_split(labels, fold, use == "split", parts, classes, args.plot)
    print_split(labels, rows, classes, parts)
    written = [args.out, pairs is not None and pairs_file, dropped is not None and dropped_file, args.plot]
    print(f"{plural(len(rows), 'row')} in {time.time() - started:.1f} s")
    print("-> " + "\n   ".join(str(path) for path in written if path))


def parse_parts(folds, split):
    """The parts that rows are split into: {fold number: fraction of the rows}."""
    if split is None:
        folds = 10 if folds is None else folds
        if folds < 2:
            raise InputError(f"--folds {folds} is too few; cross-validation needs 2 or more")
        return dict.fromkeys(range(folds), 1 / folds)
    words = split.split(":")
    if len(words) != 3 or not all(word.isascii() and word.isdecimal() and 0 < int(word) < 10**9 for word in words):
        raise InputError(f"--split {split!r} is not understood; give training:validation:test such as 8:1:1")
    if folds is not None:
        raise InputError("--folds and --split exclude each other; give one of them")
    total = sum(map(int, words))
    return {fold: int(word) / total for fold, word in zip((-1, 0, TEST_FOLD), words, strict=True)}


def gather_rows(args, classes, parts):
    """All rows with their source, and their `use`: split, always (only ever trained on) or test (never trained on)."""
    tables = [("kaggle", args.labels, "split")]
    for specs, use in ((args.external, "split"), (args.always_train, "always"), (args.test, "test")):
        for spec in specs:
            name, equals, path = spec.partition("=")
            if not (name and equals and path):
                raise InputError(f"{spec!r} should be NAME=CSV, for example hpav18=input/HPAv18.csv")
            tables.append((name, path, use))
    frames = [read_labels(path, classes)[["Id", "Target"]].assign(source=name, use=use) for name, path, use in tables]
    rows = pd.concat(frames, ignore_index=True)
    check_ids(" + ".join(str(path) for _, path, _ in tables), rows["Id"])
    check_enough(int((rows["use"] == "split").sum()), "row", parts)
    return rows


def check_enough(count, what, parts):
    """Raise InputError if there are fewer rows, or groups of near-duplicates, than parts to fill."""
    if count < len(parts):
        fix = "give more rows" if -1 in parts or count < 2 else f"give --folds {count} or less"
        name = "parts" if -1 in parts else "folds"
        raise InputError(f"{plural(count, what)} cannot fill {len(parts)} {name}; {fix}")


def image_folders(args):
    usual = args.labels == DEFAULT_LABELS and Path("input/train").is_dir()
    return args.images or (["input/train"] if usual else [])


def check_images(rows, args, folders, found):
    """Raise InputError for what label tables and the names of files show, before any image is read."""
    parse_channels(args.hash_channels)
    for name, part in rows[rows["use"] == "test"].groupby("source", sort=False):
        if not part["Id"].isin(set(found)).any():
            raise InputError(
                f"the test set {name} has no image in {listing(folders)}, so images that it shares with the training "
                f"set would go unnoticed; add its folder with another --images, or give --hash-distance -1"
            )
    wanted = rows["Id"][~rows["source"].isin(sources_without_images(rows, found))].tolist()
    find_files(folders, wanted, ChannelSet(()), found)
    unlabelled = sorted(set(found) - set(rows["Id"]))
    if unlabelled and not args.allow_unlabelled:
        raise InputError(
            f"{plural(len(unlabelled), 'Id')} with images in {listing(folders)} but no row in a label table: "
            f"{listing(unlabelled)}; add the rows or give --allow-unlabelled"
        )


def drop_corrupt(rows, folders, found, parts):
    """Rows without those whose sample cannot be used, and these: DataFrame Id, why. Sources without any image stay."""
    if not folders:
        raise InputError("--drop-corrupt needs the images; name their folder with --images")
    problems, checked = {}, 0
    for _, part in rows.groupby("source", sort=False):
        ids = part["Id"][part["Id"].isin(set(found))].tolist()  # one without any file is not damaged
        problems |= readable.find_unusable(found, ids)
        checked += len(ids)
    names = f": {listing(problems)}" if problems else ""
    print(f"corrupt: {plural(len(problems), 'sample')} of {checked:,} left out{names}")
    if checked and len(problems) == checked:
        first = next(iter(problems.values()))
        raise InputError(f"no sample in {listing(folders)} can be used, the first because: {first}")
    rows = rows[~rows["Id"].isin(set(problems))].reset_index(drop=True)
    check_enough(int((rows["use"] == "split").sum()), "row", parts)
    return rows, pd.DataFrame({"Id": list(problems), "why": list(problems.values())}, dtype=object)


def find_groups(rows, args, folders, found, parts):
    """The group of each row, named after its first member, and the table of near-duplicate pairs or None."""
    if not folders or args.hash_distance < 0:
        print("near-duplicates: not looked for" + ("" if folders else " (no --images)"))
        return rows["Id"], None
    channels = parse_channels(args.hash_channels)
    unseen = sources_without_images(rows, found)
    for name in unseen:
        print(f"near-duplicates: not looked for in source {name}, whose images are in none of the folders")
    seen = np.flatnonzero(~rows["source"].isin(unseen))
    ids = rows["Id"].to_numpy()[seen]
    files = find_files(folders, ids.tolist(), channels, found)
    check_files(files)
    distance = args.hash_distance * len(channels.names)
    first, second, bits = near_duplicates.close_pairs(near_duplicates.hash_samples(files), distance)
    members = near_duplicates.groups_from_pairs(len(ids), first, second)
    sizes = np.bincount(members)
    bits_in_all = near_duplicates.BITS * len(channels.names)
    grouped = f"{plural(int((sizes > 1).sum()), 'group')} of {int(sizes[sizes > 1].sum()):,} images"
    print(
        f"near-duplicates: {plural(len(first), 'pair')} within {distance} of {bits_in_all} bits, "
        f"{grouped}, largest {sizes.max()}"
    )
    largest = np.bincount(members[(rows["use"] == "split").to_numpy()[seen]]).max()  # of rows that are split
    if largest > max(20, 2 * len(rows) * min(parts.values())):
        raise InputError(
            f"{largest:,} of {len(ids):,} images form one group of near-duplicates, larger than two folds: the images "
            f"all look alike; lower --hash-distance, or switch it off with -1"
        )
    groups = rows["Id"].to_numpy(copy=True)
    groups[seen] = ids[np.unique(members, return_index=True)[1]][members]
    return groups, pd.DataFrame({"Id": ids[first], "twin": ids[second], "bits": bits})


def drop_near_duplicates_of_training(rows):
    """Rows without test rows that have a near-duplicate among the others: a network has practically seen them."""
    test = rows["use"] == "test"
    leaking = test & rows["group"].isin(set(rows["group"][~test]))
    if leaking.any():
        what = f"{plural(int(leaking.sum()), 'test row')} with a near-duplicate in the training set left out"
        print(f"{what}: {listing(rows['Id'][leaking])}")
    return rows[~leaking].reset_index(drop=True)


def sources_without_images(rows, found):
    """Sources other than the first whose Ids have no image at all: a label table may come without its images."""
    present = rows["Id"].isin(set(found)).groupby(rows["source"]).any()
    return [name for name in present.index[~present] if name != rows["source"].iloc[0]]


def exact_sizes(parts, rows):
    """Whole numbers of rows for a split: {fold: fraction}. Validation and test part are rounded, training has the rest, as
    18,756 rows give 15,004 / 1,876 / 1,876 for 8:1:1 (Rumetshofer et al. 2019, Fig. 3)."""
    sizes = {part: int(rows * share + 0.5) for part, share in parts.items()}
    return sizes | {-1: rows - sizes[0] - sizes[TEST_FOLD]}


def assign_folds(labels, groups, always, parts, seed, sizes=None):
    """A fold for each row: (N, C) 0/1 labels, (N,) group names, (N,) bool, {fold: fraction} -> (N,) int, −1 = always
    train. sizes: {fold: rows} to reach exactly, as far as groups allow.

    A group of near-duplicates goes to one fold as a whole, with its always-train rows: to train on them while the
    others validate would leak.
    """
    names, unit = np.unique(groups, return_inverse=True)
    counted = np.zeros((len(names), labels.shape[1] + 1))  # a group's images per class, and in all
    np.add.at(counted, unit[~always], np.column_stack([labels[~always], np.ones((~always).sum())]))
    split = np.flatnonzero(counted[:, -1])
    check_enough(len(split), "group of near-duplicates", parts)
    by_unit = np.full(len(names), -1)
    wanted = None if sizes is None else np.array([sizes[part] for part in parts])
    by_unit[split] = np.array(list(parts))[stratify(counted[split], np.array(list(parts.values())), seed, wanted)]
    return by_unit[unit]


def print_split(labels, rows, classes, parts):
    """Print the images per class and part, and the largest deviation from the parts' fractions."""
    fold, split = rows["fold"].to_numpy(), (rows["use"] == "split").to_numpy()
    members = [split & (fold == part) if part < 0 else fold == part for part in parts]
    table = np.array([[*labels[rows_].sum(axis=0), rows_.sum()] for rows_ in members]).T.astype(int)
    off = np.abs(table - np.outer(table.sum(axis=1), list(parts.values())))
    titles = [part_name(part, parts) for part in parts]
    width = max(4, len(str(table.max())) + 1, *(len(title) + 1 for title in titles))
    room = max(12, 79 - 3 - 7 - width * len(parts) - 6)
    print(f"{'':3}{'class':{room}}{'images':>7}" + "".join(f"{title:>{width}}" for title in titles) + f"{'off':>6}")
    for number, name in enumerate([*classes, "all images"]):
        short = name if len(name) < room else name[: room - 2] + "…"
        head = f"{number if number < len(classes) else '':>2} {short:{room}}{table[number].sum():>7,}"
        print(head + "".join(f"{count:>{width}}" for count in table[number]) + f"{off[number].max():>6.1f}")
    worst, part = np.unravel_index(off[:-1].argmax(), off[:-1].shape)
    if len(set(parts.values())) == 1:
        kind, title = "even", f"fold {titles[part].removeprefix('f')}"
        sizes = f"fold sizes {table[-1].min():,} to {table[-1].max():,}"
    else:
        kind, title, sizes = "exact", titles[part], "sizes " + " / ".join(map("{:,}".format, table[-1]))
    print(f"largest deviation from an {kind} split: {off[worst, part]:.1f} images ({classes[worst]}, {title})")
    for what, number in (("always", -1), ("never", TEST_FOLD)):
        if count := int((fold[~split] == number).sum()):
            sizes += f"; {what} trained on: {plural(count, 'row')}"
    print(sizes)
    if -1 in parts and (wanted := list(exact_sizes(parts, table[-1].sum()).values())) != table[-1].tolist():
        print(f"near-duplicates stay together, so the sizes are not {' / '.join(map('{:,}'.format, wanted))}")
    sources = rows["source"].value_counts(sort=False)
    for name, count in sources.items() if len(sources) > 1 else ():
        print(f"source {name}: {plural(count, 'row')}")


if __name__ == "__main__":
    run_script(main)

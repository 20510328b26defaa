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
near-duplicate pictures stay in one fold: a network that has seen one twin in
training would be tested on the other.

With --split the table has one training, validation and test part instead of
folds: fold -1, 0 and -2, so that train.py --fold 0 trains on the first and
validates on the second, and predict.py --fold -2 predicts the third.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from utils.cli import run_script
from utils.data import near_duplicates, readable
from utils.data.images import ChannelSet, check_files, find_files, parse_channels, scan_folders
from utils.data.labels import TEST_FOLD, encode, load_classes, part_name, read_labels
from utils.data.tables import check_ids
from utils.errors import InputError, listing, plural
from utils.files import check_writable, write_csv
from utils.plots import dataset_figures
from utils.scoring.stratify import stratify

DEFAULT_LABELS = "input/train.csv"


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg = parser.add_argument
    arg("--labels", default=DEFAULT_LABELS, help="Id,Target table (default: %(default)s)")
    arg("--images", action="append", help="folder of the images; may be repeated (default: input/train if it exists)")
    arg("--classes", default="hpa", help="hpa (28), cyto (13) or a CSV class,name (default: %(default)s)")
    arg("--folds", type=int, help="number of folds (default: 10)")
    arg("--split", metavar="T:V:E", help="one split in this ratio instead: 8:1:1, 24000:3000:4072")
    arg("--seed", type=int, default=0, help="another seed, another split (default: %(default)s)")
    arg(
        "--external",
        action="append",
        default=[],
        metavar="NAME=CSV",
        help="more rows to split, with their source's name",
    )
    arg("--always-train", action="append", default=[], metavar="NAME=CSV", help="rows for training only: fold -1")
    arg("--test", action="append", default=[], metavar="NAME=CSV", help="rows never to train nor validate on: fold -2")
    arg("--hash-channels", default="gb", help="channels compared for near-duplicates (default: %(default)s)")
    arg("--hash-distance", type=int, default=14, metavar="BITS",
        help="twins differ in at most so many of 64 bits, averaged over the channels; -1: do not look (default: %(default)s)")  # fmt: skip
    arg("--allow-unlabelled", action="store_true", help="pass over images that no row names instead of stopping")
    arg("--drop-corrupt", action="store_true",
        help="decode every image first, and leave out and list samples with a missing or damaged channel")  # fmt: skip
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
        raise InputError("--split has a test part of its own; make folds where --test is given")
    rows = gather_rows(args, classes, parts)
    pairs_file, dropped_file = (
        Path(args.out).with_name(f"{Path(args.out).stem}_{what}.csv") for what in ("duplicates", "dropped")
    )
    for path in [args.out, pairs_file, dropped_file, args.plot]:
        if path:
            check_writable(path)
    folders, there, dropped = image_folders(args), None, None
    if folders and (args.hash_distance >= 0 or args.drop_corrupt):
        there = scan_folders(folders)
        check_pictures(rows, args, folders, there)
    if args.drop_corrupt:
        rows, dropped = drop_corrupt(rows, folders, there, parts)

    rows["group"], pairs = find_groups(rows, args, folders, there, parts)
    rows = drop_twins_of_test(rows)
    labels = encode(rows["Target"], classes)
    trained = (rows["use"] != "test").to_numpy()
    always = (rows["use"] == "always").to_numpy()[trained]
    rows["fold"] = TEST_FOLD
    rows.loc[trained, "fold"] = assign_folds(
        labels[trained], rows["group"].to_numpy()[trained], always, parts, args.seed
    )
    dealt = rows["fold"][rows["use"] == "split"]
    if empty := [part_name(part, parts) for part in parts if not (dealt == part).any()]:
        raise InputError(
            f"the {listing(empty)} {'part is' if len(empty) == 1 else 'parts are'} empty, {plural(len(dealt), 'row')} cannot fill "
            f"these shares; give more rows"
        )

    for path, table in ((pairs_file, pairs), (dropped_file, dropped)):
        if table is None:
            path.unlink(missing_ok=True)  # an earlier call's would speak of other folds
        else:
            write_csv(path, table)
    write_csv(args.out, rows[["Id", "Target", "fold", "source", "group"]])
    if args.plot:
        dealt = (rows["use"] == "split").to_numpy()
        dataset_figures.fold_split(labels, rows["fold"].to_numpy(), dealt, parts, classes, args.plot)
    report(labels, rows, classes, parts)
    written = [str(args.out)] + [str(pairs_file)] * (pairs is not None)
    written += [str(dropped_file)] * (dropped is not None) + [args.plot] * bool(args.plot)
    print(f"{plural(len(rows), 'row')} in {time.time() - started:.1f} s\n-> " + "\n   ".join(written))


def parse_parts(folds, split):
    """What rows are dealt out into: {fold number: share}, the shares' sum 1."""
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
    frames = []
    for name, path, use in tables:
        frame = read_labels(path, classes)[["Id", "Target"]]
        frames.append(frame.assign(source=name, use=use))
    rows = pd.concat(frames, ignore_index=True)
    check_ids(" + ".join(str(path) for _, path, _ in tables), rows["Id"])
    check_enough(int((rows["use"] == "split").sum()), "row", parts)
    return rows


def check_enough(count, what, parts):
    """Raise InputError where there are fewer rows, or groups of near-duplicates, than parts to fill."""
    if count < len(parts):
        mend = "give more rows" if -1 in parts or count < 2 else f"give --folds {count} or less"
        raise InputError(
            f"{plural(count, what)} cannot fill {len(parts)} {'parts' if -1 in parts else 'folds'}; {mend}"
        )


def image_folders(args):
    usual = args.labels == DEFAULT_LABELS and Path("input/train").is_dir()
    return args.images or (["input/train"] if usual else [])


def check_pictures(rows, args, folders, there):
    """Raise InputError for what folders and label tables alone tell, before any picture is read. there: of `scan_folders`."""
    parse_channels(args.hash_channels)
    for name, part in rows[rows["use"] == "test"].groupby("source", sort=False):
        if not part["Id"].isin(set(there)).any():
            raise InputError(
                f"the test set {name} has no image in {listing(folders)}, so pictures it shares with the training set would go "
                f"unnoticed; add its folder with another --images, or give --hash-distance -1"
            )
    wanted = rows["Id"][~rows["source"].isin(without_images(rows, there))].tolist()
    find_files(folders, wanted, ChannelSet(()), there)
    unlabelled = sorted(set(there) - set(rows["Id"]))
    if unlabelled and not args.allow_unlabelled:
        raise InputError(
            f"{plural(len(unlabelled), 'Id')} with images in {listing(folders)} but no row in a label table: "
            f"{listing(unlabelled)}; add the rows or give --allow-unlabelled"
        )


def drop_corrupt(rows, folders, there, parts):
    """Without the rows whose sample cannot be used, and these: DataFrame Id, why. Sources without any picture stay."""
    if not folders:
        raise InputError("--drop-corrupt needs the pictures; name their folder with --images")
    wrong, looked = {}, 0
    for _, part in rows.groupby("source", sort=False):
        ids = part["Id"][part["Id"].isin(set(there))].tolist()  # one without any file is no matter of damage
        wrong |= readable.find_unusable(there, ids)
        looked += len(ids)
    print(f"corrupt: {plural(len(wrong), 'sample')} of {looked:,} left out" + (f": {listing(wrong)}" if wrong else ""))
    if looked and len(wrong) == looked:
        raise InputError(
            f"no sample in {listing(folders)} can be used, the first because: {next(iter(wrong.values()))}"
        )
    rows = rows[~rows["Id"].isin(set(wrong))].reset_index(drop=True)
    check_enough(int((rows["use"] == "split").sum()), "row", parts)
    return rows, pd.DataFrame({"Id": list(wrong), "why": list(wrong.values())}, dtype=object)


def find_groups(rows, args, folders, there, parts):
    """The group of each row (named after its first member) and the table of near-duplicate pairs, or None without images."""
    if not folders or args.hash_distance < 0:
        print("near-duplicates: not looked for" + ("" if folders else " (no --images)"))
        return rows["Id"], None
    channels = parse_channels(args.hash_channels)
    unseen = without_images(rows, there)
    for name in unseen:
        print(f"near-duplicates: not looked for in source {name}, whose images are in none of the folders")
    seen = np.flatnonzero(~rows["source"].isin(unseen))
    ids = rows["Id"].to_numpy()[seen]
    files = find_files(folders, ids.tolist(), channels, there)
    check_files(files)
    distance = args.hash_distance * len(channels.names)
    first, second, bits = near_duplicates.close_pairs(near_duplicates.hash_samples(files), distance)
    members = near_duplicates.groups_from_pairs(len(ids), first, second)
    sizes = np.bincount(members)
    largest = np.bincount(members[(rows["use"] == "split").to_numpy()[seen]]).max()  # rows that are split
    print(
        f"near-duplicates: {plural(len(first), 'pair')} within {distance} of {near_duplicates.BITS * len(channels.names)} bits, "
        f"{plural(int((sizes > 1).sum()), 'group')} of {int(sizes[sizes > 1].sum()):,} images, largest {sizes.max()}"
    )
    if largest > max(20, 2 * len(rows) * min(parts.values())):
        raise InputError(
            f"{largest:,} of {len(ids):,} images hang together as near-duplicates, more than two folds hold: these pictures "
            f"look alike by nature; lower --hash-distance, or switch it off with -1"
        )
    groups = rows["Id"].to_numpy(copy=True)
    groups[seen] = ids[np.unique(members, return_index=True)[1]][members]
    return groups, pd.DataFrame({"Id": ids[first], "twin": ids[second], "bits": bits})


def drop_twins_of_test(rows):
    """Without the test rows that have a near-duplicate among the others: a network has as good as seen them."""
    test = rows["use"] == "test"
    twins = test & rows["group"].isin(set(rows["group"][~test]))
    if twins.any():
        print(
            f"{plural(int(twins.sum()), 'test row')} with a twin in the training set left out: {listing(rows['Id'][twins])}"
        )
    return rows[~twins].reset_index(drop=True)


def without_images(rows, there):
    """Sources beside the first whose Ids have no image at all: label tables may come without their pictures."""
    present = rows["Id"].isin(set(there)).groupby(rows["source"]).any()
    return [name for name in present.index[~present] if name != rows["source"].iloc[0]]


def assign_folds(labels, groups, always, parts, seed):
    """A fold for each row: (N, C) 0/1 labels, (N,) group names, (N,) bool, {fold: share} -> (N,) int, −1 = always train.

    Groups are the units that are dealt out. An always-train row with a twin among the split rows goes with it: to train
    on it while the twin validates would leak.
    """
    names, unit = np.unique(groups, return_inverse=True)
    counted = np.zeros((len(names), labels.shape[1] + 1))  # a unit's images in each class, and in all
    np.add.at(counted, unit[~always], np.column_stack([labels[~always], np.ones((~always).sum())]))
    split = np.flatnonzero(counted[:, -1])
    check_enough(len(split), "group of near-duplicates", parts)
    by_unit = np.full(len(names), -1)
    by_unit[split] = np.array(list(parts))[stratify(counted[split], np.array(list(parts.values())), seed)]
    return by_unit[unit]


def report(labels, rows, classes, parts):
    """Print images a class and part, and the largest deviation from what the shares ask for."""
    fold = rows["fold"].to_numpy()
    dealt = (rows["use"] == "split").to_numpy()
    held = [dealt & (fold == k) if k < 0 else fold == k for k in parts]
    table = np.stack([labels[part].sum(axis=0) for part in held], axis=1).astype(int)
    table = np.vstack([table, [part.sum() for part in held]])
    off = np.abs(table - np.outer(table.sum(axis=1), list(parts.values())))
    titles = [part_name(k, parts) for k in parts]
    width = max(4, len(str(table.max())) + 1, *(len(title) + 1 for title in titles))
    always, test = (int((fold[~dealt] == kind).sum()) for kind in (-1, TEST_FOLD))
    room = max(12, 79 - 3 - 7 - width * len(parts) - 6)
    print(f"{'':3}{'class':{room}}{'images':>7}" + "".join(f"{title:>{width}}" for title in titles) + f"{'off':>6}")
    for number, name in enumerate([*classes, "all images"]):
        short = name if len(name) < room else name[: room - 2] + "…"
        head = f"{number if number < len(classes) else '':>2} {short:{room}}{table[number].sum():>7,}"
        print(head + "".join(f"{count:>{width}}" for count in table[number]) + f"{off[number].max():>6.1f}")
    worst, where = np.unravel_index(off[:-1].argmax(), off[:-1].shape)
    even = len(set(parts.values())) == 1
    sizes = (
        f"fold sizes {table[-1].min():,} to {table[-1].max():,}"
        if even
        else "sizes " + " / ".join(map("{:,}".format, table[-1]))
    )
    print(
        f"largest deviation from an {'even' if even else 'exact'} split: {off[worst, where]:.1f} images "
        f"({classes[worst]}, {'fold ' if even else ''}{titles[where].removeprefix('f') if even else titles[where]})\n{sizes}"
        + (f"; always trained on: {plural(always, 'row')}" if always else "")
        + (f"; never trained on: {plural(test, 'row')}" if test else "")
    )
    for name, part in rows.groupby("source", sort=False):
        if rows["source"].nunique() > 1:
            print(f"source {name}: {plural(len(part), 'row')}")


if __name__ == "__main__":
    run_script(main)

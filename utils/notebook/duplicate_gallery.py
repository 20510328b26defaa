"""Near-duplicates in the data of a notebook, and whether their labels agree."""

import numpy as np
import pandas as pd

from utils.data.images import CHANNELS
from utils.data.near_duplicates import close_pairs, hash_samples, read_pairs
from utils.errors import plural

PLACES = {"train": "within train", "train and test": "between train and test", "test": "within test"}


def find_pairs(data, most=3000, distance=14, channels=("green", "blue"), seed=0):
    """Find near-duplicates in Data (utils.notebook.available_data) and print their number: -> DataFrame Id, twin, bits,
    where (key of `PLACES`), nearest first. In a pair of train and test, `Id` is the training image.

    Reads the pairs of `python -m utils.tools.find_duplicates` from the data's twins.csv if it exists. Otherwise
    compares at most `most` samples, drawn in proportion from train and test; a pair differs in at most `distance` of 64
    bits per channel on average."""
    part = dict.fromkeys(data.test, "test") | dict.fromkeys(data.train, "train")
    listed, whole = data.folder / "twins.csv", plural(len(part), "sample")
    if listed.exists():
        pairs, looked = read_pairs(listed, part), f"in {listed}"
        pairs = pairs[pairs["Id"].isin(part) & pairs["twin"].isin(part)].reset_index(drop=True)
    else:
        pairs, seen = hash_pairs(data, most, distance, channels, seed)
        looked = f"among {whole}" if seen == len(part) else f"among {seen:,} of {whole}"
    for row, (first, second) in enumerate(zip(pairs["Id"], pairs["twin"], strict=True)):
        if (part[first], part[second]) == ("test", "train"):
            pairs.loc[row, ["Id", "twin"]] = second, first
    sides = zip(pairs["Id"].map(part), pairs["twin"].map(part), strict=True)
    pairs["where"] = [first if first == second else "train and test" for first, second in sides]
    counts = ", ".join(f"{(pairs['where'] == where).sum():,} {name}" for where, name in PLACES.items())
    print(f"near-duplicates {looked}: {counts}")
    if known := [same for same in same_labels(pairs, data.targets()) if same is not None]:
        print(f"pairs within train with the same labels: {sum(known):,} of {len(known):,}")
    if not listed.exists() and len(part) > most:
        folders = " ".join(f"--images {data.folder / split}" for split in ("train", "test") if getattr(data, split))
        print(f"all pairs: python -m utils.tools.find_duplicates {folders} -o {listed}")
    return pairs


def hash_pairs(data, most, distance, channels, seed):
    """Compare at most `most` samples: -> DataFrame Id, twin, bits, nearest first, and the number of samples."""
    fraction = min(1, most / (len(data.train) + len(data.test)))
    files = data.sample("train", round(fraction * len(data.train)), seed)
    files |= data.sample("test", round(fraction * len(data.test)), seed)
    if not files:
        return pd.DataFrame(columns=["Id", "twin", "bits"]), 0
    ids, columns = np.array(sorted(files), object), [list(CHANNELS.values()).index(name) for name in channels]
    hashes = hash_samples([[files[id_][column] for column in columns] for id_ in ids])
    first, second, bits = close_pairs(hashes, distance * len(columns))
    pairs = pd.DataFrame({"Id": ids[first], "twin": ids[second], "bits": bits})
    return pairs.sort_values("bits", kind="stable", ignore_index=True), len(ids)


def same_labels(pairs, targets):
    """-> per pair, whether both images have the same classes; None if one has no label. targets: {Id: Target}."""
    known = [[targets.get(id_) for id_ in ids] for ids in zip(pairs["Id"], pairs["twin"], strict=True)]
    return [None if None in pair else set(pair[0].split()) == set(pair[1].split()) for pair in known]


def side_by_side(data, pairs, classes, count=8, size=256):
    """-> the nearest pairs of `find_pairs` as argument of `near_duplicate_pairs`: [((image, image), (id, id), (heading,
    labels))], half within train and half with test images if possible."""
    inside, rest = pairs[pairs["where"] == "train"], pairs[pairs["where"] != "train"]
    most = max(count // 2, count - len(rest))
    picked = pd.concat([inside.head(most), rest.head(count - min(most, len(inside)))])
    places = {"train": "both in train", "train and test": "left in train, right in test", "test": "both in test"}
    targets, shown = data.targets(), []
    for pair in picked.itertuples():
        ids = pair.Id, pair.twin
        heading = f"{pair.bits:.0f} bits apart, {places[pair.where]}"
        shown.append(([data.image(id_, size) for id_ in ids], ids, (heading, describe_labels(ids, targets, classes))))
    return shown


def describe_labels(ids, targets, classes):
    """Describe the labels of a pair: "same labels: Nucleoli, Cytosol". targets: {Id: Target} of labelled images."""
    numbers = [{int(word): None for word in targets[id_].split()} for id_ in ids if id_ in targets]
    named = [", ".join(classes[number] for number in one) or "no class" for one in numbers]
    if len(numbers) == 2:
        same = numbers[0].keys() == numbers[1].keys()
        return f"same labels: {named[0]}" if same else f"labels differ: {' | '.join(named)}"
    return f"label of the training image: {named[0]}" if named else "no labels: both are test images"

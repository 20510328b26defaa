"""Near-duplicates among the images that are to be looked at, and whether their labels agree."""

import numpy as np
import pandas as pd

from utils.data.images import CHANNELS
from utils.data.near_duplicates import close_pairs, hash_samples, read_pairs
from utils.errors import plural

PLACES = {"train": "within train", "train and test": "between train and test", "test": "within test"}


def find_twins(data, most=3000, distance=14, channels=("green", "blue"), seed=0):
    """Near-duplicates of the Data (utils.notebook.available_data): -> DataFrame Id, twin, bits, where (of `PLACES`), the nearest first; of a pair
    in train and test the training image is `Id`. Prints where they were looked for and how many there are.

    Where the data have twins.csv, which `python -m utils.tools.find_duplicates` writes, its pairs; else those among at most `most`
    samples, in the proportion of train and test, that differ in `distance` of 64 bits a channel on average.
    """
    part = {**dict.fromkeys(data.test, "test"), **dict.fromkeys(data.train, "train")}
    listed, whole = data.folder / "twins.csv", plural(len(part), "sample")
    if listed.exists():
        pairs = read_pairs(listed, part)
        pairs = pairs[pairs["Id"].isin(part) & pairs["twin"].isin(part)].reset_index(drop=True)
        looked = f"in {listed}"
    else:
        pairs, seen = hashed_pairs(data, most, distance, channels, seed)
        looked = f"among {whole}" if seen == len(part) else f"among {seen:,} of {whole}"
    for row, (own, twin) in enumerate(zip(pairs["Id"], pairs["twin"], strict=True)):
        if (part[own], part[twin]) == ("test", "train"):
            pairs.loc[row, ["Id", "twin"]] = twin, own
    sides = zip(pairs["Id"].map(part), pairs["twin"].map(part), strict=True)
    pairs["where"] = [own if own == twin else "train and test" for own, twin in sides]
    print(
        f"near-duplicates {looked}: "
        + ", ".join(f"{(pairs['where'] == where).sum():,} {name}" for where, name in PLACES.items())
    )
    if known := [same for same in same_labels(pairs, data.targets()) if same is not None]:
        print(f"pairs within train with the same labels: {sum(known):,} of {len(known):,}")
    if not listed.exists() and len(part) > most:
        folders = " ".join(f"--images {data.folder / split}" for split in ("train", "test") if getattr(data, split))
        print(f"all pairs: python -m utils.tools.find_duplicates {folders} -o {listed}")
    return pairs


def hashed_pairs(data, most, distance, channels, seed):
    """Pairs among at most `most` samples, the nearest first: -> DataFrame Id, twin, bits, and how many samples were looked at."""
    share = min(1, most / (len(data.train) + len(data.test)))
    files = data.sample("train", round(share * len(data.train)), seed)
    files |= data.sample("test", round(share * len(data.test)), seed)
    ids, columns = np.array(sorted(files), object), [list(CHANNELS.values()).index(name) for name in channels]
    if not files:
        return pd.DataFrame(columns=["Id", "twin", "bits"]), 0
    hashes = hash_samples([[files[id_][column] for column in columns] for id_ in ids])
    first, second, bits = close_pairs(hashes, distance * len(columns))
    order = np.argsort(bits, kind="stable")
    return pd.DataFrame({"Id": ids[first], "twin": ids[second], "bits": bits}).iloc[order].reset_index(drop=True), len(
        ids
    )


def same_labels(pairs, targets):
    """Has each pair the same classes on both sides? -> list of bool, None where an image has no label. targets: {Id: Target}."""
    known = [(targets.get(own), targets.get(twin)) for own, twin in zip(pairs["Id"], pairs["twin"], strict=True)]
    return [None if None in pair else set(pair[0].split()) == set(pair[1].split()) for pair in known]


def side_by_side(data, pairs, classes, count=8, size=256):
    """The nearest pairs of `find_twins` as `plots.twin_pairs` takes them, half of them within train and half with test images where
    there are as many: -> [((image, image), (id, id), (heading, labels))]."""
    inside, rest = pairs[pairs["where"] == "train"], pairs[pairs["where"] != "train"]
    most = max(count // 2, count - len(rest))
    picked = pd.concat([inside.head(most), rest.head(count - min(most, len(inside)))])
    places = {"train": "both in train", "train and test": "left in train, right in test", "test": "both in test"}
    targets, shown = data.targets(), []
    for pair in picked.itertuples():
        ids = pair.Id, pair.twin
        heading = f"{pair.bits:.0f} bits apart, {places[pair.where]}"
        shown.append(([data.image(id_, size) for id_ in ids], ids, (heading, labels_in_words(ids, targets, classes))))
    return shown


def labels_in_words(ids, targets, classes):
    """What the labels of a pair are: ``same labels: Nucleoli, Cytosol``. targets: {Id: Target} of the labelled images."""
    words = [[classes[int(word)] for word in targets[id_].split()] for id_ in ids if id_ in targets]
    named = [", ".join(one) or "no class" for one in words]
    if len(words) == 2:
        alike = set(words[0]) == set(words[1])
        return f"same labels: {named[0]}" if alike else f"labels differ: {' | '.join(named)}"
    return f"label of the training image: {named[0]}" if named else "no labels: both are test images"

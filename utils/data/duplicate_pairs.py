"""Near-duplicates of test images: averaging their predictions, and the labels that leak from the training set."""

import math

import numpy as np

from utils.data.labels import encode, read_labels
from utils.data.near_duplicates import groups_from_pairs
from utils.data.tables import as_number, read_table
from utils.errors import InputError, plural


def read_pairs(path, ids):
    """Pairs of near-duplicates, nearest first: DataFrame Id, twin (str), bits (float). Raises InputError where there are pairs,
    but none of an image among `ids`."""
    table = read_table(path, ["Id", "twin", "bits"], what="a list of near-duplicates", least=0)[["Id", "twin", "bits"]]
    bits = [as_number(text) for text in table["bits"]]
    for row, (own, twin, number) in enumerate(zip(table["Id"], table["twin"], bits, strict=True)):
        if not own or not twin or own == twin or number is None or not 0 <= number < math.inf:
            raise InputError(
                f"{path}: row {row + 2} ({own!r}, {twin!r}) should be two different Ids and how many bits differ"
            )
    if len(table) and not (table["Id"].isin(ids) | table["twin"].isin(ids)).any():
        raise InputError(
            f"{path} has no pair with an image that is to be decided; look for twins among the test images too"
        )
    return table.assign(bits=bits).sort_values("bits", kind="stable").reset_index(drop=True)


def read_known(path, classes):
    """{Id: (C,) 0/1} of a label table."""
    table = read_labels(path, classes)
    return dict(zip(table["Id"], encode(table["Target"], classes), strict=True))


def average(ids, scores, pairs):
    """Scores (N, C) with those of each group of near-duplicates replaced by their mean.

    Groups hang together by any chain of pairs, also through images that are not among `ids`.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys([*ids, *pairs["Id"], *pairs["twin"]]))}
    first, second = ([names[name] for name in pairs[column]] for column in ("Id", "twin"))
    group = groups_from_pairs(len(names), first, second)[: len(ids)]
    counts = np.bincount(group)
    sums = np.zeros((len(counts), scores.shape[1]))
    np.add.at(sums, group, scores)
    together = counts[group] > 1
    print(f"twins: {plural(int(together.sum()), 'row')} in {plural(int((counts > 1).sum()), 'group')} averaged")
    return np.where(together[:, None], sums[group] / counts[group, None], scores)


def carry_over(ids, decisions, pairs, known):
    """Decisions with the labels of each image's nearest twin among those known, and which images got some: (N, C), (N,) bool.

    pairs: of `read_pairs`; known: {Id: labels (C,), which may be none}.
    """
    place = {name: number for number, name in enumerate(ids)}
    decisions, done = decisions.copy(), set()
    for own, twin in zip(pairs["Id"], pairs["twin"], strict=True):  # the nearest first
        for mine, other in ((own, twin), (twin, own)):
            if mine in place and mine not in done and mine not in known and other in known:
                decisions[place[mine]] = known[other]
                done.add(mine)
    print(f"leak used: {plural(len(done), 'row')} got the labels of a twin")
    return decisions, np.array([name in done for name in ids])

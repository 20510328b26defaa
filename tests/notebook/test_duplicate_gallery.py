"""The pairs of near-duplicates that a notebook shows."""

import shutil

import numpy as np
import pandas as pd
from conftest import succeed

from utils.data.labels import HPA_CLASSES
from utils.notebook.available_data import open_data
from utils.notebook.duplicate_gallery import PLACES, describe_labels, find_pairs, same_labels, side_by_side


def test_the_pairs_are_real_near_duplicates(copies, capsys):
    data, scene = copies
    pairs = find_pairs(data)
    true = {where: 0 for where in PLACES}
    names = [*data.train, *data.test]
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            if scene[one] == scene[other]:
                true["train" if other in data.train else "train and test" if one in data.train else "test"] += 1
    assert pairs["bits"].is_monotonic_increasing and true["train"] >= 4 and true["train and test"] >= 4
    assert all(scene[first] == scene[second] for first, second in zip(pairs["Id"], pairs["twin"], strict=True))
    for where, (left, right) in {"train": ("train", "train"), "train and test": ("train", "test")}.items():
        some = pairs[pairs["where"] == where]
        assert 0.5 * true[where] <= len(some) <= true[where]
        assert some["Id"].isin(getattr(data, left)).all() and some["twin"].isin(getattr(data, right)).all()
    out, inside = capsys.readouterr().out, (pairs["where"] == "train").sum()
    assert f"among 60 samples: {inside} within train, " in out
    assert f"with the same labels: {inside} of {inside}" in out and "all pairs:" not in out


def test_a_list_of_pairs_is_taken_and_large_data_are_sampled(copies, tmp_path, capsys):
    data, _ = copies
    few, found = find_pairs(data, most=30), find_pairs(data)
    out = capsys.readouterr().out
    assert "among 30 of 60 samples" in out and f"-o {data.folder / 'twins.csv'}" in out and "--images" in out
    assert len(few) < len(found)
    whole = shutil.copytree(data.folder, tmp_path / "atlas")
    folders = ["--images", whole / "train", "--images", whole / "test"]
    succeed("utils.tools.find_duplicates", *folders, "-o", whole / "twins.csv")
    listed = find_pairs(open_data(whole, ""), most=30)
    columns = ["Id", "twin", "where", "bits"]
    one, other = (set(table[columns].itertuples(index=False, name=None)) for table in (listed, found))
    assert one == other and len(one) == len(listed) and listed["bits"].is_monotonic_increasing


def test_pairs_are_picked_from_both_and_their_labels_named(copies):
    data, _ = copies
    pairs = find_pairs(data)
    shown = side_by_side(data, pairs, HPA_CLASSES, count=4, size=64)
    inside, across = (pairs[pairs["where"] == where].head(2) for where in ("train", "train and test"))
    expected = pd.concat([inside, across])[["Id", "twin"]]
    assert [ids for _, ids, _ in shown] == list(expected.itertuples(index=False, name=None))
    assert ["both in train" in heading for *_, (heading, _) in shown] == [True, True, False, False]
    assert np.array_equal(shown[0][0][1], data.image(inside["twin"].iloc[0], 64))
    assert len(side_by_side(data, pairs[pairs["where"] == "train and test"], HPA_CLASSES, count=4, size=64)) == 4
    targets = {"a": "0 25", "b": "25 0", "c": "0", "d": ""}
    assert [describe_labels(pair, targets, HPA_CLASSES) for pair in ("ab", "ac", "cx", "xy", "cd")] == [
        "same labels: Nucleoplasm, Cytosol",
        "labels differ: Nucleoplasm, Cytosol | Nucleoplasm",
        "label of the training image: Nucleoplasm",
        "no labels: both are test images",
        "labels differ: Nucleoplasm | no class",
    ]
    table = pd.DataFrame([tuple("ab"), tuple("ac"), tuple("ax")], columns=["Id", "twin"])
    assert same_labels(table, targets) == [True, False, None]

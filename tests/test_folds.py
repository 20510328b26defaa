"""make_folds.py: every row once, classes even, groups unbroken, seeded."""

import numpy as np
import pandas as pd
import pytest
from conftest import succeed, write_images, write_labels
from hypothesis import given, settings
from hypothesis import strategies as st

import make_folds
from utils import duplicates


@pytest.fixture(scope="module")
def real_table(tmp_path_factory):
    """A label table with the real counts: every tenth image of each of the 577 real label sets, rare ones all."""
    sets = pd.read_csv("utils/label_sets.csv", dtype={"Target": str})
    counts = np.where(sets["count"] < 30, sets["count"], sets["count"] // 10)
    targets = np.repeat(sets["Target"].to_numpy(), counts)
    path = tmp_path_factory.mktemp("labels") / "train.csv"
    return write_labels(path, {f"row{i:05}": target for i, target in enumerate(targets)})


def read(path):
    return pd.read_csv(path, dtype={"Id": str, "Target": str}, keep_default_na=False)


def matrix(table):
    labels = np.zeros((len(table), 28), int)
    for row, target in enumerate(table["Target"]):
        labels[row, [int(word) for word in target.split()]] = 1
    return labels


def test_every_row_once_and_classes_even(real_table, tmp_path):
    succeed("make_folds", "--labels", real_table, "-o", tmp_path / "folds.csv")
    table, source = read(tmp_path / "folds.csv"), read(real_table)
    assert table["Id"].tolist() == source["Id"].tolist() and table["Target"].tolist() == source["Target"].tolist()
    assert set(table["fold"]) == set(range(10))
    labels = matrix(table)
    counts = np.stack([labels[table["fold"] == fold].sum(axis=0) for fold in range(10)])
    rare = labels.sum(axis=0) < 60
    assert rare.sum() >= 4
    assert (counts.max(axis=0) - counts.min(axis=0))[rare].max() <= 1, "a rare class can be spread to within one image"
    assert np.abs(counts - labels.sum(axis=0) / 10).max() < 3


def test_eleven_images_of_class_27_go_one_to_a_fold_and_two_to_one(real_table, tmp_path):
    assert matrix(read(real_table))[:, 27].sum() == 11
    for seed in (0, 1):
        succeed("make_folds", "--labels", real_table, "--seed", seed, "-o", tmp_path / "folds.csv")
        table = read(tmp_path / "folds.csv")
        held = np.bincount(table["fold"][matrix(table)[:, 27] == 1], minlength=10)
        assert sorted(held) == [1] * 9 + [2]


def test_seed_decides(real_table, tmp_path):
    folds = []
    for number, seed in enumerate((0, 0, 1)):
        succeed("make_folds", "--labels", real_table, "--seed", seed, "-o", tmp_path / f"{number}.csv")
        folds.append(read(tmp_path / f"{number}.csv")["fold"].tolist())
    assert folds[0] == folds[1] != folds[2]


def test_external_rows_are_split_and_always_train_rows_are_not(tmp_path):
    labels = write_labels(tmp_path / "train.csv", {f"k{i}": str(i % 3) for i in range(30)})
    more = write_labels(tmp_path / "more.csv", {f"e{i}": str(i % 3) for i in range(30)})
    only = write_labels(tmp_path / "only.csv", {f"a{i}": "27" for i in range(5)})
    succeed("make_folds", "--labels", labels, "--external", f"hpav18={more}", "--always-train", f"lab={only}",
            "--folds", 5, "-o", tmp_path / "folds.csv")  # fmt: skip
    table = read(tmp_path / "folds.csv")
    assert table["source"].value_counts().to_dict() == {"kaggle": 30, "hpav18": 30, "lab": 5}
    assert (table["fold"][table["source"] == "lab"] == -1).all()
    assert table["fold"][table["source"] != "lab"].value_counts().to_dict() == {fold: 12 for fold in range(5)}


def test_near_duplicates_share_a_fold_even_with_an_always_train_row(atlas, own_atlas, tmp_path):
    """Twins by another exposure, and by a copied file among rows that are only trained on."""
    import shutil

    import cv2

    table = read(own_atlas / "train.csv")
    first, second = table["Id"].iloc[:2]
    for channel in ("red", "green", "blue", "yellow"):
        darker = cv2.imread(str(own_atlas / "train" / f"{first}_{channel}.png"), cv2.IMREAD_UNCHANGED) // 2
        cv2.imwrite(str(own_atlas / "train" / f"dark_{channel}.png"), darker)
        shutil.copy(own_atlas / "train" / f"{second}_{channel}.png", own_atlas / "train" / f"copy_{channel}.png")
    labels = write_labels(tmp_path / "train.csv", dict(zip(table["Id"], table["Target"])) | {"dark": "0"})
    only = write_labels(tmp_path / "only.csv", {"copy": "0"})
    succeed("make_folds", "--labels", labels, "--always-train", f"lab={only}", "--images", own_atlas / "train",
            "--folds", 4, "-o", tmp_path / "folds.csv")  # fmt: skip
    folds = read(tmp_path / "folds.csv").set_index("Id")
    assert folds["fold"]["dark"] == folds["fold"][first] and folds["group"]["dark"] == folds["group"][first]
    assert folds["fold"]["copy"] == folds["fold"][second] >= 0, "training on a validation image's twin would leak"
    pairs = {frozenset(pair) for pair in read(tmp_path / "folds_duplicates.csv")[["Id", "twin"]].to_numpy()}
    assert {frozenset({first, "dark"}), frozenset({second, "copy"})} <= pairs


def test_groups_unbroken_on_the_atlas(folds):
    table = read(folds)
    assert table["group"].nunique() < len(table), "the atlas has near-duplicates"
    assert (table.groupby("group")["fold"].nunique() == 1).all()


def test_different_pictures_are_no_duplicates(tmp_path):
    write_images(tmp_path / "images", [f"i{n}" for n in range(40)], size=64)
    labels = write_labels(tmp_path / "train.csv", {f"i{n}": "0" for n in range(40)})
    result = succeed(
        "make_folds", "--labels", labels, "--images", tmp_path / "images", "--folds", 2, "-o", tmp_path / "f.csv"
    )
    assert "0 pairs" in result.out


@given(st.integers(2, 40), st.integers(0, 12), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_close_pairs_are_those_counted_one_by_one(rows, distance, seed):
    rng = np.random.default_rng(seed)
    hashes = rng.random((rows, 24)) < 0.5
    found = duplicates.close_pairs(hashes, distance, block=7)
    got = {(int(a), int(b)): int(bits) for a, b, bits in found.T}
    want = {(a, b): int((hashes[a] != hashes[b]).sum()) for a in range(rows) for b in range(a + 1, rows)}
    assert got == {pair: bits for pair, bits in want.items() if bits <= distance}


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_groups_of_any_size_stay_whole_and_even(seed, folds):
    rng = np.random.default_rng(seed)
    labels = (rng.random((120, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).astype(np.uint8)
    labels[:, 0] |= ~labels.any(axis=1)
    groups = rng.integers(0, 80, 120).astype(str)
    fold = make_folds.assign_folds(labels, groups, np.zeros(120, bool), dict.fromkeys(range(folds), 1 / folds), seed)
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 0.35 * 120 / folds + 6


def test_evening_out_never_makes_it_worse():
    rng = np.random.default_rng(0)
    counted = np.column_stack(
        [(rng.random((90, 4)) < 0.2) * rng.integers(1, 4, (90, 1)), rng.integers(1, 4, 90)]
    ).astype(float)
    start = rng.integers(0, 3, 90)

    def unevenness(fold):
        table = np.stack([counted[fold == k].sum(axis=0) for k in range(3)])
        return ((table - counted.sum(axis=0) / 3) ** 2 / counted.sum(axis=0)).sum()

    assert unevenness(make_folds.even_out(counted, start.copy(), np.full(3, 1 / 3))) < 0.1 * unevenness(start)


def test_plot_is_drawn(atlas, tmp_path):
    succeed(
        "make_folds",
        "--labels",
        atlas / "train.csv",
        "--folds",
        3,
        "-o",
        tmp_path / "f.csv",
        "--plot",
        tmp_path / "f.png",
    )
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_sources_without_pictures_are_split_unhashed(atlas, tmp_path):
    more = write_labels(tmp_path / "more.csv", {f"e{i}": str(i % 3) for i in range(30)})
    command = ["--labels", atlas / "train.csv", "--images", atlas / "train", "--folds", 3, "-o", tmp_path / "folds.csv"]
    assert "not looked for in source lab" in succeed("make_folds", *command, "--external", f"lab={more}").out
    table = read(tmp_path / "folds.csv")
    assert table["fold"][table["source"] == "lab"].value_counts().max() <= 13 and len(table) == 78
    assert table["group"].nunique() < len(table), "the others are"

"""What explore.ipynb shows: which data, its numbers against pandas, Pillow and closed forms, its figures, and the notebook itself."""

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, succeed, write_images
from example_labels import COLOURS, LABELS, real_labels
from notebook_runner import run
from PIL import Image

from utils.data.labels import HPA_CLASSES
from utils.errors import InputError
from utils.notebook import brightness, duplicate_gallery, file_formats, overview
from utils.notebook.available_data import find_data, open_data
from utils.opencv import cv2
from utils.simulator.plan import Settings
from utils.tools import realism

# Which data


def lay_out(root, atlas, ids, test=True, more=()):
    """Some samples of an atlas where the competition's files would lie, and labels of `more` that have no image."""
    for split, names in (("train", ids), ("test", sorted({path.name[:36] for path in (atlas / "test").iterdir()}))):
        (root / split).mkdir(parents=True, exist_ok=True)
        for name in names if split == "train" or test else ():
            for colour in COLOURS:
                shutil.copy(atlas / split / f"{name}_{colour}.png", root / split)
    table = pd.read_csv(atlas / "train.csv", dtype=str)
    table[table["Id"].isin([*ids, *more])].to_csv(root / "train.csv", index=False)
    return root


@pytest.fixture(scope="module")
def ids(atlas):
    return pd.read_csv(atlas / "train.csv", dtype=str)["Id"].tolist()


def test_where_there_is_nothing_an_atlas_is_drawn_once(tmp_path, capsys):
    small = Settings(6, 3, size=32)
    data = find_data(tmp_path / "input", small)
    said = capsys.readouterr().out
    assert "a small simulated atlas" in said and "6 labelled samples, 3 test samples" in said
    assert data.folder == tmp_path / "input/explore" and not data.real and len(data.train) == 6 and len(data.test) == 3
    before = (data.folder / "atlas.json").stat().st_mtime_ns
    assert find_data(tmp_path / "input", small).train == data.train
    assert (data.folder / "atlas.json").stat().st_mtime_ns == before


def test_the_demo_comes_before_a_drawn_atlas_and_the_competition_before_the_demo(tmp_path, atlas, ids, capsys):
    shutil.copytree(atlas, tmp_path / "demo")
    data = find_data(tmp_path)
    assert not data.real and data.folder == tmp_path / "demo" and len(data.train) == 48
    assert "the simulated atlas of bash run.sh" in capsys.readouterr().out
    shutil.copy(atlas / "train.csv", tmp_path)
    assert not find_data(tmp_path).real, "labels alone are no data to look at"
    data = find_data(lay_out(tmp_path, atlas, ids[:3]))
    assert data.real and sorted(data.train) == sorted(ids[:3]) and len(data.test) == 16
    assert capsys.readouterr().out.splitlines()[-1] == "the competition's files: 3 labelled samples, 16 test samples"
    assert not (tmp_path / "explore").exists()


def test_what_is_missing_is_left_out_and_said(tmp_path, atlas, ids, capsys):
    root = lay_out(tmp_path, atlas, ids[:5], test=False, more=ids[5:9])
    (root / f"train/{ids[1]}_yellow.png").unlink()
    write_images(root / "train", ["stranger"])
    data = find_data(root)
    assert sorted(data.train) == sorted({*ids[:5]} - {ids[1]}) and data.test == {} and len(data.labels) == 9
    assert data.with_images()["Id"].tolist() == [id_ for id_ in data.labels["Id"] if id_ in data.train]
    assert capsys.readouterr().out.strip() == (
        f"the competition's files: 9 labelled samples, 0 test samples; 4 labelled samples with all four images; "
        f"1 sample left out for a missing channel ({ids[1]} has no yellow); 1 sample of train/ without a label"
    )


def test_samples_are_drawn_by_seed_and_damaged_ones_left_out(own_atlas, ids):
    data = open_data(own_atlas, "")
    some = data.sample("train", 10)
    assert len(some) == 10 and data.sample("train", 10) == some != data.sample("train", 10, seed=1)
    assert all(
        [path.name for path in paths] == [f"{id_}_{colour}.png" for colour in COLOURS] for id_, paths in some.items()
    )
    assert sorted(data.sample("train", 1000)) == sorted(ids)
    victim = data.train[ids[0]]["blue"]
    victim.write_bytes(victim.read_bytes()[:-20])
    assert sorted(data.sample("train", 1000)) == sorted(ids[1:])


# Labels


def test_the_real_labels_are_1171_to_1():
    counts = real_labels().sum(axis=0, dtype=int)
    assert counts.max() == counts[0] == 12885 and counts.min() == counts[27] == 11
    assert overview.imbalance(counts) == pytest.approx(12885 / 11) and f"{overview.imbalance(counts):,.0f}" == "1,171"
    assert overview.imbalance([0, 6, 2]) == 3 and np.isnan(overview.imbalance([0, 0]))


def test_co_occurrence_is_the_mean_of_the_rows_that_have_the_class():
    labels = real_labels()
    table, frame = overview.co_occurrence(labels), pd.DataFrame(labels)
    expected = pd.concat([100 * frame[frame[number] == 1].mean() for number in range(28)], axis=1).T
    np.testing.assert_allclose(table, expected)
    assert np.abs(table - table.T).max() > 50, "rows are conditions, so it is not symmetric"
    few = overview.co_occurrence(LABELS)
    assert few[0, 25] == 50 and few[25, 0] == pytest.approx(200 / 3) and few[2, 0] == 100 and few[0, 2] == 50
    assert np.isnan(few[1]).all() and few[0, 1] == 0


def test_the_plainest_image_of_each_class(ids):
    labels = real_labels()[::37]
    names = [str(row) for row in range(len(labels))]
    found = overview.plainest_of_each(labels, names)
    counts = labels.sum(axis=0)
    assert [counts[number] for number, *_ in found] == sorted(counts[counts > 0], reverse=True)
    for number, name, others in found:
        assert labels[int(name), number] and others == labels[labels[:, number] == 1].sum(axis=1).min() - 1
    assert found == overview.plainest_of_each(labels, names) != overview.plainest_of_each(labels, names, seed=1)
    assert [number for number, *_ in overview.plainest_of_each(LABELS, list("abcdef"))] == [0, 25, 2, 27]


def test_a_split_is_read_back_as_it_was_made(atlas, tmp_path):
    train = ["--labels", atlas / "train.csv", "--images", atlas / "train"]
    succeed("make_folds", *train, "--folds", 3, "-o", tmp_path / "folds.csv")
    labels, fold, dealt, parts = overview.split_of(tmp_path / "folds.csv", HPA_CLASSES)
    table = pd.read_csv(tmp_path / "folds.csv")
    assert parts == {0: 1 / 3, 1: 1 / 3, 2: 1 / 3} and dealt.all() and fold.tolist() == table["fold"].tolist()
    assert labels.sum() == table["Target"].astype(str).str.split().str.len().sum()
    table.loc[:4, "fold"], table.loc[5:6, "fold"] = -1, -2
    table.to_csv(tmp_path / "folds.csv", index=False)
    _, fold, dealt, parts = overview.split_of(tmp_path / "folds.csv", HPA_CLASSES)
    assert dealt.sum() == 48 - 7 and sorted(parts) == [0, 1, 2]
    succeed("make_folds", *train, "--split", "8:1:1", "-o", tmp_path / "split.csv")
    _, fold, dealt, parts = overview.split_of(tmp_path / "split.csv", HPA_CLASSES)
    assert dealt.all() and list(parts) == [-1, 0, -2] and sum(parts.values()) == pytest.approx(1) and parts[-1] > 0.6


def test_folds_are_made_of_whole_and_of_partial_data(tmp_path, atlas, ids):
    whole = open_data(atlas, "")
    options = overview.fold_options(whole, tmp_path / "whole.csv")
    assert "near-duplicates: not" not in succeed("make_folds", *options).out
    assert overview.fold_options(whole, tmp_path / "x.csv", most=47)[-1] == -1, (
        "31,072 images are not read for a figure"
    )
    root = lay_out(tmp_path / "one_lacks", atlas, ids)
    (root / f"train/{ids[0]}_yellow.png").unlink()
    assert "--images" in overview.fold_options(open_data(root, ""), tmp_path / "x.csv")
    part = open_data(lay_out(tmp_path / "input", atlas, ids[:5], more=ids[5:]), "")
    assert "near-duplicates: not" in succeed("make_folds", *overview.fold_options(part, tmp_path / "part.csv")).out
    assert [len(pd.read_csv(tmp_path / name)) for name in ("whole.csv", "part.csv")] == [48, 48]


# Pictures and files


def test_channel_means_are_those_of_pillow(atlas, tmp_path):
    data = open_data(atlas, "")
    files = list(data.sample("train", 5).values())
    expected = [[np.asarray(Image.open(path), float).mean() / 255 for path in paths] for paths in files]
    assert brightness.channel_means(files) == pytest.approx(np.array(expected))
    write_images(tmp_path, ["deep"], ["red"], ending="tif", dtype=np.uint16)
    deep = np.asarray(Image.open(tmp_path / "deep_red.tif"), float).mean() / 65535
    assert brightness.channel_means([(tmp_path / "deep_red.tif",)])[0, 0] == pytest.approx(deep, rel=1e-5)
    assert brightness.channel_means([]).shape[0] == 0


def test_brightness_table(capsys):
    means = {"train": np.array([[0.1, 0.2, 0.3, 0.4], [0.3, 0.2, 0.1, 0.4]]), "test": np.array([[0.1, 0.1, 0.1, 0.5]])}
    table = brightness.brightness_table(means, brightness.PUBLISHED)
    assert table["train"].tolist() == pytest.approx([0.2, 0.2, 0.2, 0.4]) and table.index.tolist() == COLOURS
    assert table["change, %"].tolist() == pytest.approx([-50, -50, -50, 25])
    assert table.loc["blue", "test, published"] == 0.0407 and table.loc["yellow", "train, published"] == 0.0828
    alone = brightness.brightness_table({"train": means["train"], "test": np.empty(0)})
    assert alone.columns.tolist() == ["train"]


def test_kinds_of_files_are_told_from_their_headers(tmp_path):
    write_images(tmp_path, ["a", "b"], ["red", "green"], size=20)
    write_images(tmp_path, ["c"], ["red"], size=20, dtype=np.uint16)
    write_images(tmp_path, ["d"], ["red"], size=30, ending="tif", dtype=np.uint16)
    write_images(tmp_path, ["e"], ["red"], size=30, ending="jpg")
    cv2.imwrite(str(tmp_path / "f_red.tif"), np.zeros((10, 12, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "g_red.png"), np.zeros((10, 12, 4), np.uint8))
    groups = [[f"{id_}_{colour}.png" for colour in ("red", "green")] for id_ in "ab"]
    alike = file_formats.file_kinds([[tmp_path / name for name in names] for names in groups])
    assert (
        file_formats.kinds_in_words(alike)
        == "all 4 files that were looked at are alike: 20 x 20 pixels, 8-bit grey, png"
    )
    others = ["c_red.png", "d_red.tif", "e_red.jpg", "f_red.tif", "g_red.png"]
    table = file_formats.file_kinds([[tmp_path / name] for name in [*groups[0], *groups[1], *others]])
    assert {tuple(row) for row in table.to_numpy()} == {
        (20, 20, "8-bit grey", "png", 4), (20, 20, "16-bit grey", "png", 1), (30, 30, "16-bit grey", "tif", 1),
        (30, 30, "8-bit grey", "jpg", 1), (12, 10, "8-bit colour", "tif", 1), (12, 10, "8-bit colour with opacity", "png", 1),
    }  # fmt: skip
    assert table["files"].iloc[
        0
    ] == 4 and "9 files that were looked at are of 6 kinds, in 3 sizes" in file_formats.kinds_in_words(table)
    (tmp_path / "text_red.png").write_text("no picture, but long enough for a header")
    with pytest.raises(InputError, match="text_red.png is not a readable"):
        file_formats.depth(tmp_path / "text_red.png")


# Near-duplicates


def test_the_pairs_that_are_shown_are_real_twins(copies, capsys):
    data, scene = copies
    pairs = duplicate_gallery.find_twins(data)
    true = {where: 0 for where in duplicate_gallery.PLACES}
    names = [*data.train, *data.test]
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            if scene[one] == scene[other]:
                true["train" if other in data.train else "train and test" if one in data.train else "test"] += 1
    assert pairs["bits"].is_monotonic_increasing and true["train"] >= 4 and true["train and test"] >= 4
    assert all(scene[own] == scene[twin] for own, twin in zip(pairs["Id"], pairs["twin"], strict=True))
    for where, (left, right) in {"train": ("train", "train"), "train and test": ("train", "test")}.items():
        some = pairs[pairs["where"] == where]
        assert 0.5 * true[where] <= len(some) <= true[where]
        assert some["Id"].isin(getattr(data, left)).all() and some["twin"].isin(getattr(data, right)).all()
    said = capsys.readouterr().out
    inside = (pairs["where"] == "train").sum()
    assert f"among 60 samples: {inside} within train, " in said
    assert f"with the same labels: {inside} of {inside}" in said and "all pairs:" not in said


def test_a_list_of_twins_is_taken_and_large_data_are_sampled(copies, tmp_path, capsys):
    data, _ = copies
    few = duplicate_gallery.find_twins(data, most=30)
    said = capsys.readouterr().out
    assert "among 30 of 60 samples" in said and f"-o {data.folder / 'twins.csv'}" in said and "--images" in said
    assert len(few) < len(duplicate_gallery.find_twins(data))
    whole = shutil.copytree(data.folder, tmp_path / "atlas")
    command = ["--images", whole / "train", "--images", whole / "test", "-o", whole / "twins.csv"]
    succeed("utils.tools.find_duplicates", *command)
    listed = duplicate_gallery.find_twins(open_data(whole, ""), most=30)
    found = duplicate_gallery.find_twins(data)
    as_set = [
        set(table[["Id", "twin", "where", "bits"]].itertuples(index=False, name=None)) for table in (listed, found)
    ]
    assert as_set[0] == as_set[1] and len(as_set[0]) == len(listed) and listed["bits"].is_monotonic_increasing


def test_pairs_are_picked_from_both_and_their_labels_named(copies):
    data, _ = copies
    pairs = duplicate_gallery.find_twins(data)
    shown = duplicate_gallery.side_by_side(data, pairs, HPA_CLASSES, count=4, size=64)
    inside, across = (pairs[pairs["where"] == where].head(2) for where in ("train", "train and test"))
    assert [ids for _, ids, _ in shown] == list(
        pd.concat([inside, across])[["Id", "twin"]].itertuples(index=False, name=None)
    )
    assert ["both in train" in heading for *_, (heading, _) in shown] == [True, True, False, False]
    assert np.array_equal(shown[0][0][1], data.image(inside["twin"].iloc[0], 64))
    only = duplicate_gallery.side_by_side(
        data, pairs[pairs["where"] == "train and test"], HPA_CLASSES, count=4, size=64
    )
    assert len(only) == 4
    targets = {"a": "0 25", "b": "25 0", "c": "0", "d": ""}
    words = [duplicate_gallery.labels_in_words(pair, targets, HPA_CLASSES) for pair in ("ab", "ac", "cx", "xy", "cd")]
    assert words[0] == "same labels: Nucleoplasm, Cytosol" and words[2] == "label of the training image: Nucleoplasm"
    assert words[1] == "labels differ: Nucleoplasm, Cytosol | Nucleoplasm" and words[3].startswith("no labels")
    assert words[4] == "labels differ: Nucleoplasm | no class"
    table = pd.DataFrame([tuple("ab"), tuple("ac"), tuple("ax")], columns=["Id", "twin"])
    assert duplicate_gallery.same_labels(table, targets) == [True, False, None]


def test_half_of_the_fields_are_real_where_there_are_real_ones(atlas):
    simulated, real = (realism.mixed_fields(open_data(atlas, "", flag), count=3, size=48) for flag in (False, True))
    assert [kind for kind, _ in simulated] == ["simulated"] * 3
    assert sorted(kind for kind, _ in real) == ["real"] * 3 + ["simulated"] * 3
    assert all(image.shape == (48, 48, 4) for _, image in simulated + real)
    chosen = open_data(atlas, "", True).sample("train", 3)
    means = brightness.channel_means(list(chosen.values()))
    got = np.array([image.mean(axis=(0, 1)) / 255 for kind, image in real if kind == "real"])
    assert np.sort(got[:, 0]) == pytest.approx(np.sort(means[:, 0]), abs=0.01), "64² shrunk to 48² keeps its mean"


# The notebook


def test_explore_shows_a_simulated_atlas_when_there_is_nothing_else(tmp_path):
    text, pictures = run(ROOT / "notebooks/explore.ipynb", tmp_path / "kit")
    assert pictures == 10 and "so a small simulated atlas" in text and "300 labelled samples, 100 test samples" in text
    assert "1,600 files that were looked at are alike: 192 x 192 pixels, 8-bit grey" in text
    assert text.splitlines()[-1].count("simulated") == 16 and " real" not in text.splitlines()[-1]
    assert (tmp_path / "kit/input/explore/explore_folds.csv").exists()


def test_explore_shows_the_competitions_files_as_they_lie_there(tmp_path, atlas, ids):
    """Labels without images, a sample without a channel, no test images, someone's folds: and half the fields are real."""
    place = tmp_path / "kit"
    root = lay_out(place / "input", atlas, ids[:12], test=False, more=ids[12:])
    shutil.rmtree(root / "test")
    (root / f"train/{ids[0]}_red.png").unlink()
    (root / "folds.csv").write_bytes(b"")
    succeed("make_folds", "--labels", root / "train.csv", "--hash-distance", -1, "--folds", 4, "-o", root / "folds.csv")
    before = (root / "folds.csv").read_bytes()
    text, pictures = run(ROOT / "notebooks/explore.ipynb", place)
    assert "the competition's files: 48 labelled samples, 0 test samples; 11 labelled samples with all four" in text
    assert f"({ids[0]} has no red)" in text and "train, published" in text and pictures in (9, 10)
    answers = text.splitlines()[-1]
    assert answers.count("real") == answers.count("simulated") == 11
    assert (root / "folds.csv").read_bytes() == before and not (root / "explore_folds.csv").exists()

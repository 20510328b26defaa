"""Facts about a data set against pandas, Pillow and closed forms."""

import numpy as np
import pandas as pd
import pytest
from conftest import succeed, write_images
from example_labels import COLOURS, LABELS, lay_out, real_labels
from PIL import Image

from utils.data.labels import HPA_CLASSES
from utils.errors import InputError
from utils.notebook import overview
from utils.notebook.available_data import open_data
from utils.opencv import cv2


def test_the_real_labels_are_1171_to_1():
    counts = real_labels().sum(axis=0, dtype=int)
    assert counts.max() == counts[0] == 12885 and counts.min() == counts[27] == 11
    assert f"{overview.imbalance(counts):,.0f}" == "1,171"
    assert overview.imbalance([0, 6, 2]) == 3 and np.isnan(overview.imbalance([0, 0]))


def test_co_occurrence_is_the_mean_of_the_rows_that_have_the_class():
    labels = real_labels()
    table, frame = overview.co_occurrence(labels), pd.DataFrame(labels)
    expected = pd.concat([100 * frame[frame[number] == 1].mean() for number in range(28)], axis=1).T
    np.testing.assert_allclose(table, expected)
    assert np.abs(table - table.T).max() > 50, "rows are conditions, so it is not symmetric"
    few = overview.co_occurrence(LABELS)
    assert np.isnan(few[1]).all() and few[0, 1] == 0


def test_the_plainest_image_of_each_class():
    labels = real_labels()[::37]
    names = [str(row) for row in range(len(labels))]
    found = overview.plainest_of_each(labels, names)
    counts = labels.sum(axis=0)
    assert [counts[number] for number, *_ in found] == sorted(counts[counts > 0], reverse=True)
    for number, name, others in found:
        assert labels[int(name), number] and others == labels[labels[:, number] == 1].sum(axis=1).min() - 1
    assert found == overview.plainest_of_each(labels, names) != overview.plainest_of_each(labels, names, seed=1)
    assert [number for number, *_ in overview.plainest_of_each(LABELS, list("abcdef"))] == [0, 25, 2, 27]


def test_a_split_is_read_back_as_it_was_made(atlas, folds, tmp_path):
    labels, fold, dealt, parts = overview.read_split(folds, HPA_CLASSES)
    table = pd.read_csv(folds)
    assert parts == {0: 1 / 3, 1: 1 / 3, 2: 1 / 3} and dealt.all() and fold.tolist() == table["fold"].tolist()
    assert labels.sum() == table["Target"].astype(str).str.split().str.len().sum()
    table.loc[:4, "fold"], table.loc[5:6, "fold"] = -1, -2
    table.to_csv(tmp_path / "folds.csv", index=False)
    _, fold, dealt, parts = overview.read_split(tmp_path / "folds.csv", HPA_CLASSES)
    assert dealt.sum() == 48 - 7 and sorted(parts) == [0, 1, 2]
    labels = ["--labels", atlas / "train.csv", "--hash-distance", -1]
    succeed("make_folds", *labels, "--split", "8:1:1", "-o", tmp_path / "split.csv")
    _, fold, dealt, parts = overview.read_split(tmp_path / "split.csv", HPA_CLASSES)
    assert dealt.all() and list(parts) == [-1, 0, -2] and sum(parts.values()) == pytest.approx(1) and parts[-1] > 0.6


def test_folds_are_made_of_complete_and_of_partial_data(tmp_path, atlas):
    ids = pd.read_csv(atlas / "train.csv", dtype=str)["Id"].tolist()
    whole = open_data(atlas, "")
    assert "--images" in overview.fold_options(whole, tmp_path / "x.csv")
    large = overview.fold_options(whole, tmp_path / "x.csv", most=47)
    assert large[-1] == -1, "31,072 images are not read for a figure"
    part = open_data(lay_out(tmp_path / "input", atlas, ids[:5], more=ids[5:]), "")
    assert "near-duplicates: not" in succeed("make_folds", *overview.fold_options(part, tmp_path / "part.csv")).out
    assert len(pd.read_csv(tmp_path / "part.csv")) == 48


def test_channel_means_are_those_of_pillow(atlas, tmp_path):
    files = list(open_data(atlas, "").sample("train", 5).values())
    expected = [[np.asarray(Image.open(path), float).mean() / 255 for path in paths] for paths in files]
    assert overview.channel_means(files) == pytest.approx(np.array(expected))
    write_images(tmp_path, ["deep"], ["red"], ending="tif", dtype=np.uint16)
    deep = np.asarray(Image.open(tmp_path / "deep_red.tif"), float).mean() / 65535
    assert overview.channel_means([(tmp_path / "deep_red.tif",)])[0, 0] == pytest.approx(deep, rel=1e-5)
    assert overview.channel_means([]).shape[0] == 0


def test_brightness_table():
    means = {"train": np.array([[0.1, 0.2, 0.3, 0.4], [0.3, 0.2, 0.1, 0.4]]), "test": np.array([[0.1, 0.1, 0.1, 0.5]])}
    table = overview.brightness_table(means, overview.PUBLISHED)
    assert table["train"].tolist() == pytest.approx([0.2, 0.2, 0.2, 0.4]) and table.index.tolist() == COLOURS
    assert table["change, %"].tolist() == pytest.approx([-50, -50, -50, 25])
    assert table.loc["blue", "test, published"] == 0.0407 and table.loc["yellow", "train, published"] == 0.0828
    assert overview.brightness_table(means | {"test": np.empty(0)}).columns.tolist() == ["train"]


def test_formats_are_read_from_headers(tmp_path):
    write_images(tmp_path, ["a", "b"], ["red", "green"], size=20)
    write_images(tmp_path, ["c"], ["red"], size=20, dtype=np.uint16)
    write_images(tmp_path, ["d"], ["red"], size=30, ending="tif", dtype=np.uint16)
    write_images(tmp_path, ["e"], ["red"], size=30, ending="jpg")
    cv2.imwrite(str(tmp_path / "f_red.tif"), np.zeros((10, 12, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "g_red.png"), np.zeros((10, 12, 4), np.uint8))
    same = [tmp_path / f"{id_}_{colour}.png" for id_ in "ab" for colour in ("red", "green")]
    text = overview.describe_formats(overview.file_formats([same]))
    assert text == "all 4 files examined are 20 x 20 pixels, 8-bit grey, png"
    others = ["c_red.png", "d_red.tif", "e_red.jpg", "f_red.tif", "g_red.png"]
    table = overview.file_formats([same, *([tmp_path / name] for name in others)])
    assert set(table.itertuples(index=False, name=None)) == {
        (20, 20, "8-bit grey", "png", 4),
        (20, 20, "16-bit grey", "png", 1),
        (30, 30, "16-bit grey", "tif", 1),
        (30, 30, "8-bit grey", "jpg", 1),
        (12, 10, "8-bit colour", "tif", 1),
        (12, 10, "8-bit colour with opacity", "png", 1),
    }
    assert table["files"].iloc[0] == 4
    assert overview.describe_formats(table) == "9 files examined have 6 formats: 3 sizes, 4 depths"
    (tmp_path / "text_red.png").write_text("no image, but long enough for a header")
    with pytest.raises(InputError, match="text_red.png is not a readable"):
        overview.depth(tmp_path / "text_red.png")

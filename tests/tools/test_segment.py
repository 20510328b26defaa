"""python -m utils.tools.segment and score_masks, on cells drawn by hand."""

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed
from drawn_cells import RGBY, draw

from utils.data.masks import cell_table, read_mask, write_mask
from utils.opencv import cv2
from utils.tools.score_masks import bootstrap, compare

SIZE = 128


@pytest.fixture
def images(tmp_path):
    """A folder of three images, the second without cells, and its true masks."""
    image, truth = draw(SIZE)
    for id_, planes, labels in (("a", image, truth), ("b", image * 0, truth * 0), ("c", image[::-1], truth[::-1])):
        for name, plane in zip(RGBY, np.moveaxis(planes, -1, 0), strict=True):
            (tmp_path / "images").mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / "images" / f"{id_}_{name}.png"), plane)
        write_mask(tmp_path / "truth" / f"{id_}.png", labels)
    return tmp_path / "images"


def command(images, *more, workers=1):
    return ["utils.tools.segment", "--images", images, "-o", images.parent / "masks", "--workers", workers, *more]


def test_masks_table_and_figure_of_two_processes(images, tmp_path):
    out = succeed(*command(images, "--figure", tmp_path / "f.png", workers=2)).out
    assert "12 cells in 3 images, 1 of them without a cell" in out
    table = pd.read_csv(tmp_path / "masks/cells.csv")
    assert list(table) == ["Id", "cell", "left", "top", "width", "height", "area", "edge"]
    assert table["Id"].tolist() == ["a"] * 6 + ["c"] * 6 and table["edge"].sum() == 2, "one cell at the border each"
    for id_, rows in table.groupby("Id"):
        labels = read_mask(tmp_path / f"masks/{id_}.png", (SIZE, SIZE))
        assert rows.drop(columns="Id").reset_index(drop=True).equals(cell_table(labels))
    assert cv2.imread(str(tmp_path / "f.png")).std() > 20
    scores = succeed("utils.tools.score_masks", tmp_path / "masks", "--truth", tmp_path / "truth").out
    assert "12 true cells in 3 images" in scores and "recall 1.000 to 1.000, precision 1.000 to 1.000" in scores


def test_images_with_a_mask_are_only_measured(images, tmp_path):
    succeed(*command(images))
    first = pd.read_csv(tmp_path / "masks/cells.csv")
    own = np.zeros((SIZE, SIZE), np.uint16)
    own[5:9, 7:10] = 3
    write_mask(tmp_path / "masks/a.png", own)
    (tmp_path / "masks/c.png").unlink()
    (tmp_path / "masks/cells.csv").unlink()
    succeed(*command(images))
    table = pd.read_csv(tmp_path / "masks/cells.csv")
    assert table[table["Id"] == "a"].iloc[:, 1:].to_numpy().tolist() == [[3, 7, 5, 3, 4, 12, 0]]
    assert table[table["Id"] == "c"].reset_index(drop=True).equals(first[first["Id"] == "c"].reset_index(drop=True))
    succeed(*command(images, "--overwrite"))
    assert pd.read_csv(tmp_path / "masks/cells.csv").equals(first)


def test_a_pixel_size_for_all_and_one_of_each(images, tmp_path):
    """If the field is a thirteenth as wide, the drawn nuclei are too small for nuclei."""
    assert "0 cells" in succeed(*command(images, "--pixel-size", 0.1, "--overwrite")).out
    rows = [{"Id": id_, "blue": f"images/{id_}_blue.png", "red": f"images/{id_}_red.png"} for id_ in "ac"]
    table = pd.DataFrame(rows).assign(pixel_size=["0.1", ""])
    table.to_csv(tmp_path / "images.csv", index=False)
    assert "6 cells in 2 images" in succeed(*command(tmp_path / "images.csv", "--overwrite")).out


def test_bad_images_are_refused_before_the_first_is_segmented_or_left_out(images, tmp_path):
    (images / "b_blue.png").unlink()
    refuse(*command(images), says=["b has no blue channel", "--skip-bad"])
    path = images / "c_red.png"
    path.write_bytes(path.read_bytes()[:300])
    refuse(*command(images), says=["2 unusable", "b has no blue channel", "c_red.png is cut short"])
    assert not (tmp_path / "masks").exists()
    assert "6 cells in 1 image" in succeed(*command(images, "--skip-bad")).out
    for name in ("red", "yellow"):
        (images / f"a_{name}.png").unlink()
    refuse(*command(images, "--skip-bad", "--overwrite"), says="no image is left")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--pixel-size", -1], "--pixel-size -1 is out of range"),
        (["--pixel-size", 4], ["a: pixels of 4 µm are too large to see a cell"]),
        (["--workers", 0], "--workers 0 is out of range"),
        (["--bits", 17], "--bits 17 is out of range"),
        (["--images", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_bad_options(images, tmp_path, more, says):
    refuse(*command(images, *more), says=says)
    assert not (tmp_path / "masks").exists()


def test_masks_of_another_size_and_a_folder_that_is_a_file(images, tmp_path):
    write_mask(tmp_path / "masks/a.png", np.zeros((30, 40), np.uint16))
    refuse(*command(images), says=["masks/a.png has 40x30 pixels", f"{SIZE}x{SIZE}"])
    (tmp_path / "file").write_text("")
    refuse("utils.tools.segment", "--images", images, "-o", tmp_path / "file", says="file is not a folder")


def test_compare_counts_what_is_found_missed_and_invented():
    truth, found = np.zeros((2, 40, 40), np.uint16)
    truth[0:10, 0:10], truth[20:30, 20:30], truth[20:30, 0:9] = 2, 5, 9
    found[0:10, 0:8], found[20:30, 24:36], found[35:38, 35:38] = 1, 4, 7  # IoU .8, .375, nothing
    cells = compare(truth, found, 0.6, pixel=2.0)
    true, own = (cells[cells["true"] == side].set_index("cell") for side in (1, 0))
    assert true["matched"].to_dict() == {2: 1, 5: 0, 9: 0} and own["matched"].to_dict() == {1: 1, 4: 0, 7: 0}
    assert true["iou"].dropna().to_dict() == {2: 0.8} and own["iou"].dropna().to_dict() == {1: 0.8}
    assert true["area"].to_dict() == {2: 400, 5: 400, 9: 360} and (cells["cells"] == 3).all()
    assert true["edge"].to_dict() == {2: 1, 5: 0, 9: 1}
    assert compare(truth, found, 0.3, pixel=2.0)["matched"].sum() == 4
    samples = bootstrap(cells.assign(Id="x"), ["x", "empty"])
    empty = np.isnan(samples[:, 0])
    assert len(samples) == 1000 and 0.2 < empty.mean() < 0.3, "one sample in four has the empty image twice"
    assert np.allclose(samples[~empty], 1 / 3)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "c.png"),
        (["--least", 0], "--least 0 is not an overlap"),
        (["--truth", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_what_cannot_be_scored(images, tmp_path, more, says):
    (tmp_path / "truth/c.png").rename(tmp_path / "c.png")
    for name in "abc":
        write_mask(tmp_path / f"masks/{name}.png", np.zeros((SIZE, SIZE), np.uint16))
    refuse("utils.tools.score_masks", tmp_path / "masks", "--truth", tmp_path / "truth", *more, says=says)


def test_a_folder_without_masks(images, tmp_path):
    (tmp_path / "none").mkdir()
    refuse("utils.tools.score_masks", tmp_path / "none", "--truth", tmp_path / "truth", says="has no <Id>.png files")

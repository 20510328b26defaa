"""Label images of cells: written and read without a number changed, measured, and refused if they are something else."""

import numpy as np
import pytest
import tifffile

from utils.data.masks import cell_table, read_mask, write_mask
from utils.errors import InputError
from utils.opencv import cv2

LABELS = np.zeros((6, 9), np.int32)
LABELS[1:3, 2:5] = 1
LABELS[2, 4] = 7  # over a corner of cell 1
LABELS[4:, 8] = 65535
LABELS[5, 0] = 300
SMALL = np.minimum(LABELS, 255)


def test_masks_keep_every_number(tmp_path):
    write_mask(tmp_path / "a.png", LABELS)
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(np.uint16), metadata=None)
    cv2.imwrite(str(tmp_path / "small.png"), SMALL.astype(np.uint8))
    for name, labels in (("a.png", LABELS), ("a.tif", LABELS), ("small.png", SMALL)):
        read = read_mask(tmp_path / name, (6, 9))
        assert read.dtype == np.int32 and (read == labels).all()
    with pytest.raises(ValueError, match="16 bits"):
        write_mask(tmp_path / "b.png", LABELS + 1)


def test_cells_are_measured():
    table = cell_table(LABELS).set_index("cell")
    assert table.index.tolist() == [1, 7, 300, 65535]
    assert table.loc[1].tolist() == [2, 1, 3, 2, 5, 0]
    assert table.loc[7].tolist() == [4, 2, 1, 1, 1, 0]
    assert table.loc[300].tolist() == [0, 5, 1, 1, 1, 1]
    assert table.loc[65535].tolist() == [8, 4, 1, 2, 2, 1]
    inside = cell_table(np.pad(LABELS, 1))
    assert not inside["edge"].any() and (inside["left"] == table["left"].to_numpy() + 1).all()
    for turned in (LABELS.T, LABELS[::-1], LABELS[:, ::-1]):
        assert cell_table(np.ascontiguousarray(turned))["edge"].tolist() == table["edge"].tolist()
    assert cell_table(np.zeros((4, 4), np.int32)).empty


def test_what_is_not_a_mask_of_the_image_is_refused(tmp_path):
    write_mask(tmp_path / "a.png", LABELS)
    colour = np.dstack([SMALL, 0 * SMALL, 0 * SMALL]).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "colour.png"), colour)
    cv2.imwrite(str(tmp_path / "lossy.jpg"), SMALL.astype(np.uint8))
    tifffile.imwrite(tmp_path / "float.tif", LABELS.astype(np.float32))
    (tmp_path / "page.png").write_text("<html>404 Not Found</html>")
    (tmp_path / "short.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    cases = {"a.png": "9x6 pixels, its image 6x9", "no.png": "cannot be read", "colour.png": "colour image"}
    cases |= {"lossy.jpg": "with loss", "float.tif": "floating-point", "page.png": "not a readable"}
    cases |= {"short.png": "damaged|cut short"}
    for name, words in cases.items():
        with pytest.raises(InputError, match=words) as error:
            read_mask(tmp_path / name, (9, 6) if name == "a.png" else (6, 9))
        assert name in str(error.value)

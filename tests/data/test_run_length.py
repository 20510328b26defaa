"""Masks as text: worked out by hand, and against pycocotools."""

import base64
import zlib

import numpy as np
import pytest

from utils.data.run_length import decode_runs, encode_runs, iou_of_runs, runs_of_cells
from utils.errors import InputError


@pytest.fixture
def coco():
    return pytest.importorskip("pycocotools.mask")


def packed(codes):
    return base64.b64encode(zlib.compress(codes)).decode()


def unpacked(text):
    return zlib.decompress(base64.b64decode(text))


def column(*lengths):
    """A mask of one column, of runs with these lengths, the first outside."""
    return np.repeat(np.arange(len(lengths)) % 2, lengths)[:, None]


def random_masks(seed, count=12):
    """Masks of one image that overlap, of all kinds: coarse and fine, sparse and full, at the borders."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2)
    masks = []
    for block, density in zip(rng.integers(1, 40, count), rng.choice([0.02, 0.5, 0.98, 1], count), strict=True):
        coarse = rng.random((height // block + 1, width // block + 1)) < density
        masks.append(np.kron(coarse, np.ones((block, block)))[:height, :width])
    return np.array(masks, np.uint8)


def runs_of(mask):
    return runs_of_cells(mask.astype(int)).get(1, np.zeros(0, int))


@pytest.mark.parametrize(
    ("mask", "runs", "codes"),
    [
        ([[0, 0], [0, 0]], [], b"4"),
        ([[1, 1], [1, 1]], [0, 4], b"04"),
        ([[0, 0], [0, 1], [0, 0]], [4, 5], b"411"),
        ([[0, 1], [1, 0]], [1, 3], b"121"),  # over the lower border
        (column(1, 1, 2, 3, 1, 2), [1, 2, 4, 7, 8, 10], b"1122OO"),  # 1 1 2, then 3 - 1, 1 - 2, 2 - 3
        (column(100, 16), [100, 116], b"T3`0"),  # 4 + 32 * 3; 16 + 32 * 0, for 16 alone would be -16
    ],
)
def test_masks_encoded_by_hand(mask, runs, codes):
    mask = np.array(mask)
    assert runs_of(mask).tolist() == runs
    assert unpacked(encode_runs(np.array(runs, int), mask.size)) == codes
    assert decode_runs(packed(codes), mask.size).tolist() == runs


@pytest.mark.parametrize("seed", range(8))
def test_masks_are_encoded_and_decoded_as_by_pycocotools(coco, seed):
    for mask in random_masks(seed):
        codes = coco.encode(np.asfortranarray(mask))["counts"]
        assert unpacked(encode_runs(runs_of(mask), mask.size)) == codes
        assert decode_runs(packed(codes), mask.size).tolist() == runs_of(mask).tolist()


def test_each_cell_of_a_label_image_has_its_own_pixels():
    labels = np.random.default_rng(0).integers(0, 5, (30, 40)) * 7
    found = runs_of_cells(labels)
    assert list(found) == [7, 14, 21, 28]
    for cell, runs in found.items():
        steps = np.bincount(runs[::2], minlength=1201) - np.bincount(runs[1::2], minlength=1201)
        assert ((labels == cell) == np.cumsum(steps)[:-1].reshape(40, 30).T).all()


@pytest.mark.parametrize("seed", range(4))
def test_overlaps_are_those_of_pycocotools_and_of_the_pixels(coco, seed):
    masks = random_masks(seed)
    runs = [runs_of(mask) for mask in masks]
    found = iou_of_runs(runs[:7], runs[5:])
    codes = [coco.encode(np.asfortranarray(mask)) for mask in masks]
    assert found == pytest.approx(coco.iou(codes[:7], codes[5:], [0] * 7))
    both, any_ = (rule(masks[:7, None], masks[None, 5:]).sum(axis=(2, 3)) for rule in (np.logical_and, np.logical_or))
    assert (found == both / np.maximum(any_, 1)).all()


def test_overlaps_without_masks_or_pixels():
    one, none = np.array([2, 5]), np.zeros(0, int)
    assert iou_of_runs([], [one]).shape == (0, 1) and iou_of_runs([one], []).shape == (1, 0)
    assert iou_of_runs([one, none], [none, one]).tolist() == [[0, 1], [0, 0]]
    assert iou_of_runs([np.array([0, 2, 2, 4])], [np.array([1, 3])]).tolist() == [[0.5]], "two runs that touch"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("?", "not base64"),
        (base64.b64encode(b"411").decode(), "not base64 of a zlib stream"),
        (base64.b64encode(zlib.compress(b"411")[:-5]).decode(), "not in COCO"),
        (packed(b""), "not in COCO"),
        (packed(b"41T"), "not in COCO"),  # the last number goes on
        (packed(b"4 1"), "not in COCO"),
        (packed(b"4\xff1"), "not in COCO"),
        (packed(b"TTTTTTT1"), "not in COCO"),  # 40 bits
        (packed(b"411" * 10**6), "not in COCO"),  # a bomb
        (packed(b"412"), "image of 7 pixels, not 6"),
        (packed(b"4O3"), "not in COCO"),  # a negative length
    ],
)
def test_other_texts_are_refused(text, says):
    with pytest.raises(InputError, match=says):
        decode_runs(text, 6)

"""python -m utils.tools.score_cells, against its definition on pixels."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

from utils.data.labels import HPA2021_CLASSES, HPA_CLASSES
from utils.data.masks import write_mask
from utils.data.run_length import encode_runs, runs_of_cells
from utils.runs.cell_submission import read_submission
from utils.tools.score_cells import score

SCORE, SHAPE = "utils.tools.score_cells", (40, 30)


def write_submission(path, images):
    """images: {Id: [(class, confidence, mask), …]}"""
    rows = []
    for id_, found in images.items():
        words = [
            f"{name} {value} {encode_runs(runs_of_cells(mask.astype(int))[1], mask.size)}"
            for name, value, mask in found
        ]
        rows.append((id_, SHAPE[1], SHAPE[0], " ".join(words)))
    pd.DataFrame(rows, columns=["ID", "ImageWidth", "ImageHeight", "PredictionString"]).to_csv(path, index=False)
    return path


def random_images(seed, moved=None):
    """{Id: detections} of rectangles that overlap, of few classes; or those of `moved`, shifted, some twice, some of
    another class, and others."""
    rng, images = np.random.default_rng(seed), {}
    for id_ in "abcdef":
        found = []
        for number, _, mask in (moved or {}).get(id_, []):
            for _ in range(rng.choice([0, 1, 1, 2])):
                shifted = np.roll(mask, rng.integers(-2, 3, 2), (0, 1))
                found.append((number if rng.random() < 0.8 else 2, rng.integers(1, 40) / 40, shifted))
        for _ in range(rng.integers(0, 5)):
            top, left = rng.integers(0, 25), rng.integers(0, 15)
            mask = np.zeros(SHAPE, bool)
            mask[top : top + rng.integers(6, 15), left : left + rng.integers(6, 15)] = True
            found.append((rng.choice([0, 3, 7]), rng.integers(1, 40) / 40, mask))
        images[id_] = found
    return images


def plain_average_precision(truth, found, number):
    """From the definition, one detection after the other."""
    detections = [(-value, id_, mask) for id_ in found for name, value, mask in found[id_] if name == number]
    cells = [(id_, mask) for id_ in truth for name, _, mask in truth[id_] if name == number]
    if not cells:
        return None
    taken, curve, right = set(), [], 0
    for seen, (_, id_, mask) in enumerate(sorted(detections, key=lambda one: one[0]), start=1):
        best, least = None, 0.6
        for place, (image, cell) in enumerate(cells):
            if image == id_ and place not in taken:
                iou = (mask & cell).sum() / (mask | cell).sum()
                if iou > least or (iou == least and best is None):
                    best, least = place, iou
        if best is not None:
            taken.add(best)
            right += 1
        curve.append((right / len(cells), right / seen))
    levels = [n / len(cells) for n in range(1, len(cells) + 1)]
    reached = [[precision for recall, precision in curve if recall >= level - 1e-9] for level in levels]
    return sum(max(values, default=0) for values in reached) / len(cells)


@pytest.mark.parametrize("seed", range(6))
def test_the_score_is_that_of_its_definition(tmp_path, seed):
    truth = random_images(seed)
    found = random_images(100 + seed, truth)
    write_submission(tmp_path / "t.csv", truth)
    write_submission(tmp_path / "s.csv", found)
    expected = [plain_average_precision(truth, found, number) for number in range(19)]
    succeed(SCORE, tmp_path / "s.csv", "--truth", tmp_path / "t.csv", "-o", tmp_path / "o.csv", "--draws", 100)
    table = pd.read_csv(tmp_path / "o.csv")
    assert table["ap"].tolist() == pytest.approx(
        [np.nan if value is None else value for value in expected], nan_ok=True
    )
    assert table["class"].tolist() == list(HPA2021_CLASSES) and table["detections"].sum() == sum(
        map(len, found.values())
    )
    assert table["cells"].sum() == sum(map(len, truth.values())) and (table["right"] <= table["detections"]).all()
    known = [value for value in expected if value is not None]
    _, mean = score(read_submission(tmp_path / "s.csv"), read_submission(tmp_path / "t.csv"), 100, 0)
    assert mean[0] == pytest.approx(np.mean(known)) and mean[1] < mean[0] < mean[2]


@pytest.fixture
def cells(tmp_path):
    """Masks, and what the cells show: strengths of 28 classes, some below the least; the last cell shows none."""
    rng = np.random.default_rng(0)
    rows = []
    for id_ in "abc":
        write_mask(tmp_path / "masks" / f"{id_}.png", np.kron(rng.permutation(12).reshape(3, 4), np.ones((9, 7), int)))
        rows += [(id_, cell) for cell in range(1, 12)]
    strengths = rng.uniform(0.26, 1.5, (33, 28)) * (rng.random((33, 28)) < 0.2) + rng.uniform(0, 0.24, (33, 28))
    strengths[-1] = 0.2
    table = pd.DataFrame(rows, columns=["Id", "cell"]).assign(mitotic=0)
    table[list(HPA_CLASSES)] = strengths
    table.to_csv(tmp_path / "truth.csv", index=False)
    pd.DataFrame({"Id": list("abc")}).to_csv(tmp_path / "sample.csv", index=False)
    table[list(HPA_CLASSES)] = (strengths > 0.25).astype(int)
    table.to_csv(tmp_path / "cells.csv", index=False)
    options = ["--format", "2021", "--masks", tmp_path / "masks", "--sample", tmp_path / "sample.csv"]
    succeed("ensemble", tmp_path / "cells.csv", *options, "-o", tmp_path / "s.csv")
    return tmp_path


def test_the_truth_as_a_submission_scores_one(cells):
    for truth in (["truth.csv", "--masks", cells / "masks"], ["s.csv"]):
        out = succeed(SCORE, cells / "s.csv", "--truth", cells / truth[0], *truth[1:], "-o", cells / "o.csv").out
        assert re.search(r"mean of 19 classes, 3 images +1\.000 +1\.000–1\.000\n", out), out
        table = pd.read_csv(cells / "o.csv")
        assert (table["ap"] == 1).all() and (table["cells"] == table["right"]).all() and table["cells"].iloc[-1] == 1
    out = succeed(
        SCORE, cells / "s.csv", "--truth", cells / "truth.csv", "--masks", cells / "masks", "--strength", 2
    ).out
    assert re.search(r"Negative +0\.\d+ .* 33 +1\n", out) and out.count("not in the truth") == 18


def test_wrong_input_is_refused(cells):
    truth = [cells / "s.csv", "--truth", cells / "truth.csv"]
    refuse(SCORE, *truth, says="add --masks")
    refuse(SCORE, *truth, "--masks", cells / "no", says="a.png")
    refuse(SCORE, *truth, "--masks", cells / "masks", "--strength", -1, says="--strength -1.0 is out of range")
    refuse(SCORE, cells / "s.csv", "--truth", cells / "s.csv", "--masks", cells / "masks", says="leave --masks")
    refuse(SCORE, cells / "s.csv", "--truth", cells / "s.csv", "--strength", 0.2, says="and --strength out")
    table = pd.read_csv(cells / "s.csv", dtype=str)
    table.iloc[1:].to_csv(cells / "t.csv", index=False)
    refuse(SCORE, cells / "s.csv", "--truth", cells / "t.csv", says="lacks 1 Id of the submission: a")
    table.assign(ImageWidth="27", ImageHeight="28").to_csv(cells / "t.csv", index=False)
    refuse(SCORE, cells / "s.csv", "--truth", cells / "t.csv", says="another size of 3 images")
    table.assign(PredictionString="").to_csv(cells / "t.csv", index=False)
    refuse(SCORE, cells / "s.csv", "--truth", cells / "t.csv", "-o", cells / "o.csv", says="has no cell in the images")
    strengths = pd.read_csv(cells / "truth.csv", dtype=str)
    strengths.assign(Cytosol="-0.1").to_csv(cells / "t.csv", index=False)
    words = ["--truth", cells / "t.csv", "--masks", cells / "masks"]
    refuse(SCORE, cells / "s.csv", *words, says=["row 2, Cytosol: '-0.1'", "a number of 0 or more"])
    assert not (cells / "o.csv").exists()

"""Tables of cells, and submissions of the single-cell competition of 2021."""

import base64
import zlib

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

from utils.data.labels import HPA2021_CLASSES, HPA_CLASSES
from utils.data.masks import write_mask
from utils.data.run_length import encode_runs, runs_of_cells
from utils.errors import InputError
from utils.runs.cell_submission import read_submission

LABELS = {
    "a": np.kron([[0, 1, 1], [5, 5, 0]], np.ones((4, 4), int)),
    "b": np.kron([[2, 0], [0, 2]], np.ones((6, 5), int)),
}
SIX_PIXELS, SEVEN_PIXELS = (encode_runs(np.array([4, 5]), pixels) for pixels in (6, 7))
CELLS = [("a", 1), ("a", 5), ("b", 2)]


def write_cells(path, scores, classes, cells=CELLS):
    """A table of cells with the scores (N, C) in columns of that name, and columns that are none of a class."""
    table = pd.DataFrame(cells, columns=["Id", "cell"]).assign(left=0, area=9.5, edge="x")
    table[list(classes)] = scores
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def folder(tmp_path):
    """Masks of two images, and a sample submission with a third that has none."""
    for id_, labels in LABELS.items():
        write_mask(tmp_path / "masks" / f"{id_}.png", labels)
    text = "ID,ImageWidth,ImageHeight,PredictionString\nnone,7,9,0 1 x\nb,10,12,0 1 x\na,12,8,0 1 x\n"
    (tmp_path / "sample.csv").write_text(text)
    return tmp_path


def words(folder, *tables):
    return [
        *tables,
        "--format",
        "2021",
        "--masks",
        folder / "masks",
        "--sample",
        folder / "sample.csv",
        "-o",
        folder / "s.csv",
    ]


def test_every_cell_has_every_class_with_its_mask(folder):
    scores = np.random.default_rng(0).random((3, 19))
    scores[0, 0] = 0
    out = succeed("ensemble", *words(folder, write_cells(folder / "c.csv", scores, HPA2021_CLASSES))).out
    assert "1 file, 3 cells, 56 detections" in out and "1 image without any: none" in out
    table = pd.read_csv(folder / "s.csv", keep_default_na=False)
    assert table.iloc[:, :3].values.tolist() == [["none", 7, 9], ["b", 10, 12], ["a", 12, 8]]
    assert table["PredictionString"][0] == ""
    found = read_submission(folder / "s.csv")
    for id_, labels in LABELS.items():
        cells = [cell for image, cell in CELLS if image == id_]
        runs = [runs_of_cells(labels)[cell].tolist() for cell in cells]
        rows = [runs.index(found[id_].masks[place].tolist()) for place in found[id_].mask]
        expected = scores[[image == id_ for image, _ in CELLS]]
        assert (found[id_].confidence == expected[rows, found[id_].classes]).all()
        assert sorted(zip(rows, found[id_].classes)) == list(zip(*np.nonzero(expected))), "each once"


def test_the_text_is_what_the_competition_decodes(folder):
    """As its evaluation page encodes: base64, zlib, COCO's code."""
    coco = pytest.importorskip("pycocotools.mask")
    succeed("ensemble", *words(folder, write_cells(folder / "c.csv", np.eye(3, 19), HPA2021_CLASSES)))
    strings = pd.read_csv(folder / "s.csv", keep_default_na=False).set_index("ID")["PredictionString"]
    number, confidence, text = strings["b"].split()
    codes = {"size": list(LABELS["b"].shape), "counts": zlib.decompress(base64.b64decode(text))}
    assert (number, float(confidence)) == ("2", 1) and (coco.decode(codes) == (LABELS["b"] == 2)).all()


def test_tables_are_averaged_by_cell_after_28_classes_became_19(folder):
    rng = np.random.default_rng(1)
    first, second = rng.random((3, 28)), rng.random((3, 19))
    write_cells(folder / "c.csv", first, HPA_CLASSES)
    write_cells(folder / "d.csv", second[::-1], HPA2021_CLASSES, CELLS[::-1])
    succeed("ensemble", *words(folder, folder / "c.csv", folder / "d.csv"))
    found = read_submission(folder / "s.csv")["b"]
    merged = np.array([first[2, 0], 1 - (1 - first[2, 12]) * (1 - first[2, 13]), 1 - first[2].max()])
    expected = (merged + second[2, [0, 9, 18]]) / 2
    assert found.confidence[[0, 9, 18]] == pytest.approx(expected), "Nucleoplasm, actin and focal adhesions, Negative"


def test_low_scores_may_be_left_out(folder):
    scores = np.tile([0.5, 0.25, *[0.1] * 17], (3, 1))
    table = write_cells(folder / "c.csv", scores, HPA2021_CLASSES)
    assert "3 detections" in succeed("ensemble", *words(folder, table), "--min-score", 0.25).out


def test_without_sizes_in_the_sample_they_are_those_of_the_masks(folder):
    (folder / "sample.csv").write_text("Id\na\nb\n")
    table = write_cells(folder / "c.csv", np.ones((3, 19)), HPA2021_CLASSES)
    succeed("ensemble", *words(folder, table))
    assert pd.read_csv(folder / "s.csv").iloc[:, :3].values.tolist() == [["a", 12, 8], ["b", 10, 12]]


def test_wrong_tables_masks_and_options_are_refused(folder):
    ones, table, bad = np.ones((3, 19)), folder / "c.csv", folder / "bad.csv"
    write_cells(table, ones, HPA2021_CLASSES)

    def refused(*arguments, says):
        refuse("ensemble", *arguments, says=says)
        assert not (folder / "s.csv").exists()

    refused(
        *words(folder, write_cells(bad, ones[:2], HPA2021_CLASSES, CELLS[:2]), table), says=["c.csv and", "cell 2 of b"]
    )
    refused(
        *words(folder, write_cells(bad, ones, HPA2021_CLASSES, CELLS[:2] + CELLS[:1])),
        says="cell 1 of a more than once",
    )
    refused(
        *words(folder, write_cells(bad, ones, HPA2021_CLASSES, [*CELLS[:2], ("b", 3)])), says=["b.png lacks cell 3"]
    )
    refused(*words(folder, write_cells(bad, ones, HPA2021_CLASSES, [*CELLS[:2], ("b", 0)])), says="row 4 ('0')")
    refused(
        *words(folder, write_cells(bad, ones, HPA2021_CLASSES, [*CELLS[:2], ("../b", 2)])),
        says="not usable as a file name",
    )
    refused(
        *words(folder, write_cells(bad, ones, HPA2021_CLASSES, [*CELLS[:2], ("c", 2)])),
        says="lacks 1 Id of the table of cells: c",
    )
    refused(*words(folder, write_cells(bad, ones * 2, HPA2021_CLASSES)), says="row 2, Nucleoplasm: '2.0'")
    refused(*words(folder, write_cells(bad, ones[:, 1:], HPA2021_CLASSES[1:])), says="lacks Nucleoplasm")
    refused(*words(folder, table, table), says="given twice")
    refused(*words(folder), says="name the tables of cells")
    refused(*words(folder, table), "--thresholds", 0.5, says="--thresholds does not go with --format 2021")
    refused(*words(folder, table), "--empty", "leave", says="--empty does not go")
    refused(*words(folder, table), "--min-score", 2, says="--min-score 2.0 is out of range")
    refused(table, "--format", "2021", says="add --masks")
    refused(table, "--thresholds", 0.5, "--masks", folder / "masks", says="--masks is for single cells")
    (folder / "sample.csv").write_text("ID,ImageWidth,ImageHeight\na,12,9\nb,10,12\n")
    refused(*words(folder, table), says=["a.png has 12x8 pixels", "12x9"])
    (folder / "sample.csv").write_text("ID,ImageWidth,ImageHeight\na,12,8.5\nb,10,12\n")
    refused(*words(folder, table), says=["row 2", "ImageWidth and ImageHeight"])
    (folder / "sample.csv").write_text("ID\na\nb\nlost\n")
    refused(*words(folder, table), says="lost.png")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 1", "2 words"),
        (f"19 1 {SIX_PIXELS}", "class '19'"),
        (f"0 nan {SIX_PIXELS}", "confidence 'nan'"),
        (f"0 1 {SEVEN_PIXELS}", "image of 7 pixels, not 6"),
        ("0 1 ?", "not base64"),
    ],
)
def test_a_submission_that_cannot_be_read_is_refused_with_its_row(tmp_path, text, says):
    (tmp_path / "s.csv").write_text(f"ID,ImageWidth,ImageHeight,PredictionString\na,3,2,\nb,3,2,{text}\n")
    with pytest.raises(InputError, match=rf"s.csv, row 3 \(b\): .*{says}"):
        read_submission(tmp_path / "s.csv")

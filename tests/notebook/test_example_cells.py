"""The simulated cells of a notebook, and the colours that it reads from a page of predict.py --cells --sheet."""

import numpy as np
import pandas as pd

from utils.data.image_files import scan_folders
from utils.data.images import CHANNELS, load_sample
from utils.data.labels import HPA_CLASSES
from utils.data.masks import cell_table, read_mask
from utils.notebook import example_cells
from utils.plots import location_sheet
from utils.simulator.sample import TRACE, draw_sample


def test_dividing_cells_have_the_spindle_and_others_their_protein(tmp_path):
    shown = example_cells.write_fields(tmp_path, fields=1, size=64)
    truth, files = pd.read_csv(tmp_path / "cells_truth.csv"), scan_folders([tmp_path / "images"])
    assert sorted(files) == sorted(shown) == pd.read_csv(tmp_path / "sample_submission.csv")["Id"].tolist()
    for index, (id_, locations) in enumerate(shown.items()):
        image = load_sample([files[id_][name] for name in CHANNELS.values()])
        classes = tuple(map(HPA_CLASSES.index, locations.split(", ")))
        assert np.array_equal(image, draw_sample(21, "train", index, classes, 64))
        cells = truth[truth["Id"] == id_].reset_index(drop=True)
        mask = cell_table(read_mask(tmp_path / f"masks/{id_}.png", (64, 64)))
        assert cells[list(mask)].equals(mask) and 1 <= cells["mitotic"].sum() <= 3
        assert ((cells["Mitotic spindle"] > TRACE) == (cells["mitotic"] == 1)).all()
        assert (cells[locations.split(", ")[0]] > TRACE).any()


def test_colours_of_a_page_are_read_by_location(tmp_path):
    labels, colours = np.array([[1, 2], [3, 3]]), {"A & B": "#E69F00", "none": "#999999", "C": "#56B4E9"}
    cells = location_sheet.Cells(labels, {1: "A & B", 2: "none", 3: "A & B"}, colours)
    rows = [location_sheet.Row("C", 0.5, 0.4, 0.3, True)]
    image = np.full((16, 16, 3), 20, np.uint8)
    card = location_sheet.card("x", image, ["red", "green", "blue"], np.ones((2, 2)), rows, cells=cells)
    location_sheet.write_sheet(tmp_path / "page.html", ["runs/a"], 1, 1, [card], cells=True)
    assert example_cells.page_colours(tmp_path / "page.html") == {"A & B": "#E69F00", "none or another": "#999999"}

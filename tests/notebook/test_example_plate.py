"""The simulated plate of a notebook, and the images that it reads from a page of predict.py --sheet."""

import numpy as np
import pandas as pd
import pytest
from conftest import succeed

from utils.data.image_files import scan_folders
from utils.data.images import CHANNELS, load_sample
from utils.data.labels import HPA_CLASSES
from utils.notebook import example_plate
from utils.opencv import cv2
from utils.plots import location_sheet
from utils.runs import location_table
from utils.simulator.sample import draw_sample


def read(folder, table, *options):
    """-> {Id: (H, W, 4)}, red to yellow, as find_images finds them in a folder."""
    succeed("utils.tools.find_images", folder, "-o", table, *options)
    return {
        id_: load_sample([files[name] for name in CHANNELS.values()]) for id_, files in scan_folders([table]).items()
    }


def test_the_files_hold_what_was_drawn(tmp_path):
    drawn = example_plate.write_plate(tmp_path / "plate", sites=1, size=32)
    stains = ["DAPI=blue", "FITC=green", "TRITC=red", "Cy5=yellow"]
    images = read(tmp_path / "plate", tmp_path / "plate.csv", "--stains", *stains)
    wells = pd.read_csv(tmp_path / "plate.csv").set_index("Id")["well"]
    for index, (id_, image) in enumerate(images.items()):
        classes = tuple(HPA_CLASSES.index(name) for name in drawn[wells[id_]].split(", "))
        expected = draw_sample(11, "train", index, classes, 32, bits=16)
        assert np.array_equal((65535 * image).round(), expected)
    example_plate.write_stack(tmp_path / "stack", size=32)
    (image,) = read(tmp_path / "stack", tmp_path / "stack.csv").values()
    expected = draw_sample(12, "train", 0, (HPA_CLASSES.index("Nuclear membrane"),), 32, bits=16)
    assert np.array_equal((65535 * image).round(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_spoiled_images_are_written_as_they_are_returned(tmp_path, dtype):
    files = {}
    for number, name in enumerate(CHANNELS.values()):
        files[name] = tmp_path / f"a_{name}.png"
        noise = np.random.default_rng(number).integers(np.iinfo(dtype).max, size=(48, 40), dtype=dtype)
        cv2.imwrite(str(files[name]), noise)
    made = example_plate.spoil(files, tmp_path / "spoiled")
    found = scan_folders([tmp_path / "spoiled"])
    assert found.keys() == made.keys() == {"out_of_focus", "empty"}
    before = load_sample(list(files.values()))
    for id_, image in made.items():
        again = load_sample([found[id_][name] for name in CHANNELS.values()])
        assert (
            again.dtype == before.dtype and np.allclose(again, image, atol=1 / 65535) and image.std() < before.std() / 2
        )


def test_views_of_a_page_are_its_images_evenly_spaced(tmp_path):
    def card(number):
        image = np.full((16, 16, 3), 20, np.uint8)
        image[:8, :, 1], image[..., 0] = 40 * number, 0
        calls = location_table.call(("A & B", "C"), np.array([[0.9, 0.1]]), np.full(2, 0.5), np.full(2, 0.3))
        rows = location_sheet.rows_of(calls, 0)
        return location_sheet.card(f"<{number}>", image, ["red", "green", "blue"], np.ones((2, 2)), rows)

    location_sheet.write_sheet(tmp_path / "page.html", ["runs/a"], 5, 5, map(card, range(1, 6)))
    images, titles = example_plate.sheet_views(tmp_path / "page.html", 3)
    assert titles == [text for number in (1, 3, 5) for text in (f"<{number}>: A & B", "the protein", "map for A & B")]
    assert [image.shape for image in images] == [(16, 16, 3)] * 9
    assert images[0][2, 8].tolist() == pytest.approx([0, 255, 255], abs=12), "red, green, blue"
    assert [one[12, 8, 1] for one in images[1::3]] == pytest.approx(
        [255 * 20 / 40, 255 * 20 / 120, 255 * 20 / 200], abs=6
    )

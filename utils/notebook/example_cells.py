"""For cells.ipynb: simulated images in which cells divide, with the truth of each cell, and the colours of a page that
predict.py --cells --sheet wrote."""

import html
import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.images import CHANNELS
from utils.data.labels import HPA_CLASSES
from utils.files import whole_file, write_csv
from utils.opencv import cv2
from utils.plots.cell_outlines import OTHER
from utils.simulator.cell_truth import MASKS, write_cell_table, write_cells
from utils.simulator.sample import draw_with_cells

# With the spindle among its locations, each image has one to three cells in mitosis, which lack what they take apart.
PROTEINS = {
    name: (name, "Mitotic spindle")
    for name in ("Nucleoplasm", "Nucleoli", "Golgi apparatus", "Mitochondria", "Cytosol", "Plasma membrane")
}


def write_fields(folder, fields=7, size=256, seed=21):
    """Draw `fields` images of each of `PROTEINS`, ``protein1_field1_red.png``, …, in the folder `images`, with the files of
    `python -m utils.simulator --cells`: masks, cells_truth.csv and sample_submission.csv. -> {Id: locations}."""
    folder, shown = Path(folder), {}
    for index, (protein, field) in enumerate(product(PROTEINS, range(1, fields + 1))):
        id_ = f"protein{[*PROTEINS].index(protein) + 1}_field{field}"
        classes = tuple(map(HPA_CLASSES.index, PROTEINS[protein]))
        image, cells = draw_with_cells(seed, "train", index, classes, size)
        for plane, colour in enumerate(CHANNELS.values()):
            _write(folder / f"images/{id_}_{colour}.png", np.ascontiguousarray(image[..., plane]))
        write_cells(folder / MASKS / f"{id_}.png", cells, size, "kaggle")
        shown[id_] = ", ".join(PROTEINS[protein])
    write_cell_table(folder, shown, "kaggle")
    write_csv(folder / "sample_submission.csv", pd.DataFrame({"Id": sorted(shown)}))
    return shown


def _write(path, plane):
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, "wb") as file:
        file.write(cv2.imencode(".png", plane)[1].tobytes())


def page_colours(path):
    """Read which colours the outlines of a page have: -> {location: "#rrggbb"}, those without a colour of their own as one."""
    found = re.findall(
        r'<i style="background:(#\w{6})"></i>(.*?) [\d,]+</span>', Path(path).read_text(encoding="utf-8")
    )
    colours = {html.unescape(name): colour for colour, name in found}
    return {name: colour for name, colour in colours.items() if colour != OTHER} | {"none or another": OTHER}

"""One writer per library that the kit writes files with."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from utils.engine import checkpoint
from utils.files import whole_file, write_csv, write_json
from utils.opencv import cv2
from utils.plots.style import save


def drawing(path):
    figure = Figure()
    figure.subplots().plot(range(50))
    save(figure, path)


WRITERS = {
    "torch.pt": lambda path: checkpoint.save(path, {"model": [torch.arange(20_000), {"a": 1.5}]}),
    "pandas.csv": lambda path: write_csv(path, pd.DataFrame({"Id": ["ä", "b"] * 4000, "x": np.linspace(0, 1, 8000)})),
    "json.json": lambda path: write_json(path, {"names": ["é" * 50] * 500}),
    "figure.png": drawing,
    "figure.jpg": drawing,
    "numpy.npy": lambda path: write_whole(path, lambda file: np.save(file, np.arange(9000.0).reshape(90, 100))),
    "fortran.npy": lambda path: write_whole(path, lambda file: np.save(file, np.arange(9000.0).reshape(90, 100).T)),
    "cv2.png": lambda path: write_whole(
        path, lambda file: file.write(cv2.imencode(".png", np.eye(200, dtype=np.uint8))[1])
    ),
}


def write_whole(path, function):
    with whole_file(path, "wb") as file:
        function(file)

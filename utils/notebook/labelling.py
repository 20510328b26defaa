"""A small form for notebooks: look at an image, click what you see, and it is kept in a CSV `Id,Target`."""

from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd

from utils import plots
from utils.data.images import find_files, load_sample, parse_channels
from utils.data.labels import read_labels
from utils.errors import InputError
from utils.files import check_writable, write_csv
from utils.opencv import cv2


class Labeller:
    """Shows one image after another, with a button a class; `form` is the widget to display.

    ids: which images, in order. folders: where they lie. classes: names. path: the CSV, written whole after each image;
    images that it names already are not shown again. channels: as in train.py, green among them. A person may save an
    image without a class.
    """

    def __init__(self, ids, folders, classes, path, pixels=512, channels="rgby"):
        check_writable(path)
        self.path, self.classes, self.pixels = Path(path), list(classes), pixels
        self.said = {}
        if self.path.is_file():
            table = read_labels(path, self.classes)
            self.said = dict(zip(table["Id"], table["Target"], strict=True))
        wanted = parse_channels(channels)
        self.channels = wanted.names
        if "green" not in self.channels:
            raise InputError(f"channels {channels!r} lack green, the protein that is asked about")
        self.files = dict(zip(ids, find_files(folders, list(ids), wanted), strict=True))
        self.left = [id_ for id_ in ids if id_ not in self.said]
        self.buttons = [
            widgets.ToggleButton(description=name, layout=widgets.Layout(width="190px")) for name in self.classes
        ]
        self.picture = widgets.Image(format="png", width=pixels)
        self.protein = widgets.Image(format="png", width=pixels)
        self.note = widgets.HTML()
        self.save = widgets.Button(description="save, next", button_style="primary")
        self.skip = widgets.Button(description="skip")
        self.save.on_click(lambda _: self.keep())
        self.skip.on_click(lambda _: self.later())
        rows = widgets.GridBox(self.buttons, layout=widgets.Layout(grid_template_columns="repeat(5, 195px)"))
        self.form = widgets.VBox(
            [self.note, widgets.HBox([self.picture, self.protein]), rows, widgets.HBox([self.save, self.skip])]
        )
        self.show()

    def show(self):
        """The next image, or that there is none."""
        for button in self.buttons:
            button.value = False
        done = f"{len(self.said):,} labelled, {len(self.left):,} to go"
        if not self.left:
            self.note.value = f"{done}: thank you"
            self.save.disabled = self.skip.disabled = True
            return
        image = load_sample(self.files[self.left[0]], self.pixels)
        self.picture.value = _png(plots.in_colour(image, self.channels))
        self.protein.value = _png(plots.stretch(image[..., self.channels.index("green")]))
        self.note.value = f"{done}. Left: nucleus blue, microtubules red, protein green; right: the protein alone"

    def keep(self):
        """Write down what is clicked and go on."""
        if self.left:
            clicked = [str(number) for number, button in enumerate(self.buttons) if button.value]
            said = self.said | {self.left[0]: " ".join(clicked)}
            write_csv(self.path, pd.DataFrame({"Id": list(said), "Target": list(said.values())}))
            self.said, self.left = said, self.left[1:]
            self.show()

    def later(self):
        """Put the image at the end of the queue."""
        self.left = [*self.left[1:], *self.left[:1]]
        self.show()


def _png(picture):
    """(H, W) or (H, W, 3) RGB in [0, 1] -> PNG bytes."""
    pixels = np.round(np.atleast_3d(picture) * 255).astype(np.uint8)
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()

"""For human_vs_machine.ipynb: a form to label images, and simulated predictions and answers as an example."""

from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd

from utils.data.image_files import find_files
from utils.data.images import load_sample, parse_channels
from utils.data.labels import HPA_CLASSES, decode, encode, read_labels
from utils.errors import InputError
from utils.files import check_writable, write_csv
from utils.opencv import cv2
from utils.parallel import cores
from utils.plots.image_sheets import in_colour, stretch
from utils.runs.predictions import write_predictions
from utils.simulator.plan import Settings
from utils.simulator.write import write_atlas


class Labeller:
    """Shows one image after another, with one button per class; `form` is the widget. No class is an answer too.

    ids: the images, in order. folders: image folders. classes: names. path: the CSV `Id,Target`, written after each
    image; images that it already contains are skipped. channels: as in train.py, with green."""

    def __init__(self, ids, folders, classes, path, pixels=512, channels="rgby"):
        check_writable(path)
        self.path, self.pixels, self.answers = Path(path), pixels, {}
        if self.path.is_file():
            table = read_labels(path, list(classes))
            self.answers = dict(zip(table["Id"], table["Target"], strict=True))
        wanted = parse_channels(channels)
        self.channels = wanted.names
        if "green" not in self.channels:
            raise InputError(f"channels {channels!r} lack green, the protein to be labelled")
        self.files = dict(zip(ids, find_files(folders, list(ids), wanted), strict=True))
        self.left = [id_ for id_ in ids if id_ not in self.answers]
        wide = widgets.Layout(width="190px")
        self.buttons = [widgets.ToggleButton(description=name, layout=wide) for name in classes]
        self.image, self.protein = (widgets.Image(format="png", width=pixels) for _ in range(2))
        self.note = widgets.HTML()
        self.save = widgets.Button(description="save, next", button_style="primary")
        self.skip = widgets.Button(description="skip")
        self.save.on_click(lambda _: self.keep())
        self.skip.on_click(lambda _: self.postpone())
        grid = widgets.GridBox(self.buttons, layout=widgets.Layout(grid_template_columns="repeat(5, 195px)"))
        images, actions = widgets.HBox([self.image, self.protein]), widgets.HBox([self.save, self.skip])
        self.form = widgets.VBox([self.note, images, grid, actions])
        self.show()

    def show(self):
        """Show the next image, or a message after the last one."""
        for button in self.buttons:
            button.value = False
        done = f"{len(self.answers):,} labelled, {len(self.left):,} to go"
        if not self.left:
            self.note.value = f"{done}: thank you"
            self.save.disabled = self.skip.disabled = True
            return
        image = load_sample(self.files[self.left[0]], self.pixels)
        self.image.value = _png(in_colour(image, self.channels))
        self.protein.value = _png(stretch(image[..., self.channels.index("green")]))
        self.note.value = f"{done}. Left: nucleus blue, microtubules red, protein green; right: the protein alone"

    def keep(self):
        """Save the selected classes and show the next image."""
        if self.left:
            clicked = [str(number) for number, button in enumerate(self.buttons) if button.value]
            answers = self.answers | {self.left[0]: " ".join(clicked)}
            write_csv(self.path, pd.DataFrame({"Id": list(answers), "Target": list(answers.values())}))
            self.answers, self.left = answers, self.left[1:]
            self.show()

    def postpone(self):
        """Move the image to the end of the queue."""
        self.left = [*self.left[1:], *self.left[:1]]
        self.show()


def _png(image):
    """(H, W) or (H, W, 3) RGB in [0, 1] -> PNG bytes."""
    pixels = np.round(np.atleast_3d(image) * 255).astype(np.uint8)
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def made_up_machine(folder, images=120, seed=0):
    """Simulate images and mostly correct predictions: -> folder of images, labels, predictions, threshold (str)."""
    folder, rng = Path(folder), np.random.default_rng(seed)
    write_atlas(folder, Settings(train=8, test=images, size=128, power=0.5), workers=cores())
    table = read_labels(folder / "solution.csv", HPA_CLASSES)
    truth = encode(table["Target"], HPA_CLASSES)
    probabilities = np.clip(0.55 * truth + rng.normal(0.15, 0.2, truth.shape), 0, 1)
    write_predictions(folder / "predictions.csv", table["Id"], probabilities, HPA_CLASSES)
    return folder / "test", folder / "solution.csv", folder / "predictions.csv", "0.5"


def made_up_person(truth, path, seed=0):
    """Write answers that contain about half of the true labels, and a guess in a quarter of the images: -> path. truth:
    DataFrame Id, Target of these images."""
    rng = np.random.default_rng(seed)
    right = encode(truth["Target"], HPA_CLASSES)
    answers = right & (rng.random(right.shape) < 0.5)
    guesses = np.flatnonzero(rng.random(len(answers)) < 0.25)
    answers[guesses, rng.integers(len(HPA_CLASSES), size=len(guesses))] = 1
    write_csv(path, pd.DataFrame({"Id": truth["Id"], "Target": decode(answers)}))
    return path

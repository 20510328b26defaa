"""The form in which a person labels images: every click is kept, and nothing twice."""

import numpy as np
import pandas as pd
from conftest import write_images

from utils.data.labels import HPA_CLASSES
from utils.notebook.labelling import Labeller
from utils.opencv import cv2

IDS = ["c", "a", "b"]


def click(form, *classes):
    for number in classes:
        form.buttons[number].value = True
    form.save.click()


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("Id")["Target"].to_dict()


def test_clicks_are_kept_at_once_in_kaggles_form(tmp_path):
    write_images(tmp_path, IDS, size=32)
    form = Labeller(IDS, [tmp_path], HPA_CLASSES, tmp_path / "human.csv", pixels=64)
    click(form, 25, 0)
    assert read(tmp_path / "human.csv") == {"c": "0 25"}
    assert not any(button.value for button in form.buttons), "the next image starts with nothing clicked"
    click(form)
    assert read(tmp_path / "human.csv") == {"c": "0 25", "a": ""}, "an image without any class is an answer too"
    click(form, 27)
    assert read(tmp_path / "human.csv") == {"c": "0 25", "a": "", "b": "27"}
    assert form.save.disabled and "thank you" in form.note.value
    click(form, 3)
    assert len(read(tmp_path / "human.csv")) == 3


def test_going_on_later_and_skipping(tmp_path):
    write_images(tmp_path, IDS, size=32)
    first = Labeller(IDS, [tmp_path], HPA_CLASSES, tmp_path / "human.csv", pixels=64)
    first.skip.click()
    click(first, 1)
    second = Labeller(IDS, [tmp_path], HPA_CLASSES, tmp_path / "human.csv", pixels=64)
    assert second.left == ["c", "b"] and second.answers == {"a": "1"}


def test_one_channel_will_do(tmp_path):
    write_images(tmp_path, IDS, channels=("green",), size=32)
    form = Labeller(IDS, [tmp_path], HPA_CLASSES, tmp_path / "human.csv", pixels=64, channels="green")
    click(form, 2)
    assert read(tmp_path / "human.csv") == {"c": "2"}


def test_the_form_shows_the_image_and_not_its_label(tmp_path):
    write_images(tmp_path, IDS, size=32)
    form = Labeller(IDS, [tmp_path], HPA_CLASSES, tmp_path / "human.csv", pixels=64)
    shown, alone = (cv2.imdecode(np.frombuffer(w.value, np.uint8), -1) for w in (form.image, form.protein))
    assert shown.shape == (64, 64, 3) and alone.shape[:2] == (64, 64)
    planes = {
        name: cv2.resize(cv2.imread(str(tmp_path / f"c_{name}.png"), -1), (64, 64)) for name in ("red", "green", "blue")
    }
    for place, name in enumerate(("blue", "green", "red")):  # OpenCV's order
        assert np.corrcoef(shown[..., place].ravel(), planes[name].ravel())[0, 1] > 0.95

"""The page of images: whole in one file, small, and readable by any program."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from utils.opencv import cv2
from utils.plots import location_sheet
from utils.runs import location_table


class Page(HTMLParser):
    """The elements of a page: `images` with their attributes, `texts` by element, `open` elements; fails on a wrong end."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.images, self.open, self.texts = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())


def calls(classes, scores, thresholds):
    return location_table.call(classes, np.array(scores), np.array(thresholds), np.full(len(classes), 0.5))


def page_of(path, *cards, shown=None, total=None):
    count = len(cards)
    location_sheet.write_sheet(path, ["runs/chen"], shown or count, total or count, cards)
    return Page(path.read_text(encoding="utf-8"))


def test_a_page_needs_nothing_else_and_has_a_text_for_each_image(tmp_path):
    rng = np.random.default_rng(0)
    found = calls(("A & <b>", "Golgi", "Cytosol", "Nuclei"), [[0.9, 0.2, 0.1, 0.4]], [0.5, 0.1, 0.5, 0.5])
    rows = location_sheet.rows_of(found, 0)
    assert [row.location for row in rows] == ["A & <b>", "Golgi", "Nuclei"], (
        "the two predicted, and the nearest of the rest"
    )
    image = rng.integers(0, 255, (60, 90, 4), dtype=np.uint8)
    channels = ["red", "green", "blue", "yellow"]
    card = location_sheet.card('a"b', image, channels, np.ones((3, 3), np.float32), rows)
    page = page_of(tmp_path / "p.html", card, shown=1, total=3)
    assert not page.open and page.texts["h2"] == ["A & <b>, Golgi"]
    assert "The first 1 of 3 images, predicted by runs/chen." in page.texts["p"]
    alternatives = [image["alt"] for image in page.images]
    assert len(set(alternatives)) == 3 and all(text.startswith('a"b: ') for text in alternatives)
    assert alternatives[2].endswith("looks for A & <b>")
    assert page.texts["td"] == ["0.900", "0.500", "0.50", "0.200", "0.100", "0.50", "0.400", "0.500", "0.50"]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.images)
    text = (tmp_path / "p.html").read_text()
    assert not any(word in text for word in ("<script", "http", "url(", "@import"))


def test_the_images_are_the_microscopes_colours_at_their_own_proportions():
    image = np.zeros((400, 800, 3), np.uint8)
    image[:, 400:, 2] = 200  # the nucleus, in a channel order that is not RGB
    image[:200, :, 0] = 100  # the protein
    map_ = np.zeros((2, 2), np.float32)
    map_[1, 1] = 1
    rows = location_sheet.rows_of(calls("ab", [[0.9, 0.1]], [0.5, 0.5]), 0)
    page = Page(location_sheet.card("x", image, ["green", "red", "blue"], map_, rows))
    data = [base64.b64decode(image["src"].partition(",")[2]) for image in page.images]
    overlay, protein, marked = (cv2.imdecode(np.frombuffer(one, np.uint8), -1) for one in data)
    assert overlay.shape == (160, 320, 3) and protein.shape == (160, 320) and page.images[0]["width"] == "320"
    bright = [[(overlay[y, x] > 128).tolist() for x in (40, 280)] for y in (40, 120)]
    assert bright == [[[0, 1, 0], [1, 1, 0]], [[0, 0, 0], [1, 0, 0]]], "blue, green, red"
    assert protein[40].min() > 250 and protein[120].max() < 5
    assert marked[159, 319].max() > 150 and marked[159, 0].max() < 10


@pytest.mark.parametrize("height", [320, 2000])
def test_an_image_takes_at_most_60_kb(height):
    """Noise, which no JPEG makes small, and every one of 28 classes."""
    image = np.random.default_rng(0).integers(0, 255, (height, 320, 3), dtype=np.uint8)
    classes = [f"Endoplasmic reticulum {number}" for number in range(28)]
    rows = location_sheet.rows_of(calls(classes, [[0.9] * 28], [0.5] * 28), 0)
    card = location_sheet.card("0" * 36, image, ["red", "green", "blue"], np.eye(16, dtype=np.float32), rows)
    assert len(rows) == 28 and 30_000 < len(card.encode()) <= 60_000


def test_an_image_without_a_location_shows_the_nearest(tmp_path):
    rows = location_sheet.rows_of(calls("abcd", [[0.4, 0.04, 0.1, 0.0]], [0.5, 0.05, 0.5, 0.5]), 0)
    assert [row.location for row in rows] == ["b", "a", "c"] and not any(row.above for row in rows)
    page = Page(location_sheet.card("x", np.ones((9, 9, 1), np.uint8), ["green"], np.zeros((3, 3)), rows))
    assert page.texts["h2"] == ["No location above its threshold"]


def test_cells_are_outlined_in_the_colours_of_the_line_below():
    labels = np.zeros((40, 40), int)
    labels[5:20, 5:20], labels[5:20, 25:35], labels[25:35, 5:35] = 1, 2, 3
    colours = {"Cytosol": "#0072B2", "A & B": "#F0E442"}
    cells = location_sheet.Cells(labels, {1: "Cytosol", 2: "A & B", 3: "Cytosol"}, colours)
    rows = [location_sheet.Row("Cytosol", 0.5, 0.2, 0.8, True)]
    image = np.zeros((40, 40, 3), np.uint8)
    plain, drawn = (
        location_sheet.card("x", image, ["red", "green", "blue"], np.zeros((4, 4)), rows, cells=each)
        for each in (None, cells)
    )
    line = drawn[drawn.index('<p class="cells">') : drawn.index("</p>\n<table>")]
    assert re.sub("<.*?>", "|", line) == "|3 cells: |||Cytosol 2||||A &amp; B 1|"
    assert re.findall("background:(#......)", line) == ["#0072B2", "#F0E442"] and "cells" not in plain
    overlay = cv2.imdecode(np.frombuffer(base64.b64decode(re.search('base64,([^"]+)', drawn)[1]), np.uint8), 1)
    assert np.abs(overlay[5, 12].astype(int) - (0xB2, 0x72, 0)).max() < 40  # blue first; JPEG
    assert overlay[12, 12].max() < 40 and overlay[5, 30, 1:].min() > 150 and overlay[0, 0].max() < 40

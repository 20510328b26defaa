"""For my_images.ipynb: a simulated plate with a microscope's file names, images spoiled on purpose, and the images of a
page that predict.py --sheet wrote."""

import base64
import html
import io
import re
from itertools import product
from pathlib import Path
from textwrap import fill

import numpy as np
import tifffile

from utils.data.images import CHANNELS, load_sample
from utils.data.labels import HPA_CLASSES
from utils.files import whole_file
from utils.opencv import cv2
from utils.simulator.sample import draw_sample
from utils.tools.judge_unlike import damage, damages

STAINS = {"blue": "DAPI", "green": "FITC", "red": "TRITC", "yellow": "Cy5"}  # of each channel, w1 to w4
NAMES = {"blue": "DAPI", "green": "Protein", "red": "Tubulin", "yellow": "ER"}  # of the channels in the OME-TIFF
ORDER = [list(CHANNELS.values()).index(name) for name in STAINS]  # the simulator's planes
WELLS = {
    "B02": ("Nucleoplasm",),
    "B03": ("Nucleoli",),
    "B04": ("Mitochondria",),
    "B05": ("Cytosol", "Plasma membrane"),
    "B06": ("Golgi apparatus",),
    "B07": ("Microtubules",),
}  # what the protein of each well shows
SPOILED = {"out_of_focus": "out of focus, 1/32 of the side", "empty": "empty field"}  # kinds of `damages`


def write_plate(folder, sites=4, size=128, seed=11):
    """Draw `sites` images of each well as 16-bit TIFFs named like MetaXpress's, ``exp1_B02_s1_w1DAPI.TIF``: -> {well:
    locations}."""
    for index, (well, site) in enumerate(product(WELLS, range(1, sites + 1))):
        planes = _draw(WELLS[well], index, size, seed)
        for number, (stain, plane) in enumerate(zip(STAINS.values(), planes), 1):
            _write(Path(folder) / f"exp1_{well}_s{site}_w{number}{stain}.TIF", _tiff(plane, compression="zlib"))
    return {well: ", ".join(names) for well, names in WELLS.items()}


def write_stack(folder, size=128, seed=12):
    """Draw one image, with all channels in one OME-TIFF, ``cells.ome.tif``."""
    planes = _draw(("Nuclear membrane",), 0, size, seed)
    metadata = {"axes": "CYX", "Channel": {"Name": list(NAMES.values())}}
    _write(Path(folder) / "cells.ome.tif", _tiff(planes, ome=True, photometric="minisblack", metadata=metadata))


def _draw(locations, index, size, seed):
    """-> (4, size, size) uint16 in the order of `STAINS`."""
    image = draw_sample(seed, "train", index, tuple(map(HPA_CLASSES.index, locations)), size, bits=16)
    return np.moveaxis(image[..., ORDER], -1, 0)


def _tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def _write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, "wb") as file:
        file.write(data)


def spoil(files, folder, seed=0):
    """Write copies of an image that are out of focus, and without cells, as ``out_of_focus_red.png``, …: -> {Id: (H, W,
    channels)}. files: {channel: path}."""
    image, channels, made = load_sample(list(files.values())), tuple(files), {}
    for id_, kind in SPOILED.items():
        made[id_] = damage(image, damages(channels)[kind], np.random.default_rng(seed))
        levels = made[id_] if image.dtype == np.uint8 else (65535 * made[id_]).round().astype(np.uint16)
        for plane, channel in enumerate(channels):
            data = cv2.imencode(".png", np.ascontiguousarray(levels[..., plane]))[1].tobytes()
            _write(Path(folder) / f"{id_}_{channel}.png", data)
    return made


def sheet_views(path, count):
    """Read up to `count` evenly spaced cards of a page of predict.py --sheet: -> images, (H, W, 3) uint8, and their
    titles. Each card has three: in colour, the protein, and the map."""
    cards = re.findall(r"<article>.*?</article>", Path(path).read_text(encoding="utf-8"), re.DOTALL)
    images, titles = [], []
    for number in np.unique(np.linspace(0, len(cards) - 1, min(count, len(cards))).astype(int)):
        heading, id_, *captions = re.findall(r'<h2>(.*?)</h2>|class="id">(.*?)<|<figcaption>(.*?)<', cards[number])
        texts = (f"{id_[1]}: {heading[0]}", "the protein", captions[2][2].replace("Where the network looks", "map"))
        titles += [fill(html.unescape(text), 27, max_lines=3, placeholder=" …") for text in texts]
        for data in re.findall(r"base64,([^\"]+)", cards[number]):
            pixels = np.frombuffer(base64.b64decode(data), np.uint8)
            images.append(cv2.imdecode(pixels, cv2.IMREAD_COLOR)[..., ::-1])
    return images, titles

"""How the images of a simulated atlas lie on disk: Kaggle's PNGs, or the Cyto Challenge's TIFFs."""

import numpy as np

from utils.data.images import CHANNELS
from utils.files import whole_file
from utils.opencv import cv2
from utils.simulator.plan import DAMAGE, FORM, random_stream, written
from utils.simulator.sample import draw_sample

CYTO_SIDES = ((27 / 32, 0.25), (1, 0.5), (3 / 2, 0.25))  # 1728, 2048 and 3072 of 2048, and how often
RGB_SHARE, EIGHT_BIT_SHARE = 0.1, 0.15  # TIFFs stored in one plane of an RGB file; those with 8 bits
PLANES = {"red": (2,), "green": (1,), "blue": (0,), "yellow": (1, 2)}  # of an image in OpenCV's order
DAMAGES = ("truncated", "empty", "no image", "other size")


def target(classes, settings):
    """The label as written: ``'0 25'``; in the Cyto form the numbers of its 13 classes."""
    return " ".join(map(str, sorted(written(classes, settings.form))))


def file_names(plan, settings):
    """The names of the four files of an image, in the order of `CHANNELS`."""
    end = "tif" if settings.form == "cyto" else "jpg" if plan.split == "external" else "png"
    return [f"{plan.id}_{channel}.{end}" for channel in CHANNELS.values()]


def damage(plan, settings):
    """What is wrong with this image: (one of DAMAGES or '' for nothing, number of the channel that has it)."""
    rng = random_stream(settings.seed, plan.split, plan.index, DAMAGE)
    fault, channel = str(rng.choice(DAMAGES)), int(rng.integers(len(CHANNELS)))
    return fault if rng.random() < settings.corrupt else "", channel


def write_image(out, settings, plan):
    """Draw one image and write its four files under ``out/<split>``, each whole or not at all."""
    rng = random_stream(settings.seed, plan.split, plan.index, FORM)
    size, bits, rgb = settings.size, 8, False
    if settings.form == "cyto":
        factors, shares = zip(*CYTO_SIDES)
        size = round(size * rng.choice(factors, p=shares))
        bits = 8 if rng.random() < EIGHT_BIT_SHARE else 16
        rgb = rng.random() < RGB_SHARE
    image = draw_sample(
        settings.seed, plan.split, plan.index, plan.shows, size, plan.copies, settings.ambiguity, bits
    )  # fmt: skip
    fault, victim = damage(plan, settings)
    for number, name in enumerate(file_names(plan, settings)):
        plane = np.ascontiguousarray(image[..., number])
        data = _encode(plane, name, rgb, fault if number == victim else "")
        with whole_file(out / plan.split / name, "wb") as file:
            file.write(data)


def _encode(plane, name, rgb, fault):
    if fault == "other size":
        plane = cv2.resize(plane, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    if rgb:
        stored = np.zeros((*plane.shape, 3), plane.dtype)
        for number in PLANES[name.rsplit("_", 1)[1].split(".")[0]]:
            stored[..., number] = plane
        plane = stored
    end = name[name.rindex(".") :]
    settings = [cv2.IMWRITE_JPEG_QUALITY, 92] if end == ".jpg" else []
    data = cv2.imencode(end, plane, settings)[1].tobytes()
    return {"truncated": data[: len(data) // 2], "empty": b"", "no image": b"<html>404 Not Found</html>"}.get(
        fault, data
    )

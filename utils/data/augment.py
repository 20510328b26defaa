"""Augmentation: random changes of a training image, and sometimes of its label. Prediction never imports this file.

To add an augmentation, add an entry to `AUGMENTATIONS`.

Chen's augmentation (Fig. 3) applies five groups in sequence, with one random operation of each per image and epoch:

    remove     crop or pad up to 10 % per side | holes of up to 2 % of the area, different per reference channel
    move       flips and quarter turns | rotate | shear | piecewise affine
    change     references: multiply | contrast | edges; protein, gently: multiply | contrast
    sharpen    against the blur of resizing
    negative   an empty protein channel and an empty label

Ranges that the figure lacks are from the author's public code, which differs in three ways: its negative sample empties
a row of pixels instead of the protein channel, one prediction call augments too, and nothing is seeded.
"""

import os
import random

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # do not check for a newer version on import
import albumentations as A  # noqa: E402

from utils.data import transforms  # noqa: E402
from utils.errors import InputError  # noqa: E402
from utils.opencv import cv2  # noqa: E402
from utils.schedule import first_steps, parse_stages, stage_at  # noqa: E402

NEGATIVE_SHARE = 0.035
PROTEIN = "green"
EXAMPLE = "1:chen 20:chen_strong"


def chen(channels, darkest=0.8):
    """Return the groups of Fig. 3 as {group: {operation: transform}}. channels: names; darkest: least brightness factor
    of the reference channels, 0.2 in later epochs."""

    def strengths(references, protein=None):
        return [protein if name == PROTEIN else references for name in channels]

    turned = dict(border_mode=cv2.BORDER_REFLECT_101, p=1)
    groups = {
        "remove": {
            "crop or pad": A.CropAndPad(percent=(-0.1, 0.1), p=1),
            "holes": transforms.Holes(strengths((0, 0.02))),
        },
        "move": {
            "flip or turn": A.D4(p=1),
            "rotate": A.Affine(rotate=(-10, 10), **turned),
            "shear": A.Affine(shear={"x": (-10, 10), "y": (-10, 10)}, **turned),
            "piecewise affine": transforms.PiecewiseAffine((0, 0.05)),
        },
        "change references": {
            "multiply": transforms.Multiply(strengths((darkest, 1.3))),
            "contrast": transforms.Contrast(strengths((0.95, 1.05))),
            "edges": transforms.Edges(strengths((0, 0.1))),
        },
        "change protein": {
            "multiply": transforms.Multiply(strengths(None, (1, 1.15))),
            "contrast": transforms.Contrast(strengths(None, (1, 1.01))),
        },
        "sharpen": {"sharpen": transforms.Sharpen(strengths((0, 0.25), (0.25, 0.25)))},
    }
    alone = {"change references": set(channels) != {PROTEIN}, "change protein": PROTEIN in channels}
    return {name: group for name, group in groups.items() if alone.get(name, True)}


def pipeline(groups):
    """Return a transform that applies one operation of each group in sequence."""
    return A.Compose([A.OneOf(list(group.values()), p=1) for group in groups.values()])


# Name -> (function from channel names to a transform, fraction of negative samples).
AUGMENTATIONS = {
    "none": (lambda channels: None, 0.0),
    "d4": (lambda channels: A.D4(p=1), 0.0),  # flips and quarter turns, all eight equally likely
    "chen": (lambda channels: pipeline(chen(channels)), NEGATIVE_SHARE),
    "chen_strong": (lambda channels: pipeline(chen(channels, darkest=0.2)), NEGATIVE_SHARE),
}


def parse(text):
    """Parse an augmentation schedule: a name of `AUGMENTATIONS`, or stages like "1:chen 20:chen_strong"."""
    stages = parse_stages(text if ":" in text else f"1:{text}", "augmentation", EXAMPLE)
    for stage in stages:
        if stage.value not in AUGMENTATIONS:
            raise InputError(f"augmentation {text!r}: no {stage.value!r} among {', '.join(AUGMENTATIONS)}")
    return stages


def seed_transform(transform, seed):
    """Seed a transform: -> its random.Random, which all its parts share. albumentations' `set_random_seed` would seed
    all parts alike, so that the first operation of one group always occurs with the first of the others."""
    stream = random.Random(seed)
    transform.set_random_state(np.random.default_rng(seed), stream)
    return stream


class Augmentation:
    """The training augmentation of a run, picklable. names: of `AUGMENTATIONS`, one a stage. first_steps: steps before each stage.
    channels: list of names, in order."""

    def __init__(self, names, first_steps, channels):
        self.first_steps = first_steps
        self.transforms = [AUGMENTATIONS[name][0](channels) for name in names]
        self.negative = [AUGMENTATIONS[name][1] if PROTEIN in channels else 0.0 for name in names]
        self.protein = channels.index(PROTEIN) if PROTEIN in channels else None

    def __call__(self, image, targets, step, seed):
        """Augment (H, W, C) uint8 or float32 in [0, 1] and labels (classes,): -> both. step: how many the training has made before.
        `seed` determines all random choices. Without labels (None) no sample becomes negative."""
        stage = stage_at(self.first_steps, step)
        transform = self.transforms[stage]
        if transform is None:
            return image, targets
        stream = seed_transform(transform, seed)
        image = transform(image=image)["image"]
        if targets is not None and stream.random() < self.negative[stage]:
            image, targets = np.array(image), np.zeros_like(targets)
            image[..., self.protein] = 0
        return image, targets


def build(text, channels, steps_per_epoch=1):
    """Return the Augmentation of a schedule such as "1:chen 20:chen_strong", or None if it does nothing."""
    stages = parse(text)
    names = [stage.value for stage in stages]
    steps = first_steps(stages, steps_per_epoch, "augmentation")
    return None if set(names) == {"none"} else Augmentation(names, steps, list(channels))

"""Augmentation: random changes of a training image, and sometimes of its label. Prediction never imports this file.

To add an augmentation, add an entry to `AUGMENTATIONS`.

Chen's augmentation (Fig. 3, "Only one of the parallel operations are chosen for each image in one epoch") applies these
groups in sequence, one operation of each, at random:

    pad                 0 to 10 % on each side, with black or mirrored, then resized back; nothing is cropped
    move                none | rotate | shear | piecewise affine, a little
    distort             piecewise affine
    contrast            of all channels, hardly
    change references   none | edges | multiply | contrast
    holes               up to 2 % of the area, different per reference channel
    sharpen references
    change protein      none | multiply | contrast, gently
    sharpen protein     against the blur of resizing
    flip or turn        one of the eight, equally likely
    negative            an empty protein channel and an empty label, 3.5 %

Order and numbers are those of the author's public code (github.com/KokeCacao/RedstoneTorch, with imgaug). Where the
figure and the code differ, the code counts: the figure draws padding and holes as alternatives, and flips, rotation,
shear and piecewise affine as alternatives, the code pads, distorts, punches and turns every image. The figure's
"negative sample" is what this file does; the author's code empties a row of pixels instead of the protein channel.

Other deviations from the author's code:

    it gives all images the same flip or turn, another one every eight epochs; here each image has its own
    it augments in validation and in one prediction call too, and seeds nothing
    it resizes to the network's size after `contrast`, with one of four interpolations at random; here images have that
        size from the start, and interpolation is linear
    its piecewise affine maps are linear on triangles between the nodes; here on rectangles, in each direction
    its shear also shrinks the height, by up to 1.5 %
    it cuts off fractions of grey values after an operation; here they are rounded
"""

import os
import random
from itertools import groupby

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # do not check for a newer version on import
import albumentations as A  # noqa: E402

from utils.data import transforms  # noqa: E402
from utils.data.images import MISSABLE  # noqa: E402
from utils.errors import InputError  # noqa: E402
from utils.opencv import cv2  # noqa: E402
from utils.schedule import first_steps, parse_stages, stage_at  # noqa: E402

NEGATIVE_SHARE = 0.035
PROTEIN = "green"
EXAMPLE = "1:chen 21:chen_strong"


def chen(channels, darkest=0.8):
    """Return the groups of Chen's augmentation, in sequence: {group: {operation: transform}}.

    channels: names. darkest: least brightness factor of the reference channels, 0.2 in the `chen_strong` of later epochs.
    """
    references = [index for index, name in enumerate(channels) if name != PROTEIN]
    protein = [index for index, name in enumerate(channels) if name == PROTEIN]
    none = transforms.ChannelTransform([], (0, 0))
    groups = {
        "pad": {"pad": _black_or_mirrored(A.CropAndPad, percent=(0, 0.1))},
        "move": {
            "none": A.NoOp(p=1),
            "rotate": _black_or_mirrored(A.Affine, rotate=(-10, 10)),
            "shear": _black_or_mirrored(A.Affine, shear={"x": (-10, 10), "y": 0}),
            "piecewise affine": transforms.PiecewiseAffine((0, 0.02)),
        },
        "distort": {"distort": transforms.PiecewiseAffine((0, 0.05))},
        "contrast": {"contrast": transforms.Contrast(references + protein, (1, 1.01))},
        "change references": {
            "none": none,
            "edges": transforms.Edges(references, (0, 0.1)),
            "multiply": transforms.Multiply(references, (darkest, 1.3)),
            "contrast": transforms.Contrast(references, (0.95, 1.05)),
        },
        "holes": {"holes": transforms.Holes(references, (0, 0.02))},
        "sharpen references": {"sharpen references": transforms.Sharpen(references, (0, 0.25), lightness=(0, 0.45))},
        "change protein": {
            "none": none,
            "multiply": transforms.Multiply(protein, (1, 1.15)),
            "contrast": transforms.Contrast(protein, (1, 1.01)),
        },
        "sharpen protein": {"sharpen protein": transforms.Sharpen(protein, (0.24, 0.26), lightness=(0.44, 0.46))},
        "flip or turn": {"flip or turn": transforms.D4(p=1)},
    }
    without = [] if references else ["change references", "holes", "sharpen references"]
    without += [] if protein else ["change protein", "sharpen protein"]
    return {name: group for name, group in groups.items() if name not in without}


def flips_and_gain(channels):
    """Return groups as `chen` does: `d4`, and the brightness of each channel times a factor of its own. For networks that see
    brightness: --normalise image takes the factor out again, but for what was cut off at white."""
    gain = transforms.Multiply(list(range(len(channels))), (0.5, 1.3))
    return {"flip or turn": {"flip or turn": transforms.D4(p=1)}, "gain": {"gain": gain}}


def _black_or_mirrored(transform, **options):
    """Return a transform that fills what it uncovers with black or with the mirrored image, equally likely."""
    fills = cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101
    return A.OneOf([transform(**options, border_mode=fill, p=1) for fill in fills], p=1)


def pipeline(groups):
    """Return a transform that applies one operation of each group in sequence."""
    steps = []
    operations = [list(group.values()) for group in groups.values()]
    for of_channels, run in groupby(operations, lambda group: isinstance(group[0], transforms.ChannelTransform)):
        run = list(run)
        steps += [transforms.OneOfEach(run)] if of_channels else [A.OneOf(group, p=1) for group in run]
    return A.Compose(steps)


# Name -> (function from channel names to a transform, fraction of negative samples).
AUGMENTATIONS = {
    "none": (lambda channels: None, 0.0),
    "d4": (lambda channels: transforms.D4(p=1), 0.0),  # flips and quarter turns, all eight equally likely
    "gain": (lambda channels: pipeline(flips_and_gain(channels)), 0.0),
    "chen": (lambda channels: pipeline(chen(channels)), NEGATIVE_SHARE),
    "chen_strong": (lambda channels: pipeline(chen(channels, darkest=0.2)), NEGATIVE_SHARE),
}


def parse(text):
    """Parse an augmentation schedule: a name of `AUGMENTATIONS`, or stages like "1:chen 21:chen_strong"."""
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
    channels: list of names, in order. drop: probability of each channel of `MISSABLE` to be black, last of all."""

    def __init__(self, names, first_steps, channels, drop=0.0):
        self.first_steps = first_steps
        self.transforms = [AUGMENTATIONS[name][0](channels) for name in names]
        self.negative = [AUGMENTATIONS[name][1] if PROTEIN in channels else 0.0 for name in names]
        self.protein = channels.index(PROTEIN) if PROTEIN in channels else None
        self.drop, self.missable = drop, [place for place, name in enumerate(channels) if name in MISSABLE]

    def __call__(self, image, targets, step, seed):
        """Augment (H, W, C) uint8 or float32 in [0, 1] and labels (classes,): -> both. step: how many the training has made before.
        `seed` determines all random choices. Without labels (None) no sample becomes negative."""
        stage = stage_at(self.first_steps, step)
        transform = self.transforms[stage]
        stream = random.Random(seed) if transform is None else seed_transform(transform, seed)
        image = image if transform is None else transform(image=image)["image"]
        black = []
        if targets is not None and stream.random() < self.negative[stage]:
            black, targets = [self.protein], np.zeros_like(targets)
        if self.drop:
            black += [place for place in self.missable if stream.random() < self.drop]
        if black:
            image = np.array(image)
            image[..., black] = 0
        return image, targets


def build(text, channels, steps_per_epoch=1, drop=0.0):
    """Return the Augmentation of a schedule such as "1:chen 21:chen_strong", or None if it does nothing. drop: as of it."""
    stages = parse(text)
    names = [stage.value for stage in stages]
    steps = first_steps(stages, steps_per_epoch, "augmentation")
    return None if set(names) == {"none"} and not drop else Augmentation(names, steps, list(channels), drop)

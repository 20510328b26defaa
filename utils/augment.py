"""What training does to an image before the network sees it. Prediction never imports this file."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the network for a newer version
import albumentations as A  # noqa: E402

AUGMENTATIONS = ("none", "d4")


def build(name):
    """An augmentation by name: ``none`` -> None, ``d4`` -> flips and quarter turns, all eight equally likely."""
    return None if name == "none" else Augmentation(A.Compose([A.D4(p=1)]))


class Augmentation:
    """A function (image, seed) -> image that can travel to worker processes. The same seed makes the same choice."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, image, seed):
        """(H, W, C) -> (H, W, C). Seeded anew each time: albumentations would repeat itself in every worker."""
        self.transform.set_random_seed(seed)
        return self.transform(image=image)["image"]

"""Images of two spots, and a network whose classes are these spots."""

import numpy as np
import torch
from conftest import write_images
from torch import nn

from utils.data.image_files import find_files
from utils.data.images import parse_channels
from utils.opencv import cv2
from utils.runs.config import RunConfig


class Spots(nn.Module):
    """Class 0 is as likely as channel 0 has pixels above 0.5, class 1 as channel 1 has."""

    def __init__(self):
        super().__init__()
        self.pick = nn.Conv2d(2, 2, 1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(2, 2)
        self.pick.weight.data = torch.eye(2)[..., None, None]
        self.pick.bias.data = torch.full((2,), -0.5)
        self.head.weight.data, self.head.bias.data = 100 * torch.eye(2) - 30 * torch.eye(2).flip(0), -torch.ones(2)

    def forward(self, images):
        return self.head(self.relu(self.pick(images)).mean(dim=(2, 3)))


CONFIG = RunConfig(["a", "b"], channels="rg", size=32, fit="resize", normalise="none")


def draw_spots(folder, size, places):
    """Black images with a spot of 4² in red and another in green. places: {Id: ((y, x) red, (y, x) green)}."""
    write_images(folder, places, ("red", "green"), 8)
    for id_, both in places.items():
        for name, (y, x) in zip(("red", "green"), both, strict=True):
            plane = np.zeros(size, np.uint8)
            plane[y : y + 4, x : x + 4] = 255
            assert cv2.imwrite(str(folder / f"{id_}_{name}.png"), plane)
    return find_files([folder], list(places), parse_channels("rg"))


PLACES = {"a": ((4, 20), (24, 8)), "b": ((16, 12), (0, 0))}

"""What the kit is compared with: how a competition notebook usually loads these images and predicts."""

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from utils.data import augment
from utils.opencv import cv2

A = augment.A  # imported there, with its question to the network switched off
READERS = {
    "cv2": lambda path: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE),
    "PIL": lambda path: np.array(Image.open(path)),
}
VIEWS = ((), (3,), (2,), (2, 3))  # flipped dimensions: the four of utils/engine/inference.py


class PlainDataset(Dataset):
    """Four grey files an image -> (4, S, S) float32 in [0, 1], (classes,) float32.

    In training: a flip or quarter turn always, and each of the others in half of the cases, as albumentations has it.
    """

    def __init__(self, files, targets, size, training, reader="cv2"):
        self.files, self.targets, self.size, self.read = files, targets.astype(np.float32), size, READERS[reader]
        changes = [
            A.D4(p=1), A.Affine(rotate=(-10, 10), shear=(-10, 10)), A.RandomBrightnessContrast(), A.Sharpen(),
        ]  # fmt: skip
        self.transform = A.Compose(changes) if training else None

    def __len__(self):
        return len(self.files)

    def __getitem__(self, row):
        image = np.stack([self.read(path) for path in self.files[row]], axis=-1)
        if image.shape[:2] != (self.size, self.size):
            image = cv2.resize(image, (self.size, self.size))
        if self.transform:
            image = self.transform(image=image)["image"]
        image = image.astype(np.float32) / 255
        return torch.from_numpy(image.transpose(2, 0, 1)), torch.from_numpy(self.targets[row])


def plain_loader(dataset, batch_size, workers, shuffle=False):
    """A DataLoader as it comes, but for its processes, which stay: their start is no part of what is compared."""
    return DataLoader(dataset, batch_size, shuffle=shuffle, num_workers=workers, persistent_workers=workers > 0)


@torch.no_grad()
def plain_predict(network, loader, mean, std, device):
    """float32, one view after another: -> (N, classes) float32. mean, std: (4,) on the scale 0 to 1."""
    network.eval()
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (mean, std))
    seen = []
    for images, _ in loader:
        images = (images.to(device) - mean) / std
        views = [torch.sigmoid(network(images.flip(dims) if dims else images)) for dims in VIEWS]
        seen.append(torch.stack(views).mean(0).cpu())
    return torch.cat(seen).numpy()

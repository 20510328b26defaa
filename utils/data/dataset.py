"""From files to samples, whose randomness depends on (seed, epoch, row, repeat) only, and normalisation on the device."""

from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from utils.data.cache import Images
from utils.data.crops import corner_crops, random_crop, random_zoom, size_to_load, tiles
from utils.errors import InputError, refusal
from utils.opencv import cv2

IDLE = -1  # instead of a row, while a DataLoader worker reads no sample


class Key(NamedTuple):
    """What a sample follows from. row: ~row for padding (see distributed.py). step: how many steps the training has made
    before. repeat: how many times the row has come before in this epoch. whole: samples of the batch over all
    processes, 0 in a single one."""

    epoch: int
    row: int
    step: int
    repeat: int = 0
    whole: int = 0


class Samples(Dataset):
    """Samples of a list of files, indexed by a `Key` or a tuple like one.

    images: `Images`, or a list of tuples of paths. channels: ChannelSet. size: pixels of the network's square input.
    fit: ``resize`` the whole image to size²; ``zoom``: a random part of it if `random_crop`, else the whole, or its
    `crops`; ``crop``: one random size² crop if `random_crop`, else the tiles that cover the image; ``tiles``: these, each
    normalised as an image of its own. normalise: ``dataset``, ``image`` or ``none``. targets: (N, classes) or None.
    augment: `Augmentation` or None. mix: `Mix` or None, for samples of one image. crops: of `corner_crops`. watch: called
    with the row and the decoded pixels (H, W, channels) of each sample, in the thread or process that reads it; or None.
    """

    def __init__(
        self,
        images,
        channels,
        size,
        fit,
        normalise,
        targets=None,
        augment=None,
        random_crop=False,
        seed=0,
        mix=None,
        crops=1,
        watch=None,
    ):
        self.images = images if isinstance(images, Images) else Images(images, **size_to_load(size, fit))
        self.files, self.channels, self.size, self.fit = self.images.files, channels, size, fit
        self.normalise, self.targets, self.augment, self.mix = normalise, targets, augment, mix
        self.random_crop, self.seed, self.crops, self.watch = random_crop, seed, crops, watch
        self.reading = None  # in a DataLoader worker: its process id, and the row that it reads (see loader.py)

    def __len__(self):
        return len(self.files)

    def bytes_each(self):
        """Return the bytes per image of a batch."""
        return self.size**2 * len(self.channels.names) * self.images.itemsize()

    def __getitems__(self, keys):
        """Return the samples of a batch; a DataLoader calls this."""
        self.images.will_need([max(row, ~row) for _, row, *_ in keys])
        return [self[key] for key in keys]

    def __getitem__(self, key):
        """Return a sample, or an InputError for the main process to raise."""
        epoch, row, step, repeat, whole = Key(*key)
        position = max(row, ~row)
        try:
            image = self._read(position)
            if self.watch:
                self.watch(position, image)
            sample = self.prepare(image, epoch, position, step, repeat)
            return sample | {"rows": row, "whole": whole}
        except Exception as error:
            return refusal(error, self.files[position][0])
        finally:
            if self.reading is not None:
                self.reading[1] = IDLE

    def _read(self, row):
        """Return the pixels of a row; the main process learns which it was if this process dies meanwhile."""
        if self.reading is not None:
            self.reading[1] = row
        return self.images.read(row)

    def prepare(self, image, epoch, row, step=0, repeat=0):
        """Make a sample for `collate` from decoded pixels. Its images (tiles, S, S, C) may share their memory."""
        sample, whole = {"rows": row}, image
        rng = np.random.default_rng((self.seed, epoch, row, repeat) if repeat else (self.seed, epoch, row))
        image, targets = self._view(image, row, rng), self._label(row)
        sees_all = self.fit == "resize"
        if self.mix and rng.random() < self.mix.probability:
            # The partner follows from the sample alone, whatever batch, process or micro-batch it is in.
            partner = int(rng.integers(len(self)))
            other = self._view(self._read(partner), partner, rng)[0], self._label(partner)
            mixed, targets = self.mix((image[0], targets), other, rng)
            image, sees_all = mixed[None], True
        if self.augment:  # only in training, where a sample is one image
            before = image[0] if image.flags.writeable else image[0].copy()  # a view of the packed file is read-only
            augmented, targets = self.augment(before, targets, step, int(rng.integers(2**32)))
            image = augmented[None]
            if self.normalise == "image" and not sees_all:
                whole = _empty_channels_alike(whole, before, augmented)
        if self.normalise == "image" and self.fit == "tiles":
            sample["mean"], sample["std"] = map(np.stack, zip(*(moments(tile, self.channels.mix) for tile in image)))
        elif self.normalise == "image":
            sample["mean"], sample["std"] = moments(image[0] if sees_all else whole, self.channels.mix)
        sample["images"] = image
        if targets is not None:
            sample["targets"] = targets
        return sample

    def _label(self, row):
        return None if self.targets is None else self.targets[row].astype(np.float32)

    def _view(self, image, row, rng):
        """Return what the network sees of an image, in training one tile of it: (tiles, S, S, C)."""
        if self.fit == "resize":
            return image[None]
        if self.fit == "zoom" and self.random_crop:
            return random_zoom(image, self.size, rng)[None]
        if self.fit == "zoom":
            return corner_crops(image, self.size, self.crops)
        height, width = image.shape[:2]
        if min(height, width) < self.size:
            fix = f"give --size {min(height, width)} or less"
            raise InputError(f"{self.files[row][0]} is {width}x{height}, smaller than the crop; {fix}")
        return random_crop(image, self.size, self.size, rng)[None] if self.random_crop else tiles(image, self.size)


def _empty_channels_alike(whole, before, after):
    """Return the whole image without the channels that augmentation has emptied in its crop, as the statistics of an
    empty channel are 0 at test time. Channels whose crop was empty before stay."""
    emptied = before.any(axis=(0, 1)) & ~after.any(axis=(0, 1))
    return whole * ~emptied if emptied.any() else whole


def moments(image, mix=None):
    """Return mean and standard deviation of each input plane of an image, scaled to [0, 1]: two (planes,) float32."""
    pixels = image.reshape(-1, image.shape[-1])
    if mix:
        pixels = pixels.astype(np.float32) @ np.asarray(mix, np.float32).T
    scale = 255.0 if image.dtype == np.uint8 else 1.0
    mean, std = cv2.meanStdDev(np.ascontiguousarray(pixels)[:, None])
    return tuple((values.ravel() / scale).astype(np.float32) for values in (mean, std))


def dataset_moments(samples, count=500):
    """Return mean and std of each input plane over up to `count` evenly spaced samples: two lists of floats."""
    rows = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int))
    means, squares = [], []
    for row in tqdm(rows, desc="measuring mean and std", unit="img", disable=None, leave=False):
        mean, std = (values.astype(np.float64) for values in moments(samples.images.read(row), samples.channels.mix))
        means.append(mean)
        squares.append(std**2 + mean**2)
    mean = np.mean(means, axis=0)
    std = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 1e-8))
    return mean.tolist(), std.tolist()


class Normaliser:
    """Makes the network's input from a batch's images on the device: mix channels, subtract mean, divide by std.

    mix: a ChannelSet's. normalise: as of `Samples`. mean, std: lists (planes,) in [0, 1] for ``dataset``; with
    ``image`` each sample has its own, with ``none`` pixels stay in [0, 1]. dtype: of the result, None for float32.
    """

    def __init__(self, mix, normalise, mean, std, device, dtype=None):
        self.device, self.normalise, self.dtype = device, normalise, dtype or torch.float32
        self.mix = torch.tensor(mix, device=device) if mix else None
        mean, std = (mean, std) if normalise == "dataset" else ([0.0], [1.0])
        self.factor, self.shift = _linear(*(torch.tensor(values, device=device).view(1, -1) for values in (mean, std)))

    def __call__(self, batch):
        """-> (sum of tiles, planes, S, S), channels last."""
        images, factor, shift = batch["images"].to(self.device, non_blocking=True), self.factor, self.shift
        if self.normalise == "image":
            factor, shift = _linear(*(batch[key].to(self.device, non_blocking=True) for key in ("mean", "std")))
        if images.dtype == torch.uint8:
            factor = factor / 255
        if self.mix is not None:
            images = torch.einsum("pc,nchw->nphw", self.mix, images.float())
        images = images.contiguous(memory_format=torch.channels_last)
        # One pass over the pixels multiplies, adds and converts the dtype.
        return torch.addcmul(shift, images, factor, out=torch.empty_like(images, dtype=self.dtype))


def _linear(mean, std):
    """Return factor and shift (N, planes, 1, 1) that normalise by `mean` and `std` (N, planes)."""
    factor = torch.where(std > 1e-6, 1 / std, 0.0)[..., None, None]  # a constant channel becomes zero, not NaN
    return factor, -mean[..., None, None] * factor

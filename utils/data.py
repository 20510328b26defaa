"""From files to batches: uint8 tensors from the workers, normalised on the device.

A batch is a dict:
    images   (sum of tiles, C, S, S) uint8, or float32 in [0, 1] where a file has 16 bits; C channels as read
    tiles    (B,) int64, how many consecutive tiles of `images` belong to each sample
    mean,std (B, planes) float32, the sample's own statistics (per-image normalisation only)
    rows     (B,) int64, positions in the list of files
    targets  (B, classes) float32 (where labels were given)
"""

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from utils import cores
from utils.errors import InputError
from utils.images import load_sample, tiles

FITS = ("resize", "crop")
NORMALISATIONS = ("dataset", "image", "none")


class Samples(Dataset):
    """Samples of one list of files, addressed by (epoch, row) so that all that is random follows from (seed, epoch, row).

    files: list of tuples of paths. channels: ChannelSet. size: pixels of the network's square input.
    fit: ``resize`` the whole image to size², or ``crop``: one random size² crop where `random_crop`, else the tiles that
    cover the image. normalise: one of NORMALISATIONS. targets: (N, classes) or None. augment: an `Augmentation`, which may
    change the label too, or None.
    """

    def __init__(self, files, channels, size, fit, normalise, targets=None, augment=None, random_crop=False, seed=0):
        self.files, self.channels, self.size, self.fit, self.normalise = files, channels, size, fit, normalise
        self.targets, self.augment, self.random_crop, self.seed = targets, augment, random_crop, seed

    def __len__(self):
        return len(self.files)

    def __getitem__(self, key):
        epoch, row = key
        try:
            return self.load(epoch, row)
        except InputError as error:
            return error  # raised again in the main process, where it can be told in one sentence

    def load(self, epoch, row):
        return self.prepare(self.decode(row), epoch, row)

    def decode(self, row):
        """One sample's pixels as load_sample gives them, resized where whole images are."""
        return load_sample(self.files[row], self.size if self.fit == "resize" else None)

    def prepare(self, image, epoch, row):
        """Decoded pixels -> a sample for `collate`."""
        sample, whole = {"rows": row}, image
        rng = np.random.default_rng((self.seed, epoch, row))
        if self.fit == "crop":
            self.check_crop(image, row)
            image = random_crop(image, self.size, rng)[None] if self.random_crop else tiles(image, self.size)
        else:
            image = image[None]
        targets = None if self.targets is None else self.targets[row].astype(np.float32)
        if self.augment:  # only in training, where a sample is one image
            before = image[0]
            augmented, targets = self.augment(before, targets, epoch, int(rng.integers(2**32)))
            image = augmented[None]
            if self.normalise == "image":
                whole = augmented if self.fit == "resize" else emptied_alike(whole, before, augmented)
        if self.normalise == "image":
            sample["mean"], sample["std"] = moments(whole, self.channels.mix)
        sample["images"] = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
        if targets is not None:
            sample["targets"] = torch.from_numpy(targets)
        return sample

    def check_crop(self, image, row):
        if min(image.shape[:2]) < self.size:
            height, width = image.shape[:2]
            raise InputError(
                f"{self.files[row][0]} is {width}x{height}, smaller than the crop; give --size {min(height, width)} or less"
            )


def random_crop(image, size, rng):
    y, x = (int(rng.integers(length - size + 1)) for length in image.shape[:2])
    return image[y : y + size, x : x + size]


def emptied_alike(whole, before, after):
    """The whole image without the channels that augmentation has emptied in its crop, as it would come at test time: there
    an empty channel's mean and deviation are 0. A crop that was dark by itself keeps the whole image's."""
    emptied = before.any(axis=(0, 1)) & ~after.any(axis=(0, 1))
    return whole * ~emptied if emptied.any() else whole


def moments(image, mix=None):
    """Mean and standard deviation of each input plane of one image, on the scale 0 to 1: two (planes,) float32."""
    pixels = image.reshape(-1, image.shape[-1])
    if mix:
        pixels = pixels.astype(np.float32) @ np.asarray(mix, np.float32).T
    scale = 255.0 if image.dtype == np.uint8 else 1.0
    mean, std = cv2.meanStdDev(np.ascontiguousarray(pixels)[:, None])
    return tuple(torch.from_numpy((values.ravel() / scale).astype(np.float32)) for values in (mean, std))


class EpochOrder(Sampler):
    """Yields (epoch, row): shuffled from (seed, epoch) when `shuffle`, in order otherwise. Set `epoch` before each pass."""

    def __init__(self, length, seed=0, shuffle=False):
        self.length, self.seed, self.shuffle, self.epoch = length, seed, shuffle, 0

    def __len__(self):
        return self.length

    def __iter__(self):
        rows = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(rows)
        return iter([(self.epoch, int(row)) for row in rows])


def make_loader(samples, batch_size, workers, device, shuffle=False):
    """A DataLoader over `samples` in an `EpochOrder` (its `.sampler`), with workers that stay between epochs.

    Shuffled, a last batch of one image is left out: another image each epoch.
    """
    order = EpochOrder(len(samples), samples.seed, shuffle)
    # Batch norm learns nothing from a batch of one image.
    lonely = shuffle and len(samples) > batch_size and len(samples) % batch_size == 1
    return DataLoader(
        samples, batch_size, sampler=order, collate_fn=collate, num_workers=workers, pin_memory=device.type == "cuda",
        persistent_workers=workers > 0, prefetch_factor=2 if workers else None,
        drop_last=lonely, generator=torch.Generator(),  # its own, or the loader would draw from the one that dropout uses
    )  # fmt: skip


def pick_workers(wanted, device):
    """Loader processes: `wanted`, or where that is -1 all cores but one beside a GPU; beside training on the CPU, which
    wants the cores itself, one or two."""
    if wanted >= 0:
        return wanted
    return max(1, min(cores() - 1, 16)) if device.type != "cpu" else min(2, max(1, cores() // 4))


def collate(samples):
    """List of samples -> batch (see the top of this file), or the first InputError among them."""
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    images = [sample["images"] for sample in samples]
    if len({image.dtype for image in images}) > 1:
        images = [to_unit(image) for image in images]
    batch = {"images": torch.cat(images), "tiles": torch.tensor([len(image) for image in images])}
    batch["rows"] = torch.tensor([sample["rows"] for sample in samples])
    for key in ("mean", "std", "targets"):
        if key in samples[0]:
            batch[key] = torch.stack([sample[key] for sample in samples])
    return batch


def to_unit(images):
    """uint8 or float pixels -> float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def batches(loader):
    """Iterate a loader, raising in the main process what a worker found wrong with a file."""
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


class Normaliser:
    """Turns a batch's images into the network's input on the device: scale, mix channels, subtract mean, divide by std.

    mix: a ChannelSet's. normalise: one of NORMALISATIONS. mean, std: lists (planes,) on the scale 0 to 1, for
    ``dataset``; with ``image`` each sample brings its own, with ``none`` pixels stay in [0, 1].
    """

    def __init__(self, mix, normalise, mean, std, device):
        self.device, self.normalise = device, normalise
        self.mix = torch.tensor(mix, device=device) if mix else None
        if normalise == "dataset":
            self.mean, self.std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (mean, std))

    def __call__(self, batch):
        """-> (sum of tiles, planes, S, S) float32, channels last."""
        images = to_unit(batch["images"].to(self.device, non_blocking=True))
        if self.mix is not None:
            images = torch.einsum("pc,nchw->nphw", self.mix, images)
        if self.normalise == "dataset":
            images = (images - self.mean) / self.std
        elif self.normalise == "image":
            mean, std = (
                batch[key].to(self.device).repeat_interleave(batch["tiles"].to(self.device), dim=0)[..., None, None]
                for key in ("mean", "std")
            )
            images = (images - mean) / std.clamp(min=1e-6)  # a blank channel becomes zero, not NaN
        return images.contiguous(memory_format=torch.channels_last)


def dataset_moments(samples, count=500):
    """Mean and std of each input plane over up to `count` samples, evenly spread over the list: two lists of floats."""
    rows = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int))
    firsts, seconds = [], []
    for row in tqdm(rows, desc="measuring mean and spread", unit="img", disable=None, leave=False):
        image = samples.decode(row)
        mean, std = moments(image, samples.channels.mix)
        firsts.append(mean.double())
        seconds.append(std.double() ** 2 + mean.double() ** 2)
    mean = torch.stack(firsts).mean(0)
    std = (torch.stack(seconds).mean(0) - mean**2).clamp(min=1e-8).sqrt()
    return mean.tolist(), std.tolist()

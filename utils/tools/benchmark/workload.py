"""Images, labels and networks for the benchmark, and the plain code with which the kit is compared."""

import contextlib
import io
import itertools
import sys
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import Dataset

from utils import models
from utils.data import augment
from utils.data.cache import Images, open_images
from utils.data.dataset import Normaliser, Samples
from utils.data.image_files import find_files, scan_folder
from utils.data.images import parse_channels
from utils.data.labels import HPA_CLASSES, encode
from utils.data.loader import pick_workers
from utils.device import amp_dtype, pick_device, prefetch_to_device
from utils.engine import losses
from utils.engine.recipes import RECIPES
from utils.engine.trainer import Trainer
from utils.errors import InputError, plural
from utils.opencv import cv2
from utils.runs.config import RunConfig
from utils.simulator import write
from utils.simulator.plan import Settings, label_sets

RGBY = parse_channels("rgby")
MEAN, STD = [0.081, 0.053, 0.055, 0.083], [0.137, 0.101, 0.153, 0.138]  # of the competition's images, published
DEFAULT_COUNT = 64  # samples: at 512² too large for a processor's cache


class Workload:
    """args: the command line (see __main__.py). folder: Path for temporary files."""

    def __init__(self, args, folder):
        self.args, self.folder, self.device = args, folder, pick_device(args.device)
        self.amp = amp_dtype("auto", self.device)
        self.workers = pick_workers(args.workers, self.device)
        self.batch_size = args.batch_size or (4 if self.device.type == "cpu" else 64)

    @cached_property
    def images_folder(self):
        """The folder of --images, or a new one with simulated fields."""
        if self.args.images:
            return self.args.images
        settings = Settings(self.args.count or DEFAULT_COUNT, 0, size=self.args.size, power=0.5, duplicates=0.0)
        print(f"simulating {plural(settings.train, 'field')} of {settings.size}²", file=sys.stderr, flush=True)
        write.write_atlas(self.folder / "atlas", settings, self.workers)
        return self.folder / "atlas" / "train"

    @cached_property
    def files(self):
        """Paths of each sample's channels: list of tuples."""
        found = scan_folder(self.images_folder)
        return find_files([self.images_folder], sorted(found)[: self.args.count or DEFAULT_COUNT], RGBY, found)

    def packed(self, codec="raw"):
        """Pack the samples with this codec, unless an earlier call did: -> `Images`."""
        folder = str(self.folder / codec)
        with contextlib.redirect_stdout(io.StringIO()):
            images, _ = open_images(self.files, RGBY.names, self.args.size, "resize", folder, codec=codec)
        if (images.table["pack"] < 0).any():
            raise InputError(f"packed images do not fit into {self.folder.parent}; set TMPDIR, or give a lower --count")
        return images

    def decoded(self):
        """-> the samples as `Images` that are decoded at each access."""
        return Images(self.files, self.args.size)

    def samples(self, images, augmented=False):
        """-> `Samples` as in train.py with recipe chen, with random labels."""
        augmentation = augment.build("chen", RGBY.names) if augmented else None
        return Samples(images, RGBY, self.args.size, "resize", "dataset", draw_labels(len(images)), augmentation)

    def normaliser(self, amp=None):
        return Normaliser(None, "dataset", MEAN, STD, self.device, amp)

    def network(self, size):
        """Build the network with random weights, on the device, channels last."""
        torch.manual_seed(0)
        network = models.build(self.args.model, len(HPA_CLASSES), RGBY.planes, size, self.args.head)
        return network.to(self.device, memory_format=torch.channels_last)

    def trainer(self, size, batch_size, amp="auto", **options):
        """-> a `Trainer` in its first epoch, with recipe chen; `options` replace the recipe's."""
        options = {"model": self.args.model, "size": size, "batch_size": batch_size} | options
        config = RunConfig(**RECIPES["chen"] | options, class_names=list(HPA_CLASSES), mean=MEAN, std=STD)
        labelled = Samples([], RGBY, size, "resize", "dataset", draw_labels(1000))
        schedule, amp = losses.parse_schedule(config.loss), amp_dtype(amp, self.device)
        trainer = Trainer(self.network(size), labelled, config, schedule, self.device, amp, steps_per_epoch=437)
        trainer.begin_epoch()
        return trainer

    def noise(self, size, batch_size, count=8):
        """-> a `Feed` that repeats `count` batches of noise."""
        batches = [self.random_batch(size, batch_size, seed) for seed in range(count)]
        return Feed(itertools.cycle(batches), self.device)

    def random_batch(self, size, batch_size, seed=0):
        """-> a batch of noise in the format of `collate`."""
        pixels = np.random.default_rng(seed).integers(0, 256, (batch_size, size, size, RGBY.planes), dtype=np.uint8)
        images, targets = torch.from_numpy(pixels), torch.from_numpy(draw_labels(batch_size, seed).astype(np.float32))
        images = images.pin_memory() if self.device.type == "cuda" else images
        batch = {"images": images.permute(0, 3, 1, 2), "targets": targets, "rows": torch.arange(batch_size)}
        return batch | {"tiles": torch.ones(batch_size, dtype=torch.int64)}


class Feed:
    """Batches for training. As in train.py, each is fetched while the device computes on the previous one; on a GPU it
    is copied on a separate stream, from pinned memory."""

    def __init__(self, batches, device):
        self.source = prefetch_to_device(batches, device)
        self.batch = next(self.source)

    def step(self, trainer):
        """Train on the next batch and wait for its loss: -> the curves of the step."""
        following = []
        curves = trainer.train_step(self.batch, lambda: following.append(next(self.source)) or 0)
        self.batch = following.pop()
        return curves


def repeated(images, count):
    """-> `Images` of `count` samples: the given ones, repeated."""
    return images[(np.arange(count) % len(images)).tolist()]


def draw_targets(count, seed=0):
    """Draw `Target` strings with the competition's frequencies (utils/simulator/label_sets.csv)."""
    sets, counts = label_sets()
    drawn = np.random.default_rng(seed).choice(len(sets), count, p=counts / counts.sum())
    return [" ".join(map(str, sets[number])) for number in drawn]


def draw_labels(count, seed=0):
    """-> (count, 28) uint8."""
    return encode(draw_targets(count, seed), HPA_CLASSES)


# The plain code: how a competition notebook usually loads these images and predicts.

FLIPS = ((), (3,), (2,), (2, 3))  # dimensions: the four TTA views of utils/engine/inference.py


class PlainDataset(Dataset):
    """Four grey files per image -> (4, S, S) float32 in [0, 1], (classes,) float32.

    In training: always one of the eight flips and rotations; each other transform with probability 0.5."""

    def __init__(self, files, targets, size, training):
        self.files, self.targets, self.size = files, targets.astype(np.float32), size
        A = augment.A  # imported there, with albumentations' version check switched off
        changes = [A.D4(p=1), A.Affine(rotate=(-10, 10), shear=(-10, 10)), A.RandomBrightnessContrast(), A.Sharpen()]
        self.transform = A.Compose(changes) if training else None

    def __len__(self):
        return len(self.files)

    def __getitem__(self, row):
        image = np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in self.files[row]], axis=-1)
        if image.shape[:2] != (self.size, self.size):
            image = cv2.resize(image, (self.size, self.size))
        if self.transform:
            image = self.transform(image=image)["image"]
        image = image.astype(np.float32) / 255
        return torch.from_numpy(image.transpose(2, 0, 1)), torch.from_numpy(self.targets[row])


@torch.no_grad()
def plain_predict(network, loader, device, mean=MEAN, std=STD):
    """Predict in float32, one TTA view after another: -> (N, classes) float32. mean, std: (4,), in [0, 1]."""
    network.eval()
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (mean, std))
    results = []
    for images, _ in loader:
        images = (images.to(device) - mean) / std
        views = [torch.sigmoid(network(images.flip(dims) if dims else images)) for dims in FLIPS]
        results.append(torch.stack(views).mean(0).cpu())
    return torch.cat(results).numpy()

"""What the subjects share: images and their packed copies, labels, a network, and a folder that goes when all is done."""

import contextlib
import io
import itertools
import sys
from functools import cached_property
from unittest import mock

import numpy as np
import torch

from utils import models
from utils.data import augment, cache
from utils.data.cache import Images
from utils.data.dataset import Samples
from utils.data.images import find_files, parse_channels, scan_folder
from utils.data.labels import HPA_CLASSES, encode
from utils.data.loader import pick_workers
from utils.device import amp_dtype, pick_device, prefetch_to_device
from utils.engine import losses
from utils.engine.recipes import RECIPES
from utils.engine.trainer import Trainer
from utils.errors import InputError, plural
from utils.simulator import write
from utils.simulator.plan import Settings, label_sets

RGBY = parse_channels("rgby")
MEAN, STD = (
    [0.081, 0.053, 0.055, 0.083],
    [0.137, 0.101, 0.153, 0.138],
)  # the competition's training images, as published
COUNT = 64  # samples, unless --count says another number: more than a processor's cache holds at 512²


class Bench:
    """args: the command line (see __main__.py). folder: a Path for all that is written on the way."""

    def __init__(self, args, folder):
        self.args, self.folder, self.device = args, folder, pick_device(args.device)
        self.amp = amp_dtype("auto", self.device)
        self.workers = pick_workers(args.workers, self.device)
        self.batch_size = args.batch_size or (4 if self.device.type == "cpu" else 64)
        self._packed = {}

    @cached_property
    def images_folder(self):
        """That of --images, or one of simulated fields, drawn now."""
        if self.args.images:
            return self.args.images
        settings = Settings(self.args.count or COUNT, 0, size=self.args.size, power=0.5, duplicates=0.0)
        print(f"drawing {plural(settings.train, 'field')} of {settings.size}²", file=sys.stderr, flush=True)
        write.write_atlas(self.folder / "atlas", settings, self.workers)
        return self.folder / "atlas" / "train"

    @cached_property
    def files(self):
        """Paths of the samples' channels, a list of tuples."""
        found = scan_folder(self.images_folder)
        ids = sorted(found)[: self.args.count or COUNT]
        return find_files([self.images_folder], ids, RGBY, found)

    def packed(self, codec="raw"):
        """The samples packed with this codec, whatever room the disk has: `Images`."""
        if codec not in self._packed:
            with mock.patch.object(cache, "choose", lambda *_: codec), contextlib.redirect_stdout(io.StringIO()):
                images, _ = cache.open_images(
                    self.files, RGBY.names, self.args.size, "resize", str(self.folder / codec)
                )
            if (images.table["pack"] < 0).any():
                raise InputError(
                    f"packed copies do not fit into {self.folder.parent}; set TMPDIR, or give a lower --count"
                )
            self._packed[codec] = images
        return self._packed[codec]

    def decoded(self):
        """The samples as `Images` that are decoded each time."""
        return Images(self.files, self.args.size)

    def samples(self, images, augmented=False):
        """`Samples` as train.py makes them of recipe chen, with labels drawn for them."""
        augmentation = augment.build("chen", RGBY.names) if augmented else None
        return Samples(images, RGBY, self.args.size, "resize", "dataset", draw_labels(len(images)), augmentation)

    def network(self, size):
        """With random weights, where and as the kit keeps it."""
        torch.manual_seed(0)
        network = models.build(self.args.model, len(HPA_CLASSES), RGBY.planes, size)
        return network.to(self.device, memory_format=torch.channels_last)

    def trainer(self, size, batch_size):
        """A `Trainer` in its first epoch, with the options of recipe chen."""
        config = RECIPES["chen"] | {
            "model": self.args.model, "size": size, "batch_size": batch_size, "mean": MEAN, "std": STD, "seed": 0,
        }  # fmt: skip
        labelled = Samples([], RGBY, size, "resize", "dataset", draw_labels(1000))
        schedule = losses.parse_schedule(config["loss"])
        trainer = Trainer(self.network(size), labelled, config, schedule, self.device, self.amp, steps_an_epoch=1000)
        trainer.begin_epoch()
        return trainer

    def noise(self, size, batch_size, count=8):
        """A `Feed` of batches of noise that lie in memory already, `count` different ones again and again."""
        batches = [self.random_batch(size, batch_size, seed) for seed in range(count)]
        return Feed(itertools.cycle(batches), self.device)

    def random_batch(self, size, batch_size, seed=0):
        """A batch of noise as `collate` would hand it over."""
        pixels = np.random.default_rng(seed).integers(0, 256, (batch_size, size, size, RGBY.planes), dtype=np.uint8)
        images = torch.from_numpy(pixels)
        images = images.pin_memory() if self.device.type == "cuda" else images
        return {
            "images": images.permute(0, 3, 1, 2), "tiles": torch.ones(batch_size, dtype=torch.int64),
            "rows": torch.arange(batch_size), "targets": torch.from_numpy(draw_labels(batch_size, seed).astype(np.float32)),
        }  # fmt: skip


class Feed:
    """Batches for a training, each fetched while the device computes on the one before, as train.py does. To a GPU they come through
    a stream of their own, from pinned memory."""

    def __init__(self, batches, device):
        self.source = prefetch_to_device(batches, device)
        self.batch = next(self.source)

    def step(self, trainer):
        """Train on the next batch: -> the curves of the step. A step ends when its loss is known, on a GPU too."""
        following = []
        curves = trainer.train_step(self.batch, lambda: following.append(next(self.source)) or 0)
        self.batch = following.pop()
        return curves


def repeated(images, count):
    """`Images` of `count` samples: these, again and again."""
    rows = np.arange(count) % len(images)
    table = None if images.table is None else images.table[rows]
    return Images([images.files[row] for row in rows], images.size, table, images.maps)


def draw_targets(count, seed=0):
    """`Target` strings as often as in the competition (utils/simulator/label_sets.csv)."""
    sets, counts = label_sets()
    drawn = np.random.default_rng(seed).choice(len(sets), count, p=counts / counts.sum())
    return [" ".join(map(str, sets[number])) for number in drawn]


def draw_labels(count, seed=0):
    """(count, 28) uint8."""
    return encode(draw_targets(count, seed), HPA_CLASSES)

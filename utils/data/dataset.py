"""From files to batches: uint8 tensors from the workers, normalised on the device.

A batch is a dict:
    images   (sum of tiles, C, S, S) uint8, or float32 in [0, 1] where a file has 16 bits; C channels as read, in memory last
    tiles    (B,) int64, how many consecutive tiles of `images` belong to each sample
    mean,std (sum of tiles, planes) float32, the statistics of each tile's whole image (per-image normalisation only)
    rows     (B,) int64, positions in the list of files; ~position (below 0) of one that does not count (see utils/distributed.py)
    targets  (B, classes) float32 (where labels were given)
    whole    int, samples of all ranks' shares of the batch together (where there are several)
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, get_worker_info
from tqdm import tqdm

from utils.data.cache import Images
from utils.data.images import tiles
from utils.data.workers import FREE, Start, deaf, fit_workers, new_ledger, shared_tensor
from utils.distributed import SINGLE_PROCESS, DistributedBatchSampler
from utils.errors import InputError, explain_system_error, first_line
from utils.opencv import cv2
from utils.parallel import closing, cores, in_order, starting

FITS = ("resize", "crop")
NORMALISATIONS = ("dataset", "image", "none")


class Samples(Dataset):
    """Samples of one list of files, addressed by (epoch, row) so that all that is random follows from (seed, epoch, row).

    images: `Images`, or a list of tuples of paths, to be decoded each time. channels: ChannelSet. size: pixels of the network's
    square input.
    fit: ``resize`` the whole image to size², or ``crop``: one random size² crop where `random_crop`, else the tiles that
    cover the image. normalise: one of NORMALISATIONS. targets: (N, classes) or None. augment: an `Augmentation`, which may
    change the label too, or None.
    """

    def __init__(self, images, channels, size, fit, normalise, targets=None, augment=None, random_crop=False, seed=0):
        self.images = images if isinstance(images, Images) else Images(images, size if fit == "resize" else None)
        self.files, self.channels, self.size, self.fit, self.normalise = (
            self.images.files,
            channels,
            size,
            fit,
            normalise,
        )
        self.targets, self.augment, self.random_crop, self.seed = targets, augment, random_crop, seed
        self.ledger = None  # in a loading process: its id, and the row it holds (see utils/data/workers.py)

    def __len__(self):
        return len(self.files)

    def bytes_each(self):
        """Bytes that an image takes in a batch."""
        return self.size**2 * len(self.channels.names) * self.images.itemsize()

    def __getitems__(self, keys):
        """What a DataLoader asks for: a batch at once."""
        self.images.will_need([max(row, ~row) for _, row, *_ in keys])
        return [self[key] for key in keys]

    def __getitem__(self, key):
        epoch, row, *whole = key
        position = max(row, ~row)
        self.hold(position)
        try:
            return self.load(epoch, position) | {"rows": row, "whole": whole}
        except InputError as error:
            return error  # raised again in the main process, where it can be told in one sentence
        except MemoryError:
            return InputError(f"no memory was left to read {self.files[position][0]}; give fewer --workers")
        except Exception as error:
            if refused := explain_system_error(error):
                return InputError(refused)
            raise RuntimeError(f"{self.files[position][0]} could not be read") from error
        finally:
            self.hold(FREE)

    def hold(self, row):
        if self.ledger is not None:
            self.ledger[1] = row

    def load(self, epoch, row):
        return self.prepare(self.images.read(row), epoch, row)

    def prepare(self, image, epoch, row):
        """Decoded pixels -> a sample for `collate`, its images (tiles, S, S, C). They may be the very pixels given."""
        sample, whole = {"rows": row}, image
        rng = np.random.default_rng((self.seed, epoch, row))
        if self.fit == "crop":
            self.check_crop(image, row)
            image = random_crop(image, self.size, rng)[None] if self.random_crop else tiles(image, self.size)
        else:
            image = image[None]
        targets = None if self.targets is None else self.targets[row].astype(np.float32)
        if self.augment:  # only in training, where a sample is one image
            before = image[0] if image.flags.writeable else image[0].copy()  # a view of packed data is not
            augmented, targets = self.augment(before, targets, epoch, int(rng.integers(2**32)))
            image = augmented[None]
            if self.normalise == "image":
                whole = augmented if self.fit == "resize" else emptied_alike(whole, before, augmented)
        if self.normalise == "image":
            sample["mean"], sample["std"] = moments(whole, self.channels.mix)
        sample["images"] = image
        if targets is not None:
            sample["targets"] = targets
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
    """Mean and standard deviation of each input plane of one image, on the scale 0 to 1: two (planes,) float32 arrays."""
    pixels = image.reshape(-1, image.shape[-1])
    if mix:
        pixels = pixels.astype(np.float32) @ np.asarray(mix, np.float32).T
    scale = 255.0 if image.dtype == np.uint8 else 1.0
    mean, std = cv2.meanStdDev(np.ascontiguousarray(pixels)[:, None])
    return tuple((values.ravel() / scale).astype(np.float32) for values in (mean, std))


class EpochOrder(Sampler):
    """Yields the keys (epoch, row) of `rows`: shuffled from (seed, epoch) when `shuffle`, without the first `skip`. Set `epoch` and
    `skip` before each pass."""

    def __init__(self, rows, seed=0, shuffle=False):
        self.rows, self.seed, self.shuffle, self.epoch, self.skip = rows, seed, shuffle, 0, 0

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        rows = np.array(self.rows, dtype=np.int64)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(rows)
        return iter([(self.epoch, int(row)) for row in rows[self.skip :]])


def make_loader(samples, batch_size, workers, device, shuffle=False, ranks=SINGLE_PROCESS):
    """Batches of `samples` in an `EpochOrder` (the loader's `.order`), or one rank's share of them, prepared beside what is done
    with them. The loader's `.ledger` says what each DataLoader worker is reading, as `new_ledger`.

    Samples that are augmented or shuffled come from at most `workers` processes that stay between epochs (0: from this one;
    fewer where memory is short), others from as many threads: reading and decoding need no Python, and a process would have to
    hand each batch over. Shuffled, a last batch of one image is left out: another image each epoch.
    """
    if not samples.augment and not shuffle:
        return ThreadedLoader(
            samples, batch_size, EpochOrder(range(ranks.rank, len(samples), ranks.world_size)), workers, device
        )
    order = EpochOrder(range(len(samples)), samples.seed, shuffle)
    # Batch norm learns nothing from a batch of one image.
    lonely = shuffle and len(samples) > batch_size and len(samples) % batch_size == 1
    batches = BatchSampler(order, batch_size, drop_last=lonely)
    workers, prefetch = fit_workers(
        workers, samples.bytes_each() * -(-batch_size // ranks.world_size), ranks.local_world_size
    )
    ledger = new_ledger(workers)
    loader = DataLoader(
        samples, batch_sampler=DistributedBatchSampler(batches, ranks) if ranks.world_size > 1 else batches, collate_fn=collate, num_workers=workers,
        pin_memory=device.type == "cuda", persistent_workers=workers > 0, prefetch_factor=prefetch if workers else None,
        worker_init_fn=Start(ledger) if workers else None,
        generator=torch.Generator(),  # its own, or the loader would draw from the one that dropout uses
    )  # fmt: skip
    loader.order, loader.ledger = order, ledger
    return loader


def begin_epoch(loader, epoch, skip=0):
    """Let the loader of training begin with an epoch, after its first `skip` samples: -> iterator over the batches."""
    loader.order.epoch, loader.order.skip = epoch, skip
    return batches(loader)


class ThreadedLoader:
    """A DataLoader's part for samples in order: `threads` read samples, so that `AHEAD` batches are ready or on their way; 0 reads
    a batch when it is asked for. On a GPU batches lie in pinned memory."""

    AHEAD = 2

    def __init__(self, samples, batch_size, order, threads, device):
        self.dataset, self.order, self.threads, self.pinned = samples, order, threads, device.type == "cuda"
        self.batch_size, self.batches = batch_size, BatchSampler(order, batch_size, drop_last=False)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        if not self.threads:
            yield from (collate(self.dataset.__getitems__(keys), self.pinned) for keys in self.batches)
            return
        readers, joiner = ThreadPoolExecutor(self.threads), ThreadPoolExecutor(1)

        def submit(keys):
            self.dataset.images.will_need([row for _, row in keys])
            samples = [readers.submit(self.dataset.__getitem__, key) for key in keys]
            return joiner.submit(lambda: collate([sample.result() for sample in samples], self.pinned))

        try:
            for batch in in_order(submit, self.batches, self.AHEAD):
                yield batch.result()
        finally:
            for pool in (readers, joiner):  # nobody asks for the batches on their way
                pool.shutdown(cancel_futures=True)


def pick_workers(wanted, device, ranks=SINGLE_PROCESS):
    """Loader processes of each rank: `wanted`, or where that is -1 this rank's part of all cores but one beside a GPU; beside
    training on the CPU, which wants the cores itself, one or two."""
    if wanted >= 0:
        return wanted
    own = cores() // ranks.local_world_size
    return max(1, min(own - 1, 16)) if device.type != "cpu" else min(2, max(1, own // 4))


def collate(samples, pinned=False):
    """List of samples -> batch (see the top of this file), or the first InputError among them. pinned: it is put where a GPU
    can fetch it by itself.

    In a DataLoader worker the images lie in memory shared with the training, and what is small is left as numpy arrays, which
    travel as they are (`batches` makes tensors of them): nothing else needs shared memory.
    """
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    images, small = [sample["images"] for sample in samples], {}
    if len({image.dtype for image in images}) > 1:
        images = [image / np.float32(255) if image.dtype == np.uint8 else image for image in images]
    small["tiles"] = np.array([len(image) for image in images])
    small["rows"] = np.array([sample["rows"] for sample in samples])
    for key in ("mean", "std"):
        if key in samples[0]:
            small[key] = np.repeat(np.stack([sample[key] for sample in samples]), small["tiles"], axis=0)
    if "targets" in samples[0]:
        small["targets"] = np.stack([sample["targets"] for sample in samples])
    whole = dict(zip(["whole"], samples[0].get("whole", ()), strict=False))
    try:
        batch = whole | {"images": concatenate(images, pinned)}
    except (OSError, RuntimeError) as error:
        if get_worker_info() is None:
            raise
        return InputError(
            explain_system_error(error)
            or f"no shared memory was left for a batch ({first_line(error)}); give fewer --workers or a smaller --batch-size, "
            "or enlarge /dev/shm (docker run --shm-size 8g)"
        )
    return batch | (small if get_worker_info() is not None else as_tensors(small, pinned))


def as_tensors(batch, pinned):
    """A batch whose arrays are tensors, those that are not yet."""
    arrays = {key: torch.from_numpy(value) for key, value in batch.items() if isinstance(value, np.ndarray)}
    return batch | {key: value.pin_memory() if pinned else value for key, value in arrays.items()}


def concatenate(images, pinned=False):
    """[(tiles, S, S, C)] arrays -> (sum of tiles, C, S, S) tensor, channels last in memory: in a loading process at once in
    memory that it shares with the training."""
    shape = (sum(map(len, images)), *images[0].shape[1:])
    dtype = torch.uint8 if images[0].dtype == np.uint8 else torch.float32
    in_worker = get_worker_info() is not None
    joined = shared_tensor(shape, dtype) if in_worker else torch.empty(shape, dtype=dtype, pin_memory=pinned)
    np.concatenate(images, out=joined.numpy())
    return joined.permute(0, 3, 1, 2)


def batches(loader):
    """Begin to load, and return an iterator over the batches, which raises in the main process what a worker found wrong with a
    file."""
    with starting("DataLoader workers", "--workers 0"), deaf():  # the processes start here
        iterator = iter(loader)
    return _checked(iterator, getattr(loader, "pin_memory", False))


def _checked(iterator, pinned):
    with closing(iterator):
        for batch in iterator:
            if isinstance(batch, InputError):
                raise batch
            yield as_tensors(batch, pinned) if isinstance(batch, dict) else batch  # other loaders are timed with it too


class Normaliser:
    """Turns a batch's images into the network's input on the device: mix channels, subtract the mean, divide by the deviation.

    mix: a ChannelSet's. normalise: one of NORMALISATIONS. mean, std: lists (planes,) on the scale 0 to 1, for
    ``dataset``; with ``image`` each sample brings its own, with ``none`` pixels stay in [0, 1]. dtype: the arithmetic that the
    network computes in, None for float32; the result is rounded to it once.
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
        # One pass over the pixels: a multiplication, an addition, and the change of type.
        return torch.addcmul(shift, images, factor, out=torch.empty_like(images, dtype=self.dtype))


def _linear(mean, std):
    """(N, planes) each -> factor and shift (N, planes, 1, 1) that subtract the mean and divide by the deviation."""
    factor = torch.where(std > 1e-6, 1 / std, 0.0)[..., None, None]  # a channel of one grey value becomes zero, not NaN
    return factor, -mean[..., None, None] * factor


def dataset_moments(samples, count=500):
    """Mean and std of each input plane over up to `count` samples, evenly spread over the list: two lists of floats."""
    rows = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int))
    firsts, seconds = [], []
    for row in tqdm(rows, desc="measuring mean and spread", unit="img", disable=None, leave=False):
        image = samples.images.read(row)
        mean, std = moments(image, samples.channels.mix)
        mean, std = mean.astype(np.float64), std.astype(np.float64)
        firsts.append(mean)
        seconds.append(std**2 + mean**2)
    mean = np.mean(firsts, axis=0)
    std = np.sqrt(np.maximum(np.mean(seconds, axis=0) - mean**2, 1e-8))
    return mean.tolist(), std.tolist()

"""Probabilities from networks: test-time augmentation, tiles, folds. Shared by validation in train.py and by predict.py."""

import copy

import numpy as np
import torch
from torch import nn

from utils.data.loader import batches
from utils.device import autocast, cudnn_benchmark, prefetch_to_device, start_copy_to_cpu
from utils.distributed import SINGLE_PROCESS
from utils.engine.batch_norm_folding import fold_batch_norm
from utils.errors import InputError
from utils.parallel import closing, in_order

TTA = {
    1: ((),),
    4: ((), (3,), (2,), (2, 3)),  # identity, left-right, up-down, both (Chen, section III.C)
    8: ((), (3,), (2,), (2, 3), ("t",), ("t", 3), ("t", 2), ("t", 2, 3)),  # and the same of the transposed image
}


def pick_chunk(batch_size, size, device):
    """Images of size² in one forward pass: a batch, on a CPU at most four of 512², since more take memory and are no faster."""
    return batch_size if device.type != "cpu" else max(1, min(batch_size, 2**20 // size**2))


def tta_views(images, count):
    """Yield the `count` (1, 4 or 8) flipped and transposed copies of (N, C, H, W) images."""
    for moves in TTA[count]:
        view = images.transpose(2, 3).contiguous(memory_format=torch.channels_last) if "t" in moves else images
        dims = [move for move in moves if move != "t"]
        yield view.flip(dims) if dims else view


def undo_view(maps, moves):
    """Flip and transpose the maps (N, C, H, W) of a view back; `moves`, an entry of `TTA`, made it."""
    dims = [move for move in moves if move != "t"]
    maps = maps.flip(dims) if dims else maps
    return maps.transpose(2, 3) if "t" in moves else maps


def tta_probabilities(network, images, device, amp, tta, reduce="mean", activation="sigmoid", maps=None):
    """(N, planes, S, S) network input -> (N, classes) float32 probabilities, over the TTA views of each image. activation: a
    ``sigmoid`` of each class, or a ``softmax`` over them. maps: a list, if the network gives class maps (see
    `utils.models.class_maps`); their mean over the views, (N, classes, h, w) float32, is appended to it."""
    with autocast(device, amp):
        logits = (network(view).float() for view in tta_views(images, tta))
        if maps is not None:
            of_views = list(logits)
            maps.append(sum(undo_view(each, moves) for each, moves in zip(of_views, TTA[tta], strict=True)) / tta)
            logits = (each.mean((2, 3)) for each in of_views)
        of_views = torch.stack([each.softmax(1) if activation == "softmax" else torch.sigmoid(each) for each in logits])
    return of_views.mean(0) if reduce == "mean" else of_views.amax(0)


@torch.inference_mode()
def predict(
    networks,
    normalisers,
    loader,
    device,
    amp=None,
    tta=1,
    reduce="mean",
    reduce_tiles="mean",
    activation="sigmoid",
    chunk=64,
    bar=None,
    context=SINGLE_PROCESS,
    between=None,
    compiled=False,
    cells=None,
):
    """Mean of the probabilities of several networks.

    networks, normalisers: equally long lists; each network sees every batch through its own normaliser. tta: views per image;
    reduce, reduce_tiles: of the views, and of the tiles or crops of a sample, ``mean`` or ``max``. activation: as of
    `tta_probabilities`. Networks are averaged.
    chunk: most images in one forward pass. bar: a progress bar that counts samples. context: of the processes that the samples are
    divided among. between: called after every batch. compiled: use torch.compile. cells: a `cell_scores.CellScorer`, called after
    every batch; if it has `grids`, the networks give class maps.
    -> (rows (N,) int64, probabilities (N, classes) float32) of all processes, in the loader's order. Raises InputError for an image
    that gives NaN or infinity.
    """
    ready = []  # the networks as functions, from the first images on

    def submit(batch):
        total, maps = 0, []
        for number, (network, normaliser) in enumerate(zip(networks, normalisers, strict=True)):
            with autocast(device, None):
                parts = normaliser(batch).split(chunk)
                if number == len(ready):
                    ready.append(prepare_network(network, parts[0], amp, compiled))
            own = [] if cells and cells.grids else None
            found = [
                tta_probabilities(ready[number], part, device, amp, tta, reduce, activation, own) for part in parts
            ]
            total = total + of_samples(torch.cat(found), batch["tiles"], reduce_tiles)
            if own:
                maps.append(start_copy_to_cpu(torch.cat(own), device))
        return batch["rows"], start_copy_to_cpu(total / len(networks), device), batch["tiles"], maps

    rows, results = [], []
    # A GPU gets the next batch before the CPU waits for the last one's results.
    with closing(prefetch_to_device(batches(loader), device)) as source:
        for batch_rows, result, tiles, maps in in_order(submit, source, ahead=0 if device.type == "cpu" else 1):
            rows.append(batch_rows)
            results.append(result())
            if not bool(results[-1].isfinite().all()):
                worst = loader.dataset.files[int(batch_rows[~results[-1].isfinite().all(dim=1)][0])][0]
                raise InputError(f"the network gives no number for {worst}; try --amp off or a lower --lr")
            if cells:
                cells(batch_rows, tiles, results[-1], [each() for each in maps])
            if between:
                between()
            if bar is not None:
                bar.update(min(len(batch_rows) * context.world_size, bar.total - bar.n))
    if not rows:  # fewer samples than processes
        return context.gather_rows(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
    return context.gather_rows(torch.cat(rows).numpy(), torch.cat(results).numpy())


def prepare_network(network, images, amp, compiled=False):
    """-> the function from images to logits that predicts fastest, tuned by cuDNN or compiled for as many images at once as these.
    The network itself stays as it is, in evaluation mode."""
    ready, most = copy_for_inference(network, images, amp), len(images)
    fast = torch.compile(ready, dynamic=False) if compiled else ready

    def logits(images):
        with cudnn_benchmark(len(images) == most):
            return (fast if len(images) == most else ready)(images)

    return logits


def copy_for_inference(network, images, amp):
    """A copy of the network with batch norm folded and weights in the arithmetic of `amp`, or itself if neither applies."""
    ready = fold_batch_norm(network, images)
    if amp:
        ready = copy.deepcopy(network) if ready is network else ready
        for layer in ready.modules():
            if type(layer) in (nn.Conv2d, nn.Linear):
                layer.to(amp)  # as autocast would at every call: it keeps nothing without gradients
    return ready


def of_samples(probabilities, counts, reduce):
    """Combine the probabilities (sum of tiles, classes) of each sample's `counts` tiles: -> (B, classes)."""
    if bool((counts == 1).all()):
        return probabilities
    parts = probabilities.split(counts.tolist())
    return torch.stack([part.mean(0) if reduce == "mean" else part.amax(0) for part in parts])

"""Prediction with four views: as predict.py does it, and a plain loop in float32."""

from textwrap import fill

import numpy as np
import torch

from utils.data.dataset import Normaliser
from utils.data.loader import make_loader
from utils.engine import inference
from utils.tools.benchmark import probe
from utils.tools.benchmark.bench import MEAN, STD, repeated
from utils.tools.benchmark.timing import take_turns

AIM = "aim: 3.5 (512², bfloat16 on a CPU)"


def measure(bench):
    """Images a second of both, and by how much their probabilities differ at most."""
    count = bench.args.predicted
    images = repeated(bench.packed(), count)
    network = settled(bench.network(bench.args.size), bench)
    torch.save(network.state_dict(), bench.folder / probe.SETTLED)
    normaliser = Normaliser(None, "dataset", MEAN, STD, bench.device, bench.amp)
    loader = make_loader(bench.samples(images), bench.batch_size, bench.workers, bench.device)
    chunk = inference.pick_chunk(bench.batch_size, bench.args.size, bench.device)
    said = {}

    def ours():
        said["kit"] = inference.predict([network], [normaliser], loader, bench.device, bench.amp, tta=4, chunk=chunk)[1]

    seconds = take_turns({"kit": ours}, bench.args.repeats, bench.device, "prediction")
    # In a process of its own, whose memory is handled as the C library does by itself.
    seconds["plain"] = probe.ask(bench, "plain")["seconds"]
    said["plain"] = np.load(bench.folder / probe.PLAIN)
    speeds = {name: count / value for name, value in seconds.items()}
    return {
        "model": bench.args.model, "size": bench.args.size, "images": count, "batch": bench.batch_size,
        "workers": bench.workers, "arithmetic": str(bench.amp or torch.float32).removeprefix("torch."), **speeds,
        "ratio": speeds["kit"] / speeds["plain"], "difference": float(np.abs(said["kit"] - said["plain"]).max()),
        "spread": float(said["plain"].std(axis=0).max()),
    }  # fmt: skip


@torch.no_grad()
def settled(network, bench):
    """The network with batch norm's statistics of these images: with random weights and none it would say the same of all."""
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    for layer in norms:
        layer.momentum = None  # the plain mean of all batches
    normaliser = Normaliser(None, "dataset", MEAN, STD, bench.device)
    images = repeated(bench.packed(), 4 * min(bench.batch_size, 8))
    network.train()
    for batch in make_loader(bench.samples(images), min(bench.batch_size, 8), 0, bench.device):
        network(normaliser(batch))
    return network.eval()


def report(found):
    told = f"{found['size']}², 4 views, {found['images']} images in batches of {found['batch']}; images a second"
    print(fill(f"prediction: {found['model']}, {told}", 79))
    spread = f"where they spread by {found['spread']:.4f}"
    print(f"{'packed, ' + found['arithmetic'] + ', channels last':32}{found['kit']:>9.2f}")
    print(f"{'plain Dataset, float32':32}{found['plain']:>9.2f}")
    print(f"{'ratio':32}{found['ratio']:>9.2f}   {AIM}")
    print(f"{'largest difference':32}{found['difference']:>9.4f}   {spread}")

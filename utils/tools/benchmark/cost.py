"""What a step costs, by size and batch: time and memory; and what loading gains by more processes."""

import warnings
from functools import partial
from textwrap import fill

from tqdm import tqdm

from utils.data.loader import make_loader
from utils.parallel import free_memory
from utils.tools.benchmark import probe
from utils.tools.benchmark.bench import repeated
from utils.tools.benchmark.loading import BATCH, whole_pass
from utils.tools.benchmark.timing import take_turns

MOST_PIXELS = 2**22  # of a batch on a CPU, where larger ones take long: 16 images of 512²
WORKERS = (0, 1, 2, 4)
LOADED = 384  # samples of a pass, so many that its start counts for little
ROOM = 0.7  # part of the free memory that a step may be expected to take


def measure(bench):
    """Rows of size, batch, ms an image of a training step and of a prediction (one view), peak memory in GB."""
    wanted = [(size, batch) for size in sorted(bench.args.sizes) for batch in sorted(bench.args.batches)]
    possible = [pair for pair in wanted if bench.device.type != "cpu" or pair[0] ** 2 * pair[1] <= MOST_PIXELS]
    rows, a_pixel = [], 0
    for size, batch in tqdm(possible, desc="cost", disable=None, leave=False):
        row = {
            "size": size,
            "batch": batch,
            "training_ms": None,
            "prediction_ms": None,
            "start_gb": None,
            "peak_gb": None,
        }
        pixels = size**2 * batch
        if bench.device.type != "cpu" or a_pixel * pixels <= ROOM * free_memory():
            row |= probe.ask(bench, "step", size=size, batch=batch) or {}
        if row["peak_gb"]:
            a_pixel = (row["peak_gb"] - row["start_gb"]) / pixels
        rows.append(row)
    return {
        "model": bench.args.model, "rows": rows, "left_out": [list(pair) for pair in wanted if pair not in possible],
        "loading": loading(bench),
    }  # fmt: skip


def loading(bench):
    """Samples a second from packed data with training's augmentation, by loading processes."""
    count = len(bench.files) * max(1, round(LOADED / len(bench.files)))
    samples = bench.samples(repeated(bench.packed(), count), augmented=True)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "This DataLoader will create"
        )  # more processes than cores: to see what that does
        loaders = {workers: make_loader(samples, BATCH, workers, bench.device, shuffle=True) for workers in WORKERS}
        ways = {workers: partial(whole_pass, loader) for workers, loader in loaders.items()}
        seconds = take_turns(ways, bench.args.repeats, bench.device, "loading by processes")
    return {
        "size": bench.args.size,
        "rows": [{"workers": workers, "a_second": count / seconds[workers]} for workers in WORKERS],
    }


def report(found):
    told = "ms an image of a training step and of one view's prediction, and the most memory of a process that trains on noise"
    print(fill(f"cost: {found['model']}, {told}", 79))
    print(f"{'size':>5}{'batch':>7}{'training':>12}{'prediction':>12}{'memory':>12}")
    for row in found["rows"]:
        if row["training_ms"] is None:
            print(f"{row['size']:>5}{row['batch']:>7}   does not fit into memory")
        else:
            told = f"{row['training_ms']:>12.1f}{row['prediction_ms']:>12.1f}"
            told += f"{row['peak_gb']:>9.2f} GB" if row["peak_gb"] else f"{'?':>12}"
            print(f"{row['size']:>5}{row['batch']:>7}{told}")
    if found["left_out"]:
        pairs = ", ".join(f"{batch} of {size}²" for size, batch in found["left_out"])
        print(fill(f"left out, too long on a CPU: {pairs}", 79))
    print(f"loading packed samples of {found['loading']['size']}² for training, by processes beside (0: none)")
    for row in found["loading"]["rows"]:
        print(f"{row['workers']:>5}{row['a_second']:>19.0f} samples a second")

"""The benchmark's subjects, in `SUBJECTS`: each has measure_…(work) -> dict for the JSON, and print_…(found)."""

import math
import subprocess
import sys
import time
import warnings
from functools import partial
from textwrap import fill

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.data.labels import HPA_CLASSES, encode
from utils.data.loader import AHEAD, batches, begin_epoch, make_loader
from utils.engine import inference
from utils.errors import plural
from utils.files import write_csv
from utils.parallel import free_memory
from utils.runs.predictions import write_predictions
from utils.scoring.calibration import sigmoid
from utils.scoring.metrics import best_thresholds, f1_per_class
from utils.scoring.thresholds.chen import GRID
from utils.tools.benchmark.measuring import arithmetic_name, take_turns
from utils.tools.benchmark.probe import PROBABILITIES, ROOT, WEIGHTS, run_probe
from utils.tools.benchmark.workload import Feed, PlainDataset, draw_labels, draw_targets, repeated

# Loading: from disk to a batch in memory, by the kit (packed or PNG) and by a plain Dataset.

BATCH = 16
PASS_SECONDS = 0.4  # minimum length of a pass over the samples
PURPOSES = ("prediction", "training")
PLAIN = "plain Dataset, cv2"
KIT = {  # way of loading: the images that `Samples` reads from
    "packed": lambda work: work.packed("raw"),
    "packed, zstd": lambda work: work.packed("zstd"),
    "PNG files": lambda work: work.decoded(),
}


def measure_loading(work):
    """-> median ms to read, augment and collate a sample in one thread, and the speed-up over PLAIN."""
    rows = {way: {"way": way} for way in (*KIT, PLAIN)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for purpose in PURPOSES:
        counts = dict.fromkeys(rows, len(work.files))
        seconds = _time_passes(work, purpose, counts, repeats=1)
        counts = {way: n * max(1, min(64, math.ceil(PASS_SECONDS / seconds[way]))) for way, n in counts.items()}
        seconds = _time_passes(work, purpose, counts, work.args.repeats)
        for way, row in rows.items():
            row[f"{purpose}_ms"] = 1000 * seconds[way] / counts[way]
        for row in rows.values():
            row[f"{purpose}_ms_ratio"] = rows[PLAIN][f"{purpose}_ms"] / row[f"{purpose}_ms"]
    torch.set_num_threads(threads)
    setting = {"size": work.args.size, "samples": len(work.files), "batch": BATCH}
    return setting | {"compared_with": PLAIN, "rows": list(rows.values())}


def _time_passes(work, purpose, counts, repeats):
    """-> {way: median seconds of a pass over counts[way] samples}."""
    passes = {way: partial(_whole_pass, _loader(work, way, purpose, count)) for way, count in counts.items()}
    return take_turns(passes, repeats, work.device, f"loading for {purpose}")


def _loader(work, way, purpose, count):
    training = purpose == "training"
    if way == PLAIN:
        files = repeated(work.decoded(), count).files
        dataset = PlainDataset(files, draw_labels(count), work.args.size, training)
        return DataLoader(dataset, BATCH, shuffle=training)
    samples = work.samples(repeated(KIT[way](work), count), augmented=training)
    return make_loader(samples, BATCH, 0, work.device, shuffle=training)


def _whole_pass(loader):
    if hasattr(loader, "order"):
        loader.order.epoch += 1  # a different augmentation each time, as in training
    for _ in batches(loader):
        pass


def print_loading(found):
    size = f"{found['samples']} samples of {found['size']}² in batches of {found['batch']}"
    _print_title(f"loading: {size}; ms per sample on one core; ×: speed-up over {found['compared_with']}")
    rows = [["", *PURPOSES]]
    for row in found["rows"]:
        rows.append([row["way"], *(f"{row[f'{p}_ms']:.2f}{row[f'{p}_ms_ratio']:>6.1f}×" for p in PURPOSES)])
    _print_table(rows)
    print("aims for packed samples of 512²: 0.5 ms for prediction, 5 ms for training")


# Training: steps on batches from the loader, and on noise in memory. The ratio shows how much loading slows training.

BLOCK_SECONDS = 6.0  # approximate length of a block of steps
BLOCK_STEPS = (3, 50)  # minimum and maximum


def measure_training(work):
    """-> images per second of `Trainer.train_step`, in alternating blocks of steps: pairs of (loaded, in memory).

    The loader runs one epoch through all blocks, so its start-up is not timed. Neither are the batches that it prepared
    while the other block trained."""
    size, batch_size, pairs = work.args.size, work.batch_size, work.args.repeats
    trainer, noise = work.trainer(size, batch_size), work.noise(size, batch_size)
    steps = int(np.clip(round(BLOCK_SECONDS / _seconds_a_step(trainer, noise, 1, 1)), *BLOCK_STEPS))
    ready = AHEAD * work.workers
    images = repeated(work.packed(), (pairs * (ready + steps) + 2) * batch_size)
    loader = make_loader(work.samples(images, augmented=True), batch_size, work.workers, work.device, shuffle=True)
    loaded = Feed(begin_epoch(loader, trainer.progress.epoch), work.device)
    loaded.step(trainer)
    found = []
    for pair in tqdm(range(pairs), desc="training", disable=None, leave=False):
        speeds = {}
        for name, feed, untimed in [("loaded", loaded, ready), ("in_memory", noise, 1)][:: -1 if pair % 2 else 1]:
            speeds[name] = batch_size / _seconds_a_step(trainer, feed, untimed, steps)
        found.append(speeds | {"ratio": speeds["loaded"] / speeds["in_memory"]})
    medians = {name: float(np.median([pair[name] for pair in found])) for name in ("loaded", "in_memory", "ratio")}
    ratios = [pair["ratio"] for pair in found]
    setting = {"model": work.args.model, "size": size, "batch": batch_size, "workers": work.workers, "steps": steps}
    return setting | medians | {"lowest": min(ratios), "highest": max(ratios), "pairs": found}


def _seconds_a_step(trainer, feed, untimed, steps):
    """-> mean seconds of `steps` steps, after `untimed` others."""
    for _ in range(untimed):
        feed.step(trainer)
    start = time.perf_counter()
    for _ in range(steps):
        feed.step(trainer)
    return (time.perf_counter() - start) / steps


def print_training(found):
    setting = f"{found['size']}², batches of {found['batch']}, {plural(found['workers'], 'DataLoader worker')}"
    _print_title(f"training: {found['model']}, {setting}; images per second")
    blocks = f"medians of {plural(len(found['pairs']), 'block')} of {plural(found['steps'], 'step')}"
    _print_value("packed, augmentation chen", f"{found['loaded']:.2f}", blocks)
    _print_value("noise in memory", f"{found['in_memory']:.2f}")
    spread = f"{found['lowest']:.3f} to {found['highest']:.3f}"
    _print_value("ratio, median of the pairs", f"{found['ratio']:.3f}", spread)


# Prediction with four TTA views: as in predict.py, and by a plain loop in float32.


def measure_prediction(work):
    """-> images per second of both, and the largest difference between their probabilities."""
    count, size, kit = work.args.predicted, work.args.size, []
    network = _with_statistics(work.network(size), work)
    torch.save(network.state_dict(), work.folder / WEIGHTS)
    loader = make_loader(work.samples(repeated(work.packed(), count)), work.batch_size, work.workers, work.device)
    inputs = [network], [work.normaliser(work.amp)], loader, work.device, work.amp
    chunk = inference.pick_chunk(work.batch_size, size, work.device)

    def predict():
        kit.append(inference.predict(*inputs, tta=4, chunk=chunk)[1])

    seconds = take_turns({"kit": predict}, work.args.repeats, work.device, "prediction")
    seconds["plain"] = run_probe(work, "plain")  # in a new process, because this one has changed malloc's settings
    plain = np.load(work.folder / PROBABILITIES)
    speeds = {name: count / value for name, value in seconds.items()}
    setting = {"model": work.args.model, "size": size, "images": count, "batch": work.batch_size}
    setting |= {"workers": work.workers, "arithmetic": arithmetic_name(work.amp)}
    compared = {"difference": float(np.abs(kit[-1] - plain).max()), "spread": float(plain.std(axis=0).max())}
    return setting | speeds | {"ratio": speeds["kit"] / speeds["plain"]} | compared


@torch.no_grad()
def _with_statistics(network, work):
    """Fit batch norm's statistics to these images; without them, random weights give all images the same output."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = None  # the plain mean of all batches
    normaliser, batch_size = work.normaliser(), min(work.batch_size, 8)
    network.train()
    for batch in make_loader(work.samples(repeated(work.packed(), 4 * batch_size)), batch_size, 0, work.device):
        network(normaliser(batch))
    return network.eval()


def print_prediction(found):
    setting = f"{found['size']}², 4 TTA views, {found['images']} images in batches of {found['batch']}"
    _print_title(f"prediction: {found['model']}, {setting}; images per second")
    _print_value(f"packed, {found['arithmetic']}, channels last", f"{found['kit']:.2f}")
    _print_value("plain Dataset, float32", f"{found['plain']:.2f}")
    _print_value("ratio", f"{found['ratio']:.2f}", "aim: 3.5 (512², bfloat16 on a CPU)")
    spread = f"(std over images {found['spread']:.4f})"
    _print_value("largest difference", f"{found['difference']:.4f}", spread)


# Cost: time and memory of a step by image size and batch size, and loading speed by number of workers.

MAX_PIXELS = 2**22  # of a batch on a CPU (16 images of 512²); larger ones take too long
WORKERS = (0, 1, 2, 4)
PASS_SAMPLES = 384  # enough to make the start-up of a pass negligible
MEMORY_FRACTION = 0.7  # a step runs only if it should fit into this fraction of the free memory


def measure_cost(work):
    """-> rows of size, batch, ms per image of a training step and of a prediction (one TTA view), peak memory in GB."""
    on_cpu = work.device.type == "cpu"
    wanted = [(size, batch) for size in sorted(work.args.sizes) for batch in sorted(work.args.batches)]
    possible = [(size, batch) for size, batch in wanted if not on_cpu or size**2 * batch <= MAX_PIXELS]
    rows, gb_a_pixel = [], 0
    for size, batch in tqdm(possible, desc="cost", disable=None, leave=False):
        row = dict.fromkeys(["training_ms", "prediction_ms", "start_gb", "peak_gb"])
        if not on_cpu or gb_a_pixel * size**2 * batch <= MEMORY_FRACTION * free_memory():
            row = run_probe(work, "step", size=size, batch=batch) or row
        if row["peak_gb"]:
            gb_a_pixel = (row["peak_gb"] - row["start_gb"]) / (size**2 * batch)
        rows.append({"size": size, "batch": batch} | row)
    left_out = [list(pair) for pair in wanted if pair not in possible]
    return {"model": work.args.model, "rows": rows, "left_out": left_out, "loading": _measure_workers(work)}


def _measure_workers(work):
    """-> samples per second from packed data with training's augmentation, by number of DataLoader workers."""
    count = len(work.files) * max(1, round(PASS_SAMPLES / len(work.files)))
    samples = work.samples(repeated(work.packed(), count), augmented=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores, on purpose
        loaders = {workers: make_loader(samples, BATCH, workers, work.device, shuffle=True) for workers in WORKERS}
        passes = {workers: partial(_whole_pass, loader) for workers, loader in loaders.items()}
        seconds = take_turns(passes, work.args.repeats, work.device, "loading by workers")
    rows = [{"workers": workers, "a_second": count / seconds[workers]} for workers in WORKERS]
    return {"size": work.args.size, "rows": rows}


def print_cost(found):
    what = "ms per image of a training step and of a prediction (one TTA view); peak memory while training on noise"
    _print_title(f"cost: {found['model']}, {what}")
    rows = [["size", "batch", "training", "prediction", "memory"]]
    for row in found["rows"]:
        cells = ["does not fit", "into memory", ""]
        if row["training_ms"] is not None:
            memory = f"{row['peak_gb']:.2f} GB" if row["peak_gb"] else "?"
            cells = [f"{row['training_ms']:.1f}", f"{row['prediction_ms']:.1f}", memory]
        rows.append([f"{row['size']}²", str(row["batch"]), *cells])
    _print_table(rows)
    if found["left_out"]:
        pairs = ", ".join(f"{batch} of {size}²" for size, batch in found["left_out"])
        _print_title(f"left out, too slow on a CPU: {pairs}")
    print(f"loading packed samples of {found['loading']['size']}² for training; samples per second")
    for row in found["loading"]["rows"]:
        _print_value(plural(row["workers"], "DataLoader worker"), f"{row['a_second']:.0f}")


# Memory of each process while training from packed data.

MEMORY_KINDS = {"resident_mb": "total", "own_mb": "private", "shared_mb": "shared", "files_mb": "files"}


def measure_memory(work):
    """-> a row of MB for each process, see `measuring.resident_mb`."""
    setting = {"model": work.args.model, "size": work.args.size, "workers": work.workers, "batch": work.batch_size}
    return setting | {"rows": run_probe(work, "memory") or []}


def print_memory(found):
    setting = f"{found['size']}², batches of {found['batch']}"
    _print_title(f"memory: {found['model']}, {setting}; peak resident MB of each process")
    if not found["rows"]:
        print("unknown: the process was killed, or this system does not report it")
        return
    rows = [[row["process"], *(f"{row[kind]:,.0f}" for kind in MEMORY_KINDS)] for row in found["rows"]]
    _print_table([["process", *MEMORY_KINDS.values()], *rows])
    print("shared: between DataLoader workers and training process;")
    print("files: pages of files such as packed images, which the system can drop")


# Tables: make_folds.py and threshold.py as whole commands, on random tables as long as the competition's, or longer.


def measure_tables(work):
    """-> seconds of each command for each number of rows, including its start-up."""
    rows = []
    for count in tqdm(work.args.tables, desc="tables", disable=None, leave=False):
        labels, predictions = work.folder / f"labels{count}.csv", work.folder / f"predictions{count}.csv"
        ids, targets = [f"row{number:06}" for number in range(count)], draw_targets(count)
        write_csv(labels, pd.DataFrame({"Id": ids, "Target": targets}))
        write_predictions(predictions, ids, _draw_probabilities(encode(targets, HPA_CLASSES)), HPA_CLASSES)
        for script, *options in [
            ["make_folds.py", "--labels", labels, "-o", work.folder / "folds.csv"],
            ["threshold.py", predictions, "--labels", labels, "-o", work.folder / "thresholds.json"],
        ]:
            command, start = [sys.executable, ROOT / script, *options], time.perf_counter()
            done = subprocess.run(command, cwd=ROOT, capture_output=True, errors="replace")
            if done.returncode:
                raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
            rows.append({"command": script, "rows": count, "seconds": time.perf_counter() - start})
    return {"classes": len(HPA_CLASSES), "rows": rows}


def print_tables(found):
    print(f"tables: whole commands, once each, on labels and predictions of {found['classes']} classes")
    for row in found["rows"]:
        _print_value(f"{row['command']}, {row['rows']:,} rows", f"{row['seconds']:.1f} s")


# Thresholds: the best of each class by exact search, and by a loop of scikit-learn's f1_score over 1000 thresholds.

EXACT_REPEATS = 7


def measure_thresholds(work):
    rows, classes, looped = work.args.rows, work.args.classes, min(work.args.loop_classes, work.args.classes)
    rng = np.random.default_rng(0)
    truth = (rng.random((rows, classes)) < np.geomspace(0.4, 0.001, classes)).astype(np.uint8)  # from common to rare
    truth[0] = 1
    probabilities, seconds = _draw_probabilities(truth, rng), []
    for _ in range(EXACT_REPEATS):
        start = time.perf_counter()
        thresholds, _ = best_thresholds(truth, probabilities)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    best = [_best_of_loop(truth[:, number], probabilities[:, number], number) for number in range(looped)]
    loop, exact = (time.perf_counter() - start) * classes / looped, float(np.median(seconds))
    gain = (f1_per_class(truth, probabilities >= thresholds)[:looped] - best).mean()
    milliseconds = {"exact": exact, "fastest": min(seconds), "slowest": max(seconds), "loop": loop}
    found = {"rows": rows, "classes": classes, "loop_classes": looped, "ratio": loop / exact, "gain": float(gain)}
    return found | {f"{name}_ms": 1000 * value for name, value in milliseconds.items()}


def _draw_probabilities(truth, rng=None):
    """Draw predictions correlated with the labels: (N, C) 0/1 -> (N, C) float64."""
    rng = rng or np.random.default_rng(0)
    return sigmoid(rng.normal(-2, 1, truth.shape) + 2.5 * truth)


def _best_of_loop(positive, values, number):
    steps = tqdm(GRID, desc=f"f1_score, class {number}", disable=None, leave=False)
    return max(f1_score(positive, values >= threshold, zero_division=0) for threshold in steps)


def print_thresholds(found):
    print(f"thresholds: best of each class, {found['rows']:,} rows x {found['classes']} classes")
    spread = f"median of {EXACT_REPEATS} ({found['fastest_ms']:.1f} to {found['slowest_ms']:.1f})"
    _print_value("exact, by sorting", f"{found['exact_ms']:.2f} ms", spread)
    looped = plural(found["loop_classes"], "class", "classes")
    _print_value("f1_score at 1000 thresholds", f"{found['loop_ms']:,.0f} ms", f"timed on {looped}")
    _print_value("ratio", f"{found['ratio']:,.0f}", f"F1 higher by {found['gain']:.5f}")


def _print_title(text):
    print(fill(text, 79))


def _print_value(name, value, note=""):
    print(f"{name:32}{value:>10}  {note}".rstrip())


def _print_table(rows):
    for first, *others in rows:
        print(f"{first:19}" + "".join(f"{cell:>15}" for cell in others))


SUBJECTS = {
    "loading": (measure_loading, print_loading),
    "training": (measure_training, print_training),
    "prediction": (measure_prediction, print_prediction),
    "cost": (measure_cost, print_cost),
    "memory": (measure_memory, print_memory),
    "tables": (measure_tables, print_tables),
    "thresholds": (measure_thresholds, print_thresholds),
}
NEED_NO_IMAGES = {"tables", "thresholds"}

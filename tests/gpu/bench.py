"""The steps of measure.sh that need Python, a word each: python .gpu/work.py STEP …

Every figure goes as a line of JSON to $RESULTS at once, so that nothing is lost when a step is cut off. Run in the project's root.
Environment: RESULTS, WORK (folder for all that is made), DEVICE, TINY (sizes that mean nothing, to try the script on a CPU),
SECONDS_LEFT (of this step).
"""

import argparse
import contextlib
import functools
import gc
import io
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter, defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parent)]
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from results import WORK, report  # noqa: E402

from utils import models  # noqa: E402
from utils.data import cache  # noqa: E402
from utils.data.image_files import find_files, scan_folder  # noqa: E402
from utils.data.loader import begin_epoch, make_loader, pick_workers  # noqa: E402
from utils.device import pick_device  # noqa: E402
from utils.engine import checkpoint  # noqa: E402
from utils.engine.batch_norm_folding import fold_batch_norm  # noqa: E402
from utils.engine.recipes import RECIPES  # noqa: E402
from utils.models.squeeze_excite import SqueezeExcite, mean_of_pixels  # noqa: E402
from utils.tools import gpu_memory  # noqa: E402
from utils.tools.benchmark.workload import RGBY, Feed, Workload  # noqa: E402

DEVICE = os.environ.get("DEVICE", "cuda:0")
TINY = bool(os.environ.get("TINY"))
ENDS = time.time() + float(os.environ.get("SECONDS_LEFT", "600"))
SIZE = 64 if TINY else 512
BATCH = 4 if TINY else 64
MODEL = "se_resnext50_32x4d"
TRAINED = (
    "gapnet_pl" if TINY else MODEL
)  # a CPU takes a second for a step of the larger one, and ten minutes to compile it
CACHE = os.environ.get("CACHE", str(WORK / "packed"))
BIG = WORK / "big"  # the atlas of 512², each image several times


def left():
    return ENDS - time.time()


@contextlib.contextmanager
def reporting_errors(step, **values):
    """What goes wrong inside becomes a line too, and the next part goes on."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        report(step, **values, error=f"{type(error).__name__}: {lines[0][:300]}")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(function, images, device, seconds=2.5, blocks=3):
    """{img_s (median of blocks), lowest, highest, ms a call, first_s: the first two calls, with compiling and cuDNN's search}."""
    start = time.perf_counter()
    function()
    function()
    wait(device)
    first = time.perf_counter() - start
    start = time.perf_counter()
    function()
    wait(device)
    calls = max(1, min(400, round(seconds / blocks / (time.perf_counter() - start))))
    speeds = []
    for _ in range(1 if TINY else blocks):
        wait(device)
        start = time.perf_counter()
        for _ in range(1 if TINY else calls):
            function()
        wait(device)
        speeds.append((1 if TINY else calls) * images / (time.perf_counter() - start))
    speeds.sort()
    middle = speeds[len(speeds) // 2]
    return {"img_s": round(middle, 1), "lowest": round(speeds[0], 1), "highest": round(speeds[-1], 1),
            "ms": round(1000 * images / middle, 2), "first_s": round(first, 1)}  # fmt: skip


def peak(device):
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None


# --- where this runs -------------------------------------------------------------------------------------------------------------


def env():
    found = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)), "kernel": platform.release()}
    for name in ("torch", "torchvision", "triton", "numpy", "pandas", "scipy", "scikit-learn", "timm", "opencv-python-headless",
                 "pillow", "albumentations", "filelock", "tensorboard", "pydantic"):  # fmt: skip
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found["cpu"] = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    memory = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    found["memory_gb"] = round(memory["MemTotal"] / 1e6, 1)
    for name, path in (("shm_gb", "/dev/shm"), ("disk_free_gb", WORK)):
        with contextlib.suppress(OSError):
            room = os.statvfs(path)
            found[name] = round(room.f_bavail * room.f_frsize / 1e9, 1)
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"gpu": card.name, "gpu_gb": round(card.total_memory / 1e9, 1), "capability": f"{card.major}.{card.minor}",
                  "cudnn": torch.backends.cudnn.version(), "cuda": torch.version.cuda, "arch": torch.cuda.get_arch_list()}  # fmt: skip
        with contextlib.suppress(Exception):
            asked = ["nvidia-smi", "--query-gpu=driver_version,pcie.link.gen.current,pcie.link.width.current,power.limit",
                     "--format=csv,noheader"]  # fmt: skip
            found["driver"] = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.strip()
    report("env", **found)
    for spec in ("auto", "cuda", "cpu"):
        try:
            report("device", option=spec, device=pick_device(spec))
        except Exception as error:
            report("device", option=spec, error=f"{type(error).__name__}: {error}")
    ceilings()


def ceilings():
    """What the card and its bus can do, by the simplest means."""
    device = torch.device(DEVICE)
    if device.type != "cuda":
        return report("ceilings", skipped="no GPU")

    def rate(function, amount, repeats=10):
        for _ in range(3):
            function()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            function()
        end.record()
        torch.cuda.synchronize()
        return amount * repeats / begin.elapsed_time(end) / 1e6  # G a second

    def copy_rate(room=2**31):
        source, target = (torch.empty(room, dtype=torch.uint8, device=device).random_() for _ in range(2))
        return rate(lambda: target.copy_(source), 2 * room)

    found = {"copy_GB_s": copy_rate()}
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    found["matmul_TFLOP_s"] = rate(lambda: a @ b, 2 * 8192**3) / 1000
    batch = torch.empty(64 * 2**20, dtype=torch.uint8)
    pinned, there = batch.pin_memory(), torch.empty_like(batch, device=device)
    found["pinned_to_gpu_GB_s"] = rate(lambda: there.copy_(pinned, non_blocking=True), len(batch))
    found["pageable_to_gpu_GB_s"] = rate(lambda: there.copy_(batch), len(batch))
    started = time.perf_counter()
    held = [torch.empty(64 * 2**20, dtype=torch.uint8, pin_memory=True) for _ in range(8)]
    found["ms_to_pin_64MiB"] = (time.perf_counter() - started) / len(held) * 1000
    report("ceilings", **{name: round(value, 2) for name, value in found.items()})
    path, started = WORK / "disk.probe", time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(8):
            file.write(batch.numpy())
        os.fsync(file.fileno())
    report("disk", write_and_sync_MB_s=round(8 * len(batch) / (time.perf_counter() - started) / 1e6))
    path.unlink()


# --- the network alone ------------------------------------------------------------------------------------------------------------

CANDIDATES = [
    "densenet121",
    MODEL,
    "resnet50",
    "timm:resnet34",
    "timm:tf_efficientnetv2_s",
    "timm:convnext_tiny",
    "xception",
    "gapnet_pl",
]


def candidates():
    """Networks that a recipe may have, at three sizes; then compiled, which takes a minute each."""
    return [("train", {"model": model, "size": size, "batch": batch, "compiled": compiled})
            for size, batch, compiled in ((512, 64, False), (384, 64, False), (1024, 16, False), (512, 64, True)) for model in CANDIDATES]  # fmt: skip


VARIANTS = {  # part: [(what, options)], in the order of their worth
    "main": [
        ("train", {"batch": 64}), ("infer", {"batch": 64, "folded": True}), ("train", {"batch": 64, "one_pass": False}),
        ("train", {"batch": 128}),
        ("infer", {"batch": 128, "folded": True}),
    ],
    "more": [
        ("train", {"batch": 64, "amp": "fp16"}), ("infer", {"batch": 64}),
        ("infer", {"batch": 64, "folded": True, "cudnn_benchmark": False}),
        ("train", {"batch": 64, "cudnn_benchmark": False}), ("train", {"batch": 192}), ("infer", {"batch": 256, "folded": True}),
        ("train", {"batch": 64, "layout": "nchw"}), ("train", {"batch": 64, "model": "resnet50"}),
        ("infer", {"batch": 128, "model": "resnet50", "folded": True}), ("infer", {"batch": 128, "amp": "fp16", "folded": True}),
        ("train", {"batch": 256}), ("train", {"batch": 32}), ("train", {"batch": 64, "model": "timm:seresnext50_32x4d"}),
        ("train", {"batch": 256, "size": 128}), ("train", {"batch": 16, "size": 128}), ("train", {"batch": 64, "amp": "off"}),
    ],
    "candidates": candidates(),
}  # fmt: skip


def net(part="main"):
    """Images a second of the network on tensors that lie on the device: forward and backward with the optimiser, or forward alone."""
    for what, options in VARIANTS[part][:3] if TINY else VARIANTS[part]:
        if left() < (2 if TINY else 14):
            report("net", what=what, **options, skipped="no time")
            continue
        with reporting_errors("net", what=what, **options):
            if options.get("compiled"):
                torch.compiler.reset()
            net_variant(what, **options)


def net_variant(
    what,
    batch,
    amp="bf16",
    layout="nhwc",
    cudnn_benchmark=True,
    folded=False,
    model=MODEL,
    size=None,
    compiled=False,
    one_pass=True,
):
    size = SIZE if size is None or TINY else size
    used = min(batch, 4) if TINY else batch
    device = torch.device(DEVICE)
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.manual_seed(0)
    form = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    network = models.build(model, 28, 4, size).to(device, memory_format=form)
    for layer in network.modules():
        if isinstance(layer, SqueezeExcite) and not one_pass:  # the gradient as autograd has it
            layer.in_one_pass = lambda images, gate=layer.gate: images * gate(mean_of_pixels(images))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]
    if dtype == torch.float16 and device.type == "cpu":
        dtype = torch.bfloat16
    images = torch.randn(used, 4, size, size, device=device).to(dtype or torch.float32, memory_format=form)
    targets = (torch.rand(used, 28, device=device) < 0.06).float()
    if folded:
        network = fold_batch_norm(network, images[:1])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    called = torch.compile(network, dynamic=False) if compiled else network
    autocast = lambda: torch.autocast(device.type, dtype, enabled=dtype is not None)  # noqa: E731
    if what == "train":
        optimiser = torch.optim.Adadelta(network.parameters(), 0.1, weight_decay=1e-4)
        network.train()

        def once():
            optimiser.zero_grad(set_to_none=True)
            with autocast():
                out = called(images)
            F.binary_cross_entropy_with_logits(out.float(), targets).backward()
            optimiser.step()
    else:
        network.eval()

        def once():
            return called(images)

    with contextlib.ExitStack() as stack:
        if what == "infer":  # around all, as in inference.predict: weights stay in 16 bits
            stack.enter_context(torch.inference_mode())
            stack.enter_context(autocast())
        found = timed(once, used, device)
    torch.backends.cudnn.benchmark = True
    report("net", what=what, model=model, batch=used, size=size, amp=amp, layout=layout,
           cudnn_benchmark=cudnn_benchmark, folded=folded, compiled=compiled, one_pass=one_pass, **found, peak_gb=peak(device))  # fmt: skip


# --- images -----------------------------------------------------------------------------------------------------------------------


def link(atlas, out, copies):
    """Each training image of an atlas several times, under other Ids, as one more folder (hard links) with its table."""
    atlas, out = Path(atlas), Path(out)
    (out / "train").mkdir(parents=True, exist_ok=True)
    table, rows = pd.read_csv(atlas / "train.csv", dtype=str, keep_default_na=False), []
    for copy, (id_, target) in itertools.product(range(int(copies)), table[["Id", "Target"]].to_numpy()):
        new = f"{id_}-{copy}"
        for colour in ("red", "green", "blue", "yellow"):
            with contextlib.suppress(FileExistsError):
                os.link(atlas / "train" / f"{id_}_{colour}.png", out / "train" / f"{new}_{colour}.png")
        rows.append((new, target))
    rows = pd.DataFrame(rows, columns=["Id", "Target"])
    rows["fold"] = [0 if number % 10 == 9 else 1 for number in range(len(rows))]
    rows[["Id", "Target"]].to_csv(out / "train.csv", index=False)
    rows.to_csv(out / "folds.csv", index=False)
    rows[["Id"]].iloc[::4].to_csv(out / "some.csv", index=False)
    rows[["Id"]].to_csv(out / "all.csv", index=False)
    report("images", of=str(atlas.name), unique=len(table), linked=len(rows))


# --- the kit's own training step --------------------------------------------------------------------------------------------------


def a_workload(batch):
    given = {"device": DEVICE, "workers": -1, "batch_size": batch, "count": None, "images": str(BIG / "train"), "size": SIZE,
             "model": TRAINED, "head": "own", "repeats": 3, "predicted": 12}  # fmt: skip
    return Workload(argparse.Namespace(**given), WORK)


def samples_of(work, augmented):
    """The linked images, packed (train.py has done so before), as `Samples`."""
    return work.samples(opened(), augmented=augmented)


@functools.cache
def opened():
    found = scan_folder(BIG / "train")
    files = find_files([BIG / "train"], sorted(found), RGBY, found)
    return cache.open_images(files, RGBY.names, SIZE, "resize", CACHE)[0]


def trainer():
    """Trainer.train_step: on a batch that lies on the device; on one in pinned memory, prefetched; on what the loader brings."""
    with reporting_errors("trainer", batch=BATCH):
        trainer_of(BATCH, profiled=True)
    with reporting_errors("loader alone"):
        loader_alone()
    if left() > 25 and not TINY:
        with reporting_errors("trainer", batch=2 * BATCH):
            trainer_of(2 * BATCH, profiled=False)


def trainer_of(batch, profiled):
    work = a_workload(batch)
    device, one = work.device, work.trainer(SIZE, batch)
    noise = work.random_batch(SIZE, batch)
    here = noise | {name: noise[name].to(device) for name in ("images", "targets")}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found = timed(lambda: one.train_step(here), batch, device, 3)
    estimated = (
        gpu_memory.estimate(RECIPES["chen"] | {"model": TRAINED, "size": SIZE, "batch_size": batch}, 28, one.amp) / 1e9
    )
    report("trainer", way="on the device", batch=batch, **found, peak_gb=peak(device), estimated_gb=round(estimated, 2))
    report("trainer", way="waits in a step", batch=batch, waits=waits_in(lambda: one.train_step(here), device))
    here.clear()
    feed = work.noise(SIZE, batch)
    report("trainer", way="prefetched noise", batch=batch, **timed(lambda: feed.step(one), batch, device, 3))

    workers = pick_workers(-1, device)
    loader = make_loader(samples_of(work, True), batch, workers, device, shuffle=True)
    started = time.perf_counter()
    loaded = Feed(begin_epoch(loader, 1), device)
    report(
        "trainer",
        way="first batch of the loader",
        batch=batch,
        workers=workers,
        seconds=round(time.perf_counter() - started, 2),
    )
    ready = 1 if TINY else 2 * workers  # batches made while nothing was trained
    steps = 2 if TINY else max(20, min(80, round(9 * 500 / batch)))
    for _ in range(ready):
        loaded.step(one)
    wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        loaded.step(one)
    wait(device)
    seconds = time.perf_counter() - started
    report("trainer", way="loader", batch=batch, workers=workers, steps=steps, img_s=round(steps * batch / seconds, 1),
           ms=round(1000 * seconds / steps, 2))  # fmt: skip
    if profiled and device.type == "cuda" and left() > 15:
        with reporting_errors("profile"):
            profile(one, loaded, batch)
    del loaded, loader
    with reporting_errors("saving"):
        started = time.perf_counter()
        copied, complete = checkpoint.snapshot(one.state(), device)
        held_up = time.perf_counter() - started
        complete()
        checkpoint.save(WORK / "probe.pt", copied)
        report("saving", seconds=round(time.perf_counter() - started, 2), training_held_up=round(held_up, 3),
               MB=round((WORK / "probe.pt").stat().st_size / 1e6))  # fmt: skip


def waits_in(function, device):
    """Where the CPU waits for the GPU in a call, as torch sees it: {place: times}."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(one.filename).name}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)]
    return dict(Counter(places))


def profile(one, feed, batch, steps=8):
    """How busy the GPU is in the steps of a training, and with what: profile.txt."""
    from torch.profiler import ProfilerActivity, schedule
    from torch.profiler import profile as record

    path = WORK / "trace.json"
    with record(activities=[ProfilerActivity.CUDA], schedule=schedule(wait=0, warmup=3, active=steps),
                on_trace_ready=lambda seen: seen.export_chrome_trace(str(path))) as seen:  # fmt: skip
        for _ in range(steps + 3):
            feed.step(one)
            seen.step()
    events = [
        e for e in json.loads(path.read_text())["traceEvents"] if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    ]
    busy = covered((e["ts"], e["ts"] + e["dur"]) for e in events if e["cat"] == "kernel")
    span = max(e["ts"] + e["dur"] for e in events) - min(e["ts"] for e in events)
    sums, counts = defaultdict(float), Counter()
    for event in events:
        name = re.sub(r"\s+", " ", event["name"])[:110]
        sums[name] += event["dur"] / 1000 / steps
        counts[name] += 1
    lines = [f"{TRAINED} {SIZE}², batch {batch}: GPU busy {busy / span:.1%} of {span / 1e3 / steps:.1f} ms a step",
             f"{'ms a step':>10}{'calls':>7}  kernel"]  # fmt: skip
    lines += [
        f"{sums[name]:>10.2f}{counts[name] / steps:>7.0f}  {name}"
        for name in sorted(sums, key=sums.get, reverse=True)[:60]
    ]
    lines += ["", "longest waits of the GPU: ms, between which kernels"]
    lines += [f"{wait:>10.2f}  {before[:70]} .. {after[:70]}" for wait, before, after in pauses(events)[: 3 * steps]]
    (WORK / "profile.txt").write_text("\n".join(lines) + "\n")
    path.unlink()
    kinds = defaultdict(float)
    for name, ms in sums.items():
        kinds[kind_of(name)] += ms
    report("profile", batch=batch, busy=round(busy / span, 4), ms=round(span / 1e3 / steps, 2), kernels_a_step=round(len(events) / steps),
           by_kind={kind: round(ms, 2) for kind, ms in sorted(kinds.items(), key=lambda item: -item[1])})  # fmt: skip


def covered(intervals):
    """The length of a union of intervals (begin, end)."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def pauses(events):
    """[(ms, kernel before, kernel after)] in which no kernel ran, the longest first."""
    kernels = sorted((e for e in events if e["cat"] == "kernel"), key=lambda e: e["ts"])
    found = [((b["ts"] - a["ts"] - a["dur"]) / 1e3, a["name"], b["name"]) for a, b in itertools.pairwise(kernels)]
    return sorted(found, reverse=True)


def kind_of(name):
    name = name.lower()
    for kind, words in {
        "copies": ("memcpy", "memset"), "batch norm": ("batch_norm", "bn_fw", "bn_bw", "batchnorm"),
        "optimiser": ("multi_tensor", "foreach"),
        "convolutions": ("conv", "xmma", "cutlass", "gemm", "wgrad", "dgrad", "cudnn", "nvjet", "sm90_", "sm80_"),
        "pooling and sums": ("reduce", "pool"), "elementwise": ("elementwise", "vectorized", "copy", "cat"),
    }.items():  # fmt: skip
        if any(word in name for word in words):
            return kind
    return "others"


def loader_alone():
    """Samples a second with nothing trained, by workers; and what one sample costs one core."""
    work = a_workload(BATCH)
    samples = samples_of(work, True)
    count = 8 if TINY else 150
    for what, one in (("training", samples), ("prediction", samples_of(work, False))):
        started = time.perf_counter()
        for row in range(count):
            image = one[(1, row, 0)]["images"]
            image.copy()  # a view of the map is read now
        report("one core", what=what, ms_a_sample=round((time.perf_counter() - started) / count * 1000, 3))
    for workers in [1] if TINY else sorted({2, 4, 8, pick_workers(-1, work.device)}):
        if left() < (2 if TINY else 12):
            break
        loader = make_loader(samples, BATCH, workers, work.device, shuffle=True)
        source = begin_epoch(loader, 1)
        for _ in range(1 if TINY else workers):
            next(source)
        started, seen, end = time.perf_counter(), 0, time.perf_counter() + (0.5 if TINY else 3)
        for batch in source:
            seen += len(batch["rows"])
            if time.perf_counter() > end:
                break
        report("loader alone", workers=workers, a_second=round(seen / (time.perf_counter() - started), 1))
        del source, loader


# --- predict.py -------------------------------------------------------------------------------------------------------------------


def predict(run):
    """predict.py's own figure, by views, batch and arithmetic, and compiled."""
    import predict as script

    ways = [
        {"tta": 1, "batch": BATCH, "ids": "all"}, {"tta": 4, "batch": BATCH, "ids": "some"}, {"tta": 1, "batch": 4 * BATCH, "ids": "all"},
        {"tta": 1, "batch": BATCH, "ids": "all", "amp": "fp16"}, {"tta": 1, "batch": 2 * BATCH, "ids": "all", "compiled": True},
        {"tta": 4, "batch": 2 * BATCH, "ids": "some"},
    ]  # fmt: skip
    for way in ways[:2] if TINY else ways:
        if left() < (5 if TINY else 60 if way.get("compiled") else 14):
            report("predict", **way, skipped="no time")
            continue
        with reporting_errors("predict", **way):
            words = [run, "--images", BIG / "train", "--ids", BIG / f"{way['ids']}.csv", "--tta", way["tta"], "--device", DEVICE,
                     "--cache", CACHE, "-o", WORK / f"predicted{way['tta']}.csv", "--batch-size", way["batch"]]  # fmt: skip
            words += ["--amp", way["amp"]] if "amp" in way else []
            words += ["--compile"] if way.get("compiled") else []
            out, before = io.StringIO(), sys.argv
            sys.argv = ["predict.py", *map(str, words)]
            try:
                with contextlib.redirect_stdout(out):
                    script.main()
            finally:
                sys.argv = before
            match = re.search(r"([\d,]+) images? in ([\d.]+) s, ([\d.]+) img/s", out.getvalue())
            count, seconds = int(match[1].replace(",", "")), float(match[2])
            report("predict", **way, images=count, seconds=seconds, img_s=float(match[3]), ended=round(time.time(), 2),
                   peak_gb=peak(torch.device(DEVICE)))  # fmt: skip


def agree(name, first, *others):
    """How much prediction files of the same network differ at most, and how far the first one spreads."""
    a = pd.read_csv(first).set_index("Id")
    for other in others:
        b = pd.read_csv(other).set_index("Id").loc[a.index]
        report("agree", what=name, files=[Path(first).stem, Path(other).stem], largest=float((a - b).abs().to_numpy().max()),
               mean=float((a - b).abs().to_numpy().mean()), spread=float(a.to_numpy().std()))  # fmt: skip


# --- runs -------------------------------------------------------------------------------------------------------------------------


def run_of(fold):
    """What log.csv of a run says: first and last epoch, the best score, the usual speed."""
    fold = Path(fold)
    log = pd.read_csv(fold / "log.csv")
    config = json.loads((fold / "config.json").read_text())
    keep = [c for c in ("loss", "macro_f1", "valid_bce", "images_per_second", "seconds", "peak_gb") if c in log]
    rows = [{c: round(float(row[c]), 4) for c in keep} for _, row in log.iterrows()]
    report("run", name=f"{fold.parent.name}/{fold.name}", arithmetic=config.get("arithmetic"), size=config["size"],
           batch=config["batch_size"], compiled=config.get("compile"), loss=config["loss"], epochs=len(log),
           best_f1=round(float(log["macro_f1"].max()), 4), first=rows[0], last=rows[-1],
           median_img_s=round(float(log["images_per_second"].iloc[1:].median()), 1) if len(log) > 1 else None,
           median_epoch_s=round(float(log["seconds"].iloc[1:].median()), 2) if len(log) > 1 else None,
           learned=bool(log["loss"].iloc[-1] < log["loss"].iloc[0]))  # fmt: skip


def resume(*command):
    """Start a training, kill -9 it within an epoch, start it again: does it go on, and is every step there once?"""
    run = Path(command[command.index("--runs") + 1]) / command[command.index("--name") + 1] / "fold0"
    words = [sys.executable, "train.py", *command, "--save-every", "1s"]
    last, kills = run / "last.pt", []
    for wanted in (2, 2):  # writes of last.pt before a kill
        process, seen, stamp = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT), 0, None
        while process.poll() is None and left() > 20:
            now = last.stat().st_mtime_ns if last.exists() else None
            if now != stamp and now:
                seen, stamp = seen + 1, now
            if seen > wanted:
                time.sleep(0.15)
                break
            time.sleep(0.02)
        ended = process.poll()
        process.kill()
        printed = process.communicate()[0].decode(errors="replace")
        kills.append({"ended_before": ended, "went_on": "going on from" in printed})
        if ended is not None:
            print(printed[-1500:])
            break
    done = subprocess.run(words, capture_output=True, text=True)
    print(done.stdout[-1500:], done.stderr[-1500:])
    found = {
        "rc": done.returncode,
        "kills": kills,
        "went_on": "going on from" in done.stdout or "trained already" in done.stdout,
    }
    with contextlib.suppress(OSError):
        steps, log = pd.read_csv(run / "steps.csv"), pd.read_csv(run / "log.csv")
        found |= {"steps": len(steps), "each_once": bool((steps["step"].to_numpy() == np.arange(1, len(steps) + 1)).all()),
                  "epochs": log["epoch"].tolist(), "first_losses": steps["loss"].head(3).round(5).tolist(),
                  "best_f1": round(float(log["macro_f1"].max()), 4)}  # fmt: skip
    report("resume", **found)


def score(truth, *submissions):
    from sklearn.metrics import f1_score

    def matrix(column):
        return [[int(str(c) in text.split()) for c in range(28)] for text in column]

    truth = pd.read_csv(truth, dtype=str, keep_default_na=False).set_index("Id")
    for path in submissions:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("Id").loc[truth.index]
        value = f1_score(matrix(truth["Target"]), matrix(table["Predicted"]), average="macro", zero_division=0)
        report("score", file=Path(path).name, macro_f1=round(float(value), 4), rows=len(table))


def thresholds(path, name):
    found = json.loads(Path(path).read_text())
    report(
        "thresholds",
        name=name,
        method=found["method"],
        **{k: found["macro_f1"][k] for k in ("in_sample", "cross_fitted")},
    )


def benchmark(path):
    found = json.loads(Path(path).read_text())
    for subject in ("training", "prediction"):
        if subject in found:
            report("benchmark", subject=subject, **{k: v for k, v in found[subject].items() if k != "pairs"})


# --- torch.compile ----------------------------------------------------------------------------------------------------------------


def compiled():
    """Is compiled training right with this torch, and what is it worth?"""
    work = a_workload(BATCH)
    with reporting_errors("compile", asked="the same as eager"):
        one = compiled_equals(work, "auto", SIZE, BATCH)
    with reporting_errors("compile", asked="Trainer"):
        compiled_trainer(work, one)
    if left() > (5 if TINY else 40):
        with reporting_errors("compile", what="infer"):
            torch.compiler.reset()
            net_variant("infer", 64, compiled=True, folded=True, model=TRAINED)
    if left() > (5 if TINY else 90):
        with reporting_errors("compile", asked="the same as eager, off"):
            torch.compiler.reset()
            compiled_equals(work, "off", *((32, 4) if TINY else (128, 16)))


def compiled_equals(work, amp, size, batch, steps=4):
    """A compiled Trainer, after steps in which an eager one began with the same weights; and how far apart two eager ones get."""
    feeds, seen = [work.random_batch(size, batch, seed) for seed in range(steps)], {}
    work.network(size)  # the import of pretrainedmodels draws random numbers, once
    for name in ("eager", "again", "compiled"):
        torch.manual_seed(0)
        one, started = work.trainer(size, batch, amp, compile=name == "compiled"), time.perf_counter()
        losses_ = [one.train_step(feed)["loss"] for feed in feeds]
        seconds = time.perf_counter() - started
        seen[name] = losses_, {k: v.detach().float().cpu() for k, v in one.network.state_dict().items()}
        if name == "eager":
            continue
        (a, weights), (b, others) = seen["eager"], seen[name]
        far = {k: float((weights[k] - others[k]).abs().max() / (weights[k].abs().max() + 1e-6)) for k in weights}
        worst = max(far, key=far.get)
        report("compile", asked=f"{name} against eager, {amp}", seconds=round(seconds, 1), furthest_weight=worst, by=round(far[worst], 5),
               largest_loss_difference=max(abs(x - y) for x, y in zip(a, b)), losses=[round(x, 5) for x in a])  # fmt: skip
    return one


def compiled_trainer(work, one):
    noise = work.random_batch(SIZE, BATCH)
    here = noise | {name: noise[name].to(work.device) for name in ("images", "targets")}
    if work.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(work.device)
    report("compile", asked="Trainer, on the device", batch=BATCH, **timed(lambda: one.train_step(here), BATCH, work.device, 4),
           peak_gb=peak(work.device))  # fmt: skip
    feed = work.noise(SIZE, BATCH)
    report(
        "compile",
        asked="Trainer, prefetched noise",
        batch=BATCH,
        **timed(lambda: feed.step(one), BATCH, work.device, 3),
    )
    part = work.random_batch(SIZE, max(2, BATCH // 2 + 3))
    for call in range(2):  # the last batch of an epoch is smaller, and not compiled for
        started = time.perf_counter()
        one.train_step(part)
        wait(work.device)
        report("compile", asked=f"smaller last batch, call {call + 1}", seconds=round(time.perf_counter() - started, 2))
    report("compile", asked="Trainer, on the device, after a smaller batch", batch=BATCH,
           **timed(lambda: one.train_step(here), BATCH, work.device, 2))  # fmt: skip


STEPS = {function.__name__: function for function in (env, net, link, trainer, predict, agree, resume, score, thresholds,
                                                      benchmark, compiled)} | {"run": run_of}  # fmt: skip

if __name__ == "__main__":
    STEPS[sys.argv[1]](*sys.argv[2:])

"""What a measurement has found: a line of JSON for each figure, and the tables made of them.

python .gpu/results.py stamp NAME    # copies its input, with the time and a step's name before each line
python .gpu/results.py busy          # how busy the GPU was, from nvidia-smi's log
python .gpu/results.py table         # all figures for people: table.txt
"""

import contextlib
import datetime
import json
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

WORK = Path(os.environ.get("WORK") or Path(tempfile.gettempdir()) / "gpu-work")
RESULTS = Path(os.environ.get("RESULTS", WORK / "results.jsonl"))


def report(step, **values):
    """A line of JSON, on the disk at once, and in the log."""
    line = json.dumps({"step": step, "at": round(time.time(), 2)} | values, default=str)
    with open(RESULTS, "a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def results():
    """All lines so far, as dicts."""
    for line in RESULTS.read_text().splitlines():
        with contextlib.suppress(ValueError):  # a line that was cut off
            yield json.loads(line)


def stamp(name):
    for line in sys.stdin.buffer:
        text = line.decode(errors="replace").rstrip()
        print(f"{time.time():.2f} [{name}] {text}", flush=True)


def busy():
    """How busy the GPU was in the epochs of each training but the first, and in every prediction."""
    samples = smi_samples()
    if not samples:
        return
    ends = defaultdict(list)
    for line in (WORK / "log.txt").read_text(errors="replace").splitlines():
        if match := re.match(r"([\d.]+) \[(\S+)\] (\d+)/(\d+) +\S", line):
            ends[match[2]].append((int(match[3]), float(match[1])))
    for name, marks in ends.items():
        (first, begin), (last, end) = marks[0], marks[-1]
        if end > begin:
            report("busy", run=name, epochs=f"{first + 1} to {last}", **of_window(samples, begin, end))
    for row in results():
        if row["step"] == "predict" and "ended" in row:
            name = f"predict, {row['tta']} views, batch {row['batch']}{', compiled' if row.get('compiled') else ''}"
            report("busy", run=name, **of_window(samples, row["ended"] - row["seconds"], row["ended"]))


def smi_samples():
    """(time, percent busy, MiB in use, watts, MHz) of each line that nvidia-smi has logged."""
    found = []
    with contextlib.suppress(OSError):
        for line in (WORK / "smi.csv").read_text().splitlines():
            cells = [cell.strip() for cell in line.split(",")]
            with contextlib.suppress(ValueError, IndexError):
                when = datetime.datetime.strptime(cells[0], "%Y/%m/%d %H:%M:%S.%f").timestamp()
                found.append((when, *(float(cell) for cell in cells[1:5])))
    return found


def of_window(samples, begin, end):
    inside = [sample for sample in samples if begin <= sample[0] <= end]
    if not inside:
        return {"samples": 0}

    def mean(column):
        return round(sum(sample[column] for sample in inside) / len(inside), 1)

    return {"seconds": round(end - begin, 1), "samples": len(inside), "gpu_percent": mean(1),
            "memory_MiB": max(sample[2] for sample in inside), "watts": mean(3), "MHz": mean(4)}  # fmt: skip


def table():
    lines = []
    for row in results():
        step, rest = row["step"], {key: value for key, value in row.items() if key not in ("step", "at")}
        if step == "env":
            lines.append(
                f"{rest.get('gpu', 'no GPU')}, driver {rest.get('driver')}, torch {rest['torch']}, Python {rest['python']}, "
                f"numpy {rest['numpy']}, {rest['cores']} cores {rest.get('cpu')}, /dev/shm {rest.get('shm_gb')} GB"
            )
        elif step == "done":
            lines.append(f"  step {rest['name']:<14} exit code {rest['rc']:>3} {rest['seconds']:>6.1f} s")
        elif step == "net" and "img_s" in rest:
            words = [rest["model"], f"{rest['size']}²", rest["amp"], rest["layout"]]
            words += (
                [word for word in ("folded", "compiled") if rest[word]]
                + ([] if rest["one_pass"] else ["gradients apart"])
                + ([] if rest["cudnn_benchmark"] else ["without cudnn.benchmark"])
            )
            lines.append(
                f"net {rest['what']:<6}{rest['batch']:>4} {rest['img_s']:>8.1f} img/s {rest['peak_gb'] or 0:>6.1f} GB  {' '.join(words)}"
            )
        elif step == "run":
            lines.append(
                f"run {rest['name']:<22} {rest['arithmetic']} {rest['size']}² batch {rest['batch']} {rest['epochs']} epochs: "
                f"{rest['median_img_s']} img/s, {rest['median_epoch_s']} s an epoch, F1 {rest['best_f1']}, loss "
                f"{rest['first'].get('loss')} -> {rest['last'].get('loss')}, {rest['last'].get('peak_gb')} GB"
            )
        else:
            lines.append(f"{step}: " + ", ".join(f"{key} {value}" for key, value in rest.items())[:230])
    text = "\n".join(lines) + "\n"
    (WORK / "table.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    {"stamp": stamp, "busy": busy, "table": table}[sys.argv[1]](*sys.argv[2:])

"""The measurement for GPUs (tests/gpu/) runs to its end on a CPU, with sizes that mean nothing."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests/gpu"))
import bench  # noqa: E402
import results  # noqa: E402


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the steps print and write that call most of the kit."""
    folder = tmp_path_factory.mktemp("gpu")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "TINY": "1",
        "DEVICE": "cpu",
        "LIMIT": "1000",
        "WORK": folder / "work",
        "OUT": folder / "out",
        "PYTHON": sys.executable,
    }
    steps = ["env", "net_main", "e2e", "predict", "trainer"]
    done = subprocess.run(
        ["bash", ROOT / "tests/gpu/measure.sh", *steps], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (folder / "out/results.jsonl").read_text().splitlines()]
    log = (folder / "out/log.txt").read_text()
    assert not [row for row in rows if "error" in row and row.get("option") != "cuda"], log[-5000:]
    return folder / "out", rows, steps, done.stdout


def test_every_step_ends_well_and_leaves_its_figures(measured):
    out, rows, steps, printed = measured
    ended = {row["name"]: row["rc"] for row in rows if row["step"] == "done"}
    assert ended == dict.fromkeys(["install", *steps], 0)
    ways = {row["way"] for row in rows if row["step"] == "trainer"}
    assert {"on the device", "waits in a step", "prefetched noise", "loader"} <= ways
    for step, count in {"net": 3, "run": 1, "predict": 2, "saving": 1, "loader alone": 1}.items():
        found = [row for row in rows if row["step"] == step]
        assert len(found) >= count, step
        assert all(
            value > 0
            for row in found
            for key, value in row.items()
            if key in ("img_s", "a_second", "median_img_s")
        )
    assert (out / "table.txt").read_text() in printed and "run chen512/fold0" in printed
    assert [row["device"] for row in rows if row.get("option") in ("auto", "cpu")] == ["cpu", "cpu"]


def test_steps_that_are_known(measured):
    """Each step of measure.sh that calls bench.py names one that is there."""
    text = (ROOT / "tests/gpu/measure.sh").read_text()
    words = {word for line in text.splitlines() for word in line.replace("&&", ";").replace("&", ";").split(";")}
    called = {
        words.split()[1]
        for words in map(str.strip, words)
        if words.startswith("bench ") and "$" not in words.split()[1]
    }
    assert called and called <= set(bench.STEPS)


def test_how_busy_a_gpu_was_is_read_off_its_log(tmp_path, monkeypatch):
    """Three epochs that end at 100, 101 and 102 s: of those after the first the mean of what nvidia-smi has logged within."""
    monkeypatch.setattr(results, "WORK", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results.jsonl")
    results.report("env", torch="2", numpy="2", python="3", cores=2)
    stamp = results.datetime.datetime.fromtimestamp
    lines = [f"{stamp(99 + k / 2):%Y/%m/%d %H:%M:%S.%f}, {90 + k}, {1000 + k}, 300, 1700" for k in range(8)]
    (tmp_path / "smi.csv").write_text("\n".join([*lines, "cut off, 3"]) + "\n")
    (tmp_path / "log.txt").write_text(
        "100.00 [e2e] 1/3     bce 0.3\n101.0 [e2e] 2/3     bce 0.2\n101.5 [e2e] nothing\n102.00 [e2e] 3/3     bce 0.2\n"
    )
    results.busy()
    (row,) = [row for row in results.results() if row["step"] == "busy"]
    assert (row["run"], row["epochs"], row["seconds"], row["samples"]) == ("e2e", "2 to 3", 2.0, 5)
    assert row["gpu_percent"] == 94 and row["memory_MiB"] == 1006
    results.table()
    assert "busy: run e2e, epochs 2 to 3" in (tmp_path / "table.txt").read_text()
    assert (
        bench.covered([(0, 2), (1, 3), (5, 6)]) == 4
        and bench.kind_of("void at::native::multi_tensor_apply") == "optimiser"
    )
    kernels = [
        {"cat": "kernel", "name": name, "ts": begin, "dur": 1000}
        for name, begin in (("a", 0), ("c", 5000), ("b", 1000))
    ]
    assert bench.pauses([*kernels, {"cat": "gpu_memcpy", "ts": 0}]) == [(3, "b", "c"), (0, "a", "b")]

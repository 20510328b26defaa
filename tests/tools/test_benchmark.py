"""python -m utils.tools.benchmark: every number is written, each ratio is that of the numbers beside it, and nothing is left behind."""

import argparse
import json
import os
import signal
import statistics
import tempfile

import numpy as np
import pytest
import torch
from conftest import kit, refuse, succeed, write_images

from utils import models
from utils.data.images import load_sample
from utils.opencv import cv2
from utils.tools.benchmark import __main__ as command
from utils.tools.benchmark import measuring, probe, subjects, workload

BENCHMARK = "utils.tools.benchmark.__main__"
IDS = [f"i{n}" for n in range(6)]
TINY = ["--model", "gapnet_pl", "--size", 32, "--batch-size", 2, "--repeats", 1, "--predicted", 3, "--workers", 1]
TINY += ["--sizes", 32, "--batches", 2, "--tables", 60, "--rows", 300, "--classes", 3, "--loop-classes", 1]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark") / "images"
    write_images(folder, IDS, size=32)
    return folder


@pytest.fixture(scope="module")
def everything(images, tmp_path_factory):
    """One run of all subjects: what it printed, its JSON, its figure's path, its temporary folder's parent, and the GB that
    this process held meanwhile."""
    ballast = np.ones(2**30, np.uint8)
    folder = tmp_path_factory.mktemp("all")
    (folder / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        patch.setattr(subjects, "PASS_SECONDS", 0.0)
        patch.setattr(subjects, "BLOCK_SECONDS", 0.0)
        out = succeed(BENCHMARK, *TINY, "--images", images, "-o", folder / "b.json", "--plot", folder / "b.png").out
    held = measuring.resident_mb(os.getpid())["resident_mb"] / 1000
    del ballast
    return out, json.loads((folder / "b.json").read_text()), folder / "b.png", folder / "tmp", held


def rows_of(found, *keys):
    assert found["rows"] and all(set(keys) <= set(row) for row in found["rows"])
    return found["rows"]


def test_everything_is_measured_and_printed_within_80_columns(everything):
    out, found, figure, place, _ = everything
    assert set(found) == {"machine", "options", "minutes", *subjects.SUBJECTS}
    assert not [line for line in out.splitlines() if len(line) > 79]
    for name in subjects.SUBJECTS:
        assert f"\n{name}: " in out
    picture = cv2.imread(str(figure))
    assert min(picture.shape[:2]) > 600 and picture.std() > 10
    assert not [name for name in os.listdir(place) if not name.startswith("torchinductor_")]  # made when torch is imported
    assert "6 samples of " in out and set(found["machine"]) >= {"cpu", "cores", "memory_gb", "gpu", "torch", "date"}


def test_loading_compares_with_the_plain_dataset(everything):
    out, found = everything[0], everything[1]["loading"]
    rows = {row["way"]: row for row in rows_of(found, "way")}
    assert set(rows) == {"packed", "packed, zstd", "PNG files", "plain Dataset, cv2"}
    for way, row in rows.items():
        for purpose in ("prediction", "training"):
            assert row[f"{purpose}_ms_ratio"] == pytest.approx(
                rows[found["compared_with"]][f"{purpose}_ms"] / row[f"{purpose}_ms"]
            )
        line = next(line for line in out.splitlines() if line.startswith(f"{way}  "))
        assert line[19:].split()[:2] == [f"{row['prediction_ms']:.2f}", f"{row['prediction_ms_ratio']:.1f}×"]


def test_training_pairs_blocks_of_steps(everything):
    found = everything[1]["training"]
    ratios = [pair["ratio"] for pair in found["pairs"]]
    assert ratios == [pytest.approx(pair["loaded"] / pair["in_memory"]) for pair in found["pairs"]]
    assert found["ratio"] == statistics.median(ratios) and (found["lowest"], found["highest"]) == (
        min(ratios),
        max(ratios),
    )


def test_prediction_says_the_same_in_both_ways(everything):
    found = everything[1]["prediction"]
    assert found["ratio"] == pytest.approx(found["kit"] / found["plain"]) and found["images"] == 3
    assert found["difference"] < 0.02 and found["spread"] > 0


def test_cost_memory_and_tables_have_their_rows(everything):
    found = everything[1]
    (row,) = rows_of(found["cost"], "size", "batch", "training_ms", "prediction_ms")
    assert min(row["training_ms"], row["prediction_ms"]) > 0 and row["peak_gb"] >= row["start_gb"] > 0
    assert [row["workers"] for row in rows_of(found["cost"]["loading"], "a_second")] == [0, 1, 2, 4]
    rows = rows_of(found["memory"], "process", "resident_mb", "own_mb", "shared_mb", "files_mb")
    assert [row["process"] for row in rows] == ["training", "worker 1"]
    assert all(row["own_mb"] > 0 and row["files_mb"] > 0 for row in rows)
    assert [(row["command"], row["rows"]) for row in rows_of(found["tables"], "seconds")] == [
        ("make_folds.py", 60),
        ("threshold.py", 60),
    ]


def test_the_exact_thresholds_are_at_least_as_good_as_the_loops(everything):
    out, found = everything[0], everything[1]["thresholds"]
    assert found["loop_ms"] / found["exact_ms"] == pytest.approx(found["ratio"]) and found["gain"] >= 0
    lines = out[out.index("thresholds: ") :].splitlines()[1:4]
    exact, loop, ratio = (float(line[32:].split()[0].replace(",", "")) for line in lines)
    assert exact == round(found["exact_ms"], 2) and loop == pytest.approx(found["loop_ms"], abs=1)
    assert ratio == pytest.approx(found["ratio"], abs=1)


def test_subjects_without_images_draw_none(monkeypatch):
    monkeypatch.setattr(subjects, "GRID", [0.3, 0.5])
    out = succeed(BENCHMARK, "thresholds", "--rows", 200, "--classes", 2, "--loop-classes", 1).out
    assert "samples" not in out and "loading" not in out


def test_fields_are_simulated_without_images(tmp_path, monkeypatch):
    monkeypatch.setattr(subjects, "PASS_SECONDS", 0.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = succeed(BENCHMARK, "loading", *TINY, "--count", 3, "-o", tmp_path / "b.json").out
    assert "3 samples simulated" in out and sorted(os.listdir(tmp_path)) == ["b.json"]


def test_nothing_is_left_where_it_breaks_off(images, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / "own"
    write_images(own, ["a"], size=32)
    (own / "a_red.png").write_bytes((own / "a_red.png").read_bytes()[:60])
    refuse(BENCHMARK, "loading", *TINY, "--images", own, says="a_red.png is cut short")
    assert os.listdir(tmp_path) == ["own"]


def test_nothing_is_left_after_sigterm(images, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def measure(work):
        assert os.listdir(tmp_path) and work.packed()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setitem(subjects.SUBJECTS, "loading", (measure, None))
    assert kit(BENCHMARK, "loading", *TINY, "--images", images).code == 143
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "options, says",
    [
        (["speed"], "unknown subject 'speed'; the subjects are loading, training"),
        (["loading", "--images", "nowhere"], "nowhere is not a folder"),
        (["loading", "--size", 16], "--size 16 is out of range"),
        (["training", "--model", "xception", "--size", 32], ["xception", "32"]),
        (["cost", "--model", "xception", "--sizes", 32], ["xception", "32"]),
        (["training", "--model", "alexnet"], "no network is called 'alexnet'"),
        (["training", "--model", "gapnet_pl", "--head", "avg_max"], "gapnet_pl cannot have the head avg_max"),
        (["cost", "--sizes", 32, "--size", 64, "--batches", 1], "cannot be trained on one image of 32²"),
        (["cost", "--batches", 0], "--batches 0 is out of range"),
        (["tables", "--tables", 2], "--tables 2 is out of range"),
        (["loading", "--repeats", 0], "--repeats 0 is out of range"),
        (["thresholds", "-o", "/dev/null/b.json"], "cannot write /dev/null/b.json"),
        (["thresholds", "-o", "b.x", "--plot", "b.x"], "b.x is given for two outputs"),
        (["thresholds", "--rows", 10**8], "is out of range; give at most 100,000,000"),
    ],
)
def test_bad_input_is_refused_beforehand(options, says, monkeypatch):
    monkeypatch.setattr(command, "Workload", None)  # nothing is begun
    refuse(BENCHMARK, *options, says=says)


def test_an_empty_folder_is_refused(tmp_path):
    refuse(BENCHMARK, "loading", *TINY, "--images", tmp_path, says="has no <Id>_<colour>.png files")


def test_the_plain_dataset_reads_what_the_kit_reads(images):
    files, labels = [tuple(images / f"i0_{colour}.png" for colour in workload.RGBY.names)], workload.draw_labels(1)
    image, target = workload.PlainDataset(files, labels, 32, training=False)[0]
    expected = torch.from_numpy(load_sample(files[0])).permute(2, 0, 1) / 255
    assert torch.allclose(image, expected) and target.tolist() == labels[0].tolist()
    assert workload.PlainDataset(files, labels, 24, training=True)[0][0].shape == (4, 24, 24)


def test_the_plain_loop_means_four_views():
    network = models.build("gapnet_pl", 28, 4, 32).eval()
    images = torch.rand(3, 4, 32, 32)
    said = workload.plain_predict(network, [(images, None)], torch.device("cpu"), [0.0] * 4, [1.0] * 4)
    with torch.no_grad():
        views = [torch.sigmoid(network(images.flip(dims))) for dims in ([], [3], [2], [2, 3])]
    assert np.allclose(said, torch.stack(views).mean(0), atol=1e-6)


def test_turns_are_taken_forwards_and_backwards():
    order = []
    ways = {name: lambda name=name: order.append(name) for name in "ab"}
    assert set(measuring.take_turns(ways, 2, torch.device("cpu"), "")) == {"a", "b"}
    assert "".join(order) == "ba" + "ab" + "ba"


def test_memory_of_a_probe_is_its_own(everything):
    """What getrusage calls a new process's largest memory is that of the process that started it."""
    found = everything[1]["cost"]["rows"][0]
    assert found["start_gb"] < everything[4] - 0.5


def test_a_killed_probe_is_no_number(images, tmp_path, monkeypatch):
    args = argparse.Namespace(
        **{"device": "cpu", "workers": 1, "batch_size": 2, "count": 2, "images": str(images), "size": 32, "repeats": 1},
        **{"model": "gapnet_pl", "head": "own"},
    )
    killed = [probe.sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    run = probe.subprocess.run
    monkeypatch.setattr(probe.subprocess, "run", lambda _, **more: run(killed, **more))
    assert probe.run_probe(workload.Workload(args, tmp_path), "step", size=32, batch=2) is None


def test_the_machine_is_told():
    found = measuring.describe_machine(torch.device("cpu"), torch.bfloat16)
    assert found["cores"] >= 1 and found["gpu"] is None and found["arithmetic"] == "bfloat16"
    assert json.loads(json.dumps(found)) == found

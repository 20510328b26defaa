"""What the kit finds out of the machine it runs on: cores, memory, whether it is starved of them; and what a GPU will need."""

import time

import pytest
import torch
from conftest import kit, refuse

import utils
from utils import models
from utils.engine.recipes import RECIPES
from utils.parallel import CoreWatch, free_memory
from utils.tools import gpu_memory


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_cores_are_those_of_the_list_and_of_the_quota(tmp_path, monkeypatch):
    """A container with --cpus 1.5 sees all cores of the machine and gets the time of one and a half."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    for files, quota, cores in [
        ({}, float("inf"), 64), ({"cpu.max": "max 100000\n"}, float("inf"), 64), ({"cpu.max": "150000 100000\n"}, 1.5, 2),
        ({"cpu.max": "10000 100000"}, 0.1, 1), ({"cpu.max": "damaged"}, float("inf"), 64),
        ({"cpu__cpu.cfs_quota_us": "400000\n", "cpu__cpu.cfs_period_us": "100000\n"}, 4, 4),
        ({"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}, float("inf"), 64),
    ]:  # fmt: skip
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        real = utils._core_quota(write(folder, **files))
        assert real == pytest.approx(quota)
        with monkeypatch.context() as patch:
            patch.setattr(utils, "_core_quota", lambda real=real: real)
            assert utils.cores() == cores


def test_free_memory_is_the_least_of_machine_and_container(tmp_path):
    proc = write(tmp_path / "proc", meminfo="MemTotal: 9000 kB\nMemAvailable:   2000000 kB\n")
    assert free_memory(proc, tmp_path / "none") == pytest.approx(2.048)
    two = write(
        tmp_path / "2",
        **{"memory.max": "3000000000", "memory.current": "2500000000", "memory.stat": "anon 5\ninactive_file 7\n"},
    )
    assert free_memory(proc, two) == pytest.approx(0.500000007)
    one = write(tmp_path / "1", **{"memory__memory.limit_in_bytes": "1000", "memory__memory.usage_in_bytes": "9000",
                                   "memory__memory.stat": "inactive_file 10\n"})  # fmt: skip
    assert free_memory(proc, one) == 0 and free_memory(tmp_path / "none", tmp_path / "none") == float("inf")
    assert free_memory(proc, write(tmp_path / "3", **{"memory.max": "max", "memory.current": "5"})) == pytest.approx(
        2.048
    )


def test_a_training_without_cores_of_its_own_says_so_once(tmp_path, monkeypatch):
    """Of four threads the two that compute wait 40 % and 20 % of twenty seconds for a core."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def threads(**waits):
        write(tmp_path, **{f"{name}__schedstat": f"7 {round(seconds * 1e9)} 12\n" for name, seconds in waits.items()})

    threads(a=5, b=5, c=5)
    watch = CoreWatch(2, 4, tmp_path)
    threads(a=13, b=9, c=5.1, d=0.2)
    now[0] += 9
    assert watch.starved() is None, "not looked at for long enough"
    now[0] += 11
    line = watch.starved()
    assert "waited for one 30% of the time" in line and "OMP_NUM_THREADS=1, or give fewer --workers" in line
    threads(a=30)
    now[0] += 20
    assert watch.starved() is None, "it was said"
    quiet = CoreWatch(1, 1, tmp_path)
    threads(a=31)
    now[0] += 20
    assert quiet.starved() is None and CoreWatch(1, 1, tmp_path / "no Linux").starved() is None
    threads(a=40)
    now[0] += 20
    assert quiet.starved().endswith("; end what else runs here"), "a single thread and worker cannot do with fewer"


# GiB that the activations kept for the backward pass take in float32 and in 16 bits, counted layer by layer by someone else.
ACTIVATIONS = {"gapnet_pl": (5.8, 2.9), "m_cnn": (6.1, 3.0), "conv_mil": (7.1, 3.6)}


@pytest.mark.parametrize("recipe", ACTIVATIONS)
def test_the_memory_of_a_recipe_is_what_was_counted_elsewhere_and_what_comes_on_top(recipe):
    """On top: weights, optimiser, the gradients on their way."""
    options = RECIPES[recipe]
    for amp, counted in zip(gpu_memory.ARITHMETIC, ACTIVATIONS[recipe]):
        weights = {"m_cnn": 34_193_853 * 4 * 3}.get(recipe, 0)  # with gradients and momentum
        found = (gpu_memory.estimate(options, 13, amp) - weights) / 2**30
        assert counted <= found < 1.4 * counted, amp


def test_memory_is_that_of_tensors_alive_at_once():
    with gpu_memory.Peak() as peak:
        kept = torch.zeros(1000)
        for _ in range(5):
            torch.ones(500).mul_(2).view(50, 10)
        kept.add_(1)
    assert peak.bytes == pytest.approx(6000, abs=16)


def test_parts_and_checkpointing_take_less(capsys):
    small = ["--size", 1024, "--batch-size", 16]
    sizes = []
    for more in ([], ["--accumulate", 4], ["--checkpointing"]):
        out = kit("utils.tools.gpu_memory", "gapnet_pl", *small, *more).out.splitlines()
        assert out[1].split()[:3] == ["gapnet_pl", "16", "1024"] and len(out) == 2
        sizes.append(float(out[1].split()[3]))
    assert sizes[1] < 0.5 * sizes[0] and sizes[2] < 0.95 * sizes[0], "of this network most is in its first layers"
    refuse("utils.tools.gpu_memory", "chan", says="no recipe is called 'chan'")
    refuse("utils.tools.gpu_memory", "--batch-size", 0, says="--batch-size 0 is out of range")


def test_whether_batch_norm_learns_from_one_image_is_found_without_computing():
    for name, size, found in [("se_resnext50_32x4d", 32, False), ("se_resnext50_32x4d", 64, True), ("gapnet_pl", 16, True),
                              ("timm:mobilenetv3_small_100", 32, False), ("conv_mil", 32, True)]:  # fmt: skip
        network = models.build(name, 3, 4, size)
        before, random = {key: value.clone() for key, value in network.state_dict().items()}, torch.get_rng_state()
        assert models.learns_from_one(network, 4, size) == found, name
        assert torch.equal(torch.get_rng_state(), random)
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
        try:
            network.train()(torch.zeros(1, 4, size, size))
            assert found
        except ValueError:
            assert not found
    network = models.build("se_resnext50_32x4d", 3, 4, 32)
    assert models.learns_from_one(network, 4, 32, layers="last"), "its batch norm keeps what it has"

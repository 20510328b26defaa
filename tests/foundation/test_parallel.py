"""Cores and memory of the machine and of a container on it, and whether threads get their cores."""

import math
import time

import pytest

from utils import parallel
from utils.errors import InputError
from utils.parallel import CoreWatch, free_memory


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_cores_are_those_of_the_list_and_of_the_quota(tmp_path, monkeypatch):
    """A container with --cpus 1.5 sees all cores of the machine and gets the time of one and a half."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    real, period = parallel._core_quota, {"cpu__cpu.cfs_period_us": "100000\n"}
    cases = [
        ({}, math.inf, 64),
        ({"cpu.max": "max 100000\n"}, math.inf, 64),
        ({"cpu.max": "damaged"}, math.inf, 64),
        ({"cpu.max": "150000 100000\n"}, 1.5, 2),
        ({"cpu.max": "10000 100000"}, 0.1, 1),
        ({"cpu__cpu.cfs_quota_us": "400000\n"} | period, 4, 4),
        ({"cpu__cpu.cfs_quota_us": "-1\n"} | period, math.inf, 64),
    ]
    for number, (files, quota, cores) in enumerate(cases):
        found = real(write(tmp_path / str(number), **files))
        monkeypatch.setattr(parallel, "_core_quota", lambda found=found: found)
        assert found == pytest.approx(quota) and parallel.cores() == cores


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
    assert "waited 30% of the time" in line and "OMP_NUM_THREADS=1, or give fewer --workers" in line
    threads(a=30)
    now[0] += 20
    assert watch.starved() is None, "it was said"
    quiet = CoreWatch(1, 1, tmp_path)
    threads(a=31)
    now[0] += 20
    assert quiet.starved() is None and CoreWatch(1, 1, tmp_path / "no Linux").starved() is None
    threads(a=40)
    now[0] += 20
    assert quiet.starved().endswith("; end other programs"), "a single thread and worker cannot do with fewer"


def shell(log, *scripts):
    return [(["sh", "-c", script], log) for script in scripts]


def test_jobs_run_side_by_side_each_in_a_slot_of_its_own(tmp_path):
    """Commands of a job follow one another; two in one slot could not both make its folder."""
    alone = f"cd {tmp_path} && mkdir $SLOT && sleep 0.1 && rmdir $SLOT && echo $SLOT"
    jobs = [iter(shell(tmp_path / f"logs/{number}", alone, alone, "echo end")) for number in range(4)]
    assert sorted(parallel.side_by_side(jobs, [{"SLOT": "a"}, {"SLOT": "b"}])) == [0, 1, 2, 3]
    logs = [(tmp_path / f"logs/{number}").read_text().split() for number in range(4)]
    assert {name for log in logs for name in log[:2]} == {"a", "b"} and all(log[2] == "end" for log in logs)
    assert list(parallel.side_by_side([iter(())], [{}])) == [0], "nothing to do"


@pytest.mark.parametrize("how", ["a command fails", "the caller stops"])
def test_however_it_ends_no_command_goes_on_alone(tmp_path, how):
    """The others may save first."""
    log, ready = tmp_path / "log", tmp_path / "ready"
    saves = f"trap 'echo saved; exit 0' TERM; touch {ready}; sleep 60 & wait"
    wait = f"while [ ! -e {ready} ]; do sleep 0.02; done"
    end = f"{wait}; echo the reason; exit {3 if how == 'a command fails' else 0}"
    running = parallel.side_by_side([shell(log, saves), shell(tmp_path / "other", end)], [{}, {}])
    if how == "a command fails":
        with pytest.raises(InputError, match="failed: the reason .*other"):
            next(running)
    else:
        assert next(running) == 1
        running.close()
    assert log.read_text() == "saved\n"

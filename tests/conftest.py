"""A tiny simulated atlas, and the scripts called as a user calls them."""

import atexit
import contextlib
import importlib
import io
import multiprocessing.connection
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections import namedtuple
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the tests' exact comparisons are the CPU's
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from utils.cli import run_script  # noqa: E402
from utils.data import cache  # noqa: E402
from utils.notebook.available_data import open_data  # noqa: E402
from utils.opencv import cv2  # noqa: E402
from utils.runs import config  # noqa: E402
from utils.scoring import cross_fit  # noqa: E402
from utils.simulator import write  # noqa: E402
from utils.simulator.plan import Settings  # noqa: E402

QUICK = {  # room: files of `pytest -m quick tests`, about a minute; others start processes, or draw and train again and again
    "tests": ["rooms"],
    "scoring": ["metrics", "thresholds", "ensembling", "label_shift"],
    "models": ["models"],
    "data": ["tables", "images", "augment", "near_duplicates"],
    "engine": ["recipes", "losses"],
    "scripts": ["make_folds", "train", "predict"],
}
# Begin first, so that no process is left with a long file when the others are done.
LONGEST = ["paper", "measurement", "submit", "kernel", "notebooks", "resume", "pipeline", "unreadable", "loader"]


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: in a file of conftest.QUICK, and not slow")
    config.addinivalue_line("markers", "slow: not quick, though in a file of conftest.QUICK")


def pytest_ignore_collect(collection_path, config):
    """With `-m quick` other files are not even imported."""
    if config.option.markexpr == "quick" and collection_path.suffix == ".py" and not _is_quick(collection_path):
        return True


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem.removeprefix("test_"), len(places)))
    for item in items:
        if _is_quick(item.path) and not item.get_closest_marker("slow"):
            item.add_marker("quick")


def _is_quick(path):
    return path.stem.removeprefix("test_") in QUICK.get(path.parent.name, ())


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """A file stays with one process, so that its fixtures are made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


torch.set_num_threads(1)
tqdm.set_lock(threading.RLock())  # not one that a forked process, killed while it holds it, would leave locked
cross_fit.cores = lambda: 1  # on tables as small as the tests' threads only wait for one another
os.fsync = lambda _: None  # it waits for the disk, and no test cuts the power
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # by a shell's background, by nohup; processes of tests inherit it
        signal.signal(number, handler)
cache.DEFAULT_FOLDER = config.DEFAULTS["cache"] = tempfile.mkdtemp(prefix="packed-")  # not the user's
atexit.register(shutil.rmtree, cache.DEFAULT_FOLDER, ignore_errors=True)
Result = namedtuple("Result", "code out err")


def kit(script, *arguments):
    """Call a script's main with a command line, in this process: exit code, stdout, stderr."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = sys.argv
    sys.argv = [script, *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_script(importlib.import_module(script).main)
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    return Result(code, out.getvalue(), err.getvalue())


def start_forked(script, *arguments, before=lambda: None, **environment):
    """Start a script's main in a process forked from this one, which has imported torch already: -> (process, its Result once it
    has ended). script: its name, or the main itself. before: called in the new process."""
    out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115
    main = script if callable(script) else importlib.import_module(script).main

    def run():
        os.environ.update(environment)
        for number, file in enumerate((out, err), start=1):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        before()
        sys.argv = [str(script), *map(str, arguments)]
        run_script(main)

    def result():
        process.join()
        for file in (out, err):
            file.seek(0)
        return Result(process.exitcode, out.read(), err.read())

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process, result


def call_forked(script, *arguments, **options):
    """Call a script's main in a forked process: -> Result."""
    return start_forked(script, *arguments, **options)[1]()


def call_together(script, *arguments, ranks=2):
    """Call a script as torchrun does, in forked processes, the others killed when one fails: -> a Result of each."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    shared |= {"TORCHELASTIC_RUN_ID": "tests", "TORCHELASTIC_USE_AGENT_STORE": True}
    environments = [{k: str(v) for k, v in (shared | {"RANK": n, "LOCAL_RANK": n}).items()} for n in range(ranks)]
    started = [start_forked(script, *arguments, **environment) for environment in environments]
    waiting = {process.sentinel: process for process, _ in started}
    while waiting:
        for sentinel in multiprocessing.connection.wait(waiting):
            waiting.pop(sentinel).join()
        if any(process.exitcode for process, _ in started):
            for process, _ in started:
                process.kill()  # it would wait for the one that failed
    return [result() for _, result in started]


def succeed_together(script, *arguments, ranks=2):
    """The same, which must succeed: -> what all of them print."""
    results = call_together(script, *arguments, ranks=ranks)
    assert not any(code for code, _, _ in results), "".join(err for _, _, err in results)
    return "".join(out for _, out, _ in results)


def succeed(script, *arguments):
    result = kit(script, *arguments)
    assert result.code == 0, result.err
    return result


def refuse(script, *arguments, says):
    """The command must stop with exit code 2 and one sentence that holds every string of `says`."""
    result = kit(script, *arguments)
    assert result.code == 2, (result.code, result.out, result.err)
    message = result.err.strip()
    assert message.count("\n") == 0 and message.startswith("error: "), message
    for part in [says] if isinstance(says, str) else says:
        assert part in message, message
    return message


@pytest.fixture(scope="session")
def atlas(tmp_path_factory):
    """48 + 16 simulated images of 64², never written to by a test: use `copy_atlas` for that."""
    folder = tmp_path_factory.mktemp("atlas") / "demo"
    write.write_atlas(folder, Settings(48, 16, size=64, seed=3, power=0.5, duplicates=0.1))
    return folder


@pytest.fixture(scope="session")
def copies(tmp_path_factory):
    """An atlas with many near-duplicates and {Id: Id of the scene's first image}."""
    folder = tmp_path_factory.mktemp("copies") / "atlas"
    write.write_atlas(folder, Settings(40, 20, size=96, seed=1, duplicates=0.25))
    truth = pd.read_csv(folder / "truth.csv", dtype=str, keep_default_na=False)
    return open_data(folder, ""), {row.Id: row.Copies or row.Id for row in truth.itertuples()}


@pytest.fixture
def own_atlas(atlas, tmp_path):
    """A copy of the atlas that a test may damage."""
    return Path(shutil.copytree(atlas, tmp_path / "own"))


@pytest.fixture(scope="session")
def folds(atlas, tmp_path_factory):
    path = tmp_path_factory.mktemp("folds") / "folds.csv"
    succeed("make_folds", "--labels", atlas / "train.csv", "--images", atlas / "train", "--folds", 3, "-o", path)
    return path


def train_options(atlas, folds, runs, name="mini", fold=0, **more):
    """A command line that trains GapNet-PL on the tiny atlas in a second or two."""
    options = {
        "recipe": "gapnet_pl",
        "folds": folds,
        "images": atlas / "train",
        "runs": runs,
        "name": name,
        "fold": fold,
    }
    options |= {"size": 32, "fit": "resize", "normalise": "dataset", "augment": "d4", "epochs": 2, "batch-size": 16}
    options |= {
        "loss": "1:bce",
        "optimiser": "adam",
        "lr": 0.001,
        "workers": 0,
        "amp": "off",
        "score-threshold": "best",
    }
    options |= more
    return [word for key, value in options.items() for word in (f"--{key}", value)]


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """An executable for shell scripts that starts in no time (see tests/warm_python.py)."""
    from warm_python import warm_python

    with warm_python(tmp_path_factory.mktemp("python")) as path:
        yield path


def lay_out_kit(folder, python):
    """A folder in which a copy of run.sh works, with this Python for its environment, and links to the kit's files."""
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to(python)
    shutil.copy(ROOT / "requirements.txt", folder / ".venv/requirements.installed")
    for path in [*ROOT.glob("*.py"), ROOT / "requirements.txt", ROOT / "utils"]:
        (folder / path.name).symlink_to(path)
    shutil.copy(ROOT / "run.sh", folder)  # it works in the folder it lies in
    return folder


def stop_in_epoch(monkeypatch, number, command):
    """Train with a command line until Ctrl+C in the epoch of that number."""
    import train

    real, calls = train.train_epoch, []

    def stops(*arguments):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_epoch", stops)
        assert kit("train", *command).code == 130


@pytest.fixture(scope="session")
def run(atlas, folds, tmp_path_factory):
    """A run of two trained folds."""
    runs = tmp_path_factory.mktemp("runs")
    for fold in (0, 1):
        succeed("train", *train_options(atlas, folds, runs, fold=fold))
    return runs / "mini"


@pytest.fixture(scope="session")
def predictions(atlas, run, tmp_path_factory):
    path = tmp_path_factory.mktemp("predictions") / "test.csv"
    succeed("predict", run, "--images", atlas / "test", "-o", path, "--workers", 0)
    return path


@pytest.fixture(scope="session")
def thresholds(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("thresholds") / "thresholds.json"
    succeed("threshold", run, "--repeats", 1, "-o", path)
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """One small file of each kind that the scripts read, and a run (see tests/targets.py). Never written to: use `own_files`."""
    import targets

    folder = tmp_path_factory.mktemp("targets") / "base"
    targets.make(folder)
    return folder


@pytest.fixture
def own_files(files, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(files, tmp_path / "own"))


def write_images(
    folder, ids, channels=("red", "green", "blue", "yellow"), size=16, ending="png", dtype=np.uint8, seed=0
):
    """Files of noise: the test names what matters."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for id_ in ids:
        for channel in channels:
            pixels = rng.integers(0, np.iinfo(dtype).max, (size, size), dtype=dtype)
            assert cv2.imwrite(str(folder / f"{id_}_{channel}.{ending}"), pixels)


def write_labels(path, targets, column="Target"):
    pd.DataFrame({"Id": list(targets), column: list(targets.values())}).to_csv(path, index=False)
    return path


def submission_of(predictions, thresholds, atlas, out):
    """The command line of ensemble.py for the atlas's test set."""
    return [predictions, "--thresholds", thresholds, "--sample", atlas / "sample_submission.csv", "-o", out]


def random_table(seed, rows, classes, levels=None, absent=True):
    """Random labels and probabilities with rare and absent classes, and ties where `levels` is small."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((rows, classes)) < rng.choice([0.5, 0.1, 0.02], classes)).astype(np.uint8)
    if absent:
        truth[:, 0] = 0
    probabilities = np.clip(rng.random((rows, classes)) * 0.7 + 0.3 * truth, 0, 1)
    return truth, np.round(probabilities * levels) / levels if levels else probabilities

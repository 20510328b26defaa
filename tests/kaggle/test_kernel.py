"""The Kaggle kernel, as far as it can be proved away from Kaggle: the notebook runs while only its working folder can be
written, without a network, and in an environment that lacks what Kaggle's image lacks. Then its steps one by one."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from conftest import ROOT, succeed
from notebook_runner import run_cells
from safetensors.torch import load_file

from utils.errors import InputError
from utils.kaggle import COMPETITION, attached, imitation, kernel, upload, wheels
from utils.runs.run_folder import WEIGHTS
from utils.simulator.plan import Settings

TINY = "--size 32 --fit resize --normalise dataset --augment d4 --epochs 2 --batch-size 8 --optimiser adam --lr 0.001"
TINY = f"{TINY} --workers 0 --amp off --weights none"


def repack(name, folder):
    """Make a wheel of an installed pure-Python package, as published: no index is needed."""
    found, tag = distribution(name), "py3-none-any"
    path = folder / f"{re.sub('[-.]+', '_', found.metadata['Name'])}-{found.version}-{tag}.whl"
    info = next(str(file.parent) for file in found.files if file.name == "METADATA")
    left_out = {"..", "__pycache__", "RECORD", "WHEEL"}
    kept = [file for file in found.files if left_out.isdisjoint(file.parts)]
    with zipfile.ZipFile(path, "w") as archive:
        for file in kept:
            archive.write(file.locate(), str(file))
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        names = [*kept, f"{info}/WHEEL", f"{info}/RECORD"]
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in names))


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """A folder of wheels in place of a package index, and pip set up to know no other."""
    folder = tmp_path_factory.mktemp("index")
    for name in wheels.LACKED:
        repack(name, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder))
        yield folder


GUARD = """
import os, socket
if os.environ.get("REFUSE_CONNECTIONS"):
    def refuse(self, address, *_):
        raise OSError(101, "Network is unreachable")
    real = socket.socket.connect
    socket.socket.connect = lambda self, address: real(self, address) if self.family == socket.AF_UNIX else refuse(self, address)
    socket.socket.connect_ex = refuse
"""


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """A Python that sees all packages of this one except those that Kaggle's image lacks."""
    folder = tmp_path_factory.mktemp("image")
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    hidden = ("pretrainedmodels", "munch", "iterative_stratification", "iterstrat", "__pycache__")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(hidden):
            (site / path.name).symlink_to(path)
    (site / "sitecustomize.py").write_text(GUARD)
    return folder / "bin/python"


UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]


def layout(folder, atlas, dataset, earlier=None):
    """Kaggle's folders: the competition, the data set, and the output of an earlier kernel."""
    (folder / "input/competitions").mkdir(parents=True)
    (folder / "input/competitions" / COMPETITION).symlink_to(atlas)
    (folder / "input/datasets/you").mkdir(parents=True)
    (folder / "input/datasets/you/hpa-kit").symlink_to(dataset)
    if earlier:
        shutil.copytree(earlier, folder / "input/notebooks/you/hpa-kit-kernel")
    (folder / "working").mkdir()
    return folder


@pytest.fixture(scope="session")
def confined():
    """Whether this user may have namespaces of its own. Some CI machines forbid it."""
    code = "import sys, sandbox; sandbox.confine(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    try:
        done = subprocess.run([*UNSHARE, sys.executable, "-c", code, "/tmp"], env=environment, capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0


PROBE = """
import socket
def refused(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__, error.errno
    return "allowed"
closed = [] if "REFUSE_CONNECTIONS" in os.environ else (kaggle / "input", kaggle, "/etc", "/var/tmp", root)
print("PROBE", [refused(lambda: socket.create_connection(place, 2)) for place in (("1.1.1.1", 53), ("127.0.0.1", 9))],
      [refused(lambda: Path(folder, "written").write_text("")) for folder in closed])
"""


def notebook_with(kaggle, settings):
    """-> the notebook with other settings in its first cell."""
    upload.write_notebook(kaggle / "given.ipynb")
    notebook = nbformat.read(kaggle / "given.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    return notebook


def run_kernel(kaggle, image, confined, **settings):
    """Run the notebook in a layout: its text, whether it succeeded, and its number of figures."""
    notebook = notebook_with(kaggle, settings)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    given, out, working = kaggle / "given.ipynb", kaggle / "working/out.ipynb", kaggle / "working"
    nbformat.write(notebook, given)
    before = listing(kaggle)
    words = [image, ROOT / "tests/sandbox.py", given, out, working]
    left_out = ("PIP_", "PYTHON", "KAGGLE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    environment |= {"KAGGLE_ROOT": str(kaggle), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PIP_NO_INDEX": "1"}
    if confined:
        words = [*UNSHARE, *words, "confined"]
    else:  # the input could be written to: that nothing is, except Python's own bytecode, is compared below
        environment |= {"REFUSE_CONNECTIONS": "1", "PYTHONPYCACHEPREFIX": str(kaggle / "temp/bytecode")}
    done = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, cwd=working)
    assert done.returncode in (0, 3), done.stderr
    ran = nbformat.read(out, as_version=4)
    out.unlink()
    shown = [output for cell in ran.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in shown)
    if done.returncode == 0:
        probe = next(line for line in text.splitlines() if line.startswith("PROBE"))
        assert probe.count("('OSError', 101)") == 2, probe  # ENETUNREACH
        assert probe.count("('OSError', 30)") == (5 if confined else 0), probe  # EROFS
    if not confined:
        shutil.rmtree(kaggle / "temp", ignore_errors=True)
    after = {path: seen for path, seen in listing(kaggle).items() if path in before or not path.startswith("working")}
    assert after == before
    figures = sum("image/jpeg" in output.get("data", {}) for output in shown)
    return text, done.returncode == 0, figures


def run_here(kaggle, monkeypatch, **settings):
    """The same in this process, which nothing confines."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("KAGGLE_ROOT", str(kaggle))
    monkeypatch.setattr(tempfile, "tempdir", None)
    sources = [cell.source for cell in notebook_with(kaggle, settings).cells if cell.cell_type == "code"]
    text, figures, error = run_cells(sources, kaggle / "working")
    return text, error is None, figures


def listing(folder):
    """{path: (bytes, time of change)} of all files, the folders that are links too."""
    found = [Path(top, name) for top, _, names in os.walk(folder, followlinks=True) for name in names]
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="session")
def made(index, run, tmp_path_factory):
    """What the command makes, with a run of two trained folds and a file of weights: its folder."""
    folder = tmp_path_factory.mktemp("made")
    torch.save({}, folder / "net-1234.pth")
    words = [run, "--user", "you", "--weights", folder / "net-1234.pth", "-o", folder / "upload"]
    out = succeed("utils.kaggle.upload", *words).out
    assert "kaggle datasets create -p" in out and WEIGHTS in out and "munch" in out
    return folder / "upload"


@pytest.fixture(scope="session")
def without_runs(made, tmp_path_factory):
    """The same data set as if no run had been named."""
    folder = shutil.copytree(made / "dataset", tmp_path_factory.mktemp("plain") / "dataset")
    shutil.rmtree(folder / "runs")
    (folder / "upload.json").write_text(json.dumps({"files": attached.sizes_below(folder)}))
    return folder


def weights_of(path):
    return load_file(path) if path.name == WEIGHTS else torch.load(path, weights_only=True)["model"]


def test_a_second_kernel_goes_on_with_the_first_ones_output_to_the_bit(tmp_path, atlas, without_runs, image, confined):
    settings = {"RECIPE": "gapnet_pl", "FOLD": 1, "NAME": "tiny", "SESSION": "9h", "RESERVE": "1h"}
    first = layout(tmp_path / "first", atlas, without_runs)
    text, succeeded, figures = run_kernel(first, image, confined, **settings, OPTIONS=f"{TINY} --time-limit 0.01s")
    assert succeeded and figures == 0, text
    assert "installed from the wheels: pretrainedmodels 0.7.4, munch" in text
    limit = int(re.search(r"--time-limit (\d+)s", text)[1])
    assert 7.8 * 3600 < limit < 7.95 * 3600  # nine hours less one, less the three minutes before the first cell
    assert "stopped at the time limit after step 1 (batch 1 of" in text
    assert "no epoch of tiny is finished yet" in text and "attach this kernel's output" in text
    assert {path.name for path in (first / "working").iterdir()} == {"folds.csv", "folds_duplicates.csv", "runs"}

    second = layout(tmp_path / "second", atlas, without_runs, earlier=first / "working")
    text, succeeded, figures = run_kernel(second, image, confined, **settings, OPTIONS=TINY)
    assert succeeded and figures == 2, text
    assert "tiny/fold1 copied from" in text and "folds.csv copied" in text and "going on from" in text
    assert "attach this kernel's output" not in text

    options = ["--recipe", "gapnet_pl", "--fold", 1, "--name", "whole", "--folds", first / "working/folds.csv"]
    succeed("train", *options, *TINY.split(), "--images", atlas / "train", "--runs", tmp_path)
    for name in (WEIGHTS, "last.pt"):
        whole, parts = (
            weights_of(tmp_path / "whole/fold1" / name),
            weights_of(second / "working/runs/tiny/fold1" / name),
        )
        assert all(torch.equal(whole[key], parts[key]) for key in whole), name
    check_submission(second / "working/submission.csv", atlas)
    config = json.loads((second / "working/runs/tiny/fold1/config.json").read_text())
    assert config["commit"] == (without_runs / "kit/commit.txt").read_text().strip()


def test_a_kernel_only_predicts_from_uploaded_checkpoints(tmp_path, atlas, made, run, monkeypatch):
    kaggle = layout(tmp_path / "kaggle", atlas, made / "dataset")
    settings = {"MODE": "predict", "NAME": "mini", "OPTIONS": "--device cpu"}
    text, succeeded, figures = run_here(kaggle, monkeypatch, **settings)
    assert succeeded and figures == 2, text
    assert "mini/fold0 copied" in text and "mini/fold1 copied" in text and "train.py" not in text
    check_submission(kaggle / "working/submission.csv", atlas)
    own = tmp_path / "own.csv"
    succeed("predict", run, "--images", atlas / "test", "--ids", atlas / "sample_submission.csv", "-o", own)
    tables = [pd.read_csv(path, index_col="Id") for path in (own, kaggle / "working/runs/mini/test.csv")]
    pd.testing.assert_frame_equal(*tables, rtol=1e-6)


def check_submission(path, atlas):
    files = (path, atlas / "sample_submission.csv")
    table, sample = (pd.read_csv(file, dtype=str, keep_default_na=False) for file in files)
    assert table["Id"].tolist() == sample["Id"].tolist()
    assert all(0 <= int(number) < 28 for row in table["Predicted"] for number in row.split())


def test_a_kernel_without_the_competitions_files_reports_it_in_one_sentence(tmp_path, atlas, without_runs, monkeypatch):
    kaggle = layout(tmp_path / "kaggle", atlas, without_runs)
    (kaggle / "input/competitions" / COMPETITION).unlink()
    text, succeeded, _ = run_here(kaggle, monkeypatch)
    files = "the files of the competition (train.csv, sample_submission.csv, train/, test/)"
    fix = f"attach the competition {COMPETITION} (Add Input) and accept its rules"
    assert not succeeded and text.strip() == f"error: {files} are not below {kaggle / 'input'}; {fix}"


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A session with an hour left, and the commands that are run in it."""
    commands = []
    monkeypatch.setattr(kernel, "run", lambda *words: commands.append([str(word) for word in words]))
    working = tmp_path / "working"
    working.mkdir()
    return kernel.Session(tmp_path / "c", tmp_path / "d", (), working, tmp_path / "s", time.time() + 3600), commands


def test_training_gets_the_time_that_is_left_and_what_the_user_adds_wins(session):
    found, commands = session
    kernel.train(found, "chen", 3, "mine", '--epochs 5 --loss "1:bce 3:soft_f1"', gpus=1)
    (words,) = commands
    assert words[0] == "train.py" and 3590 <= int(words[words.index("--time-limit") + 1][:-1]) <= 3600
    assert words[-4:] == ["--epochs", "5", "--loss", "1:bce 3:soft_f1"]
    assert words[words.index("--runs") + 1] == str(found.working / "runs")
    kernel.train(found, "chen", 0, "mine", gpus=2)
    assert commands[1][:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]


def test_training_is_not_begun_with_too_little_time_or_for_a_finished_fold(session, run, capsys):
    found, commands = session
    kernel.train(replace(found, ends=time.time() + kernel.LEAST - 1), "chen", 0, "mine")
    assert not commands and "too little: this kernel only predicts" in capsys.readouterr().out
    shutil.copytree(run, found.runs / "mini")
    kernel.train(found, "gapnet_pl", 0, "mini")
    assert not commands and "trained already" in capsys.readouterr().out


def test_at_the_end_what_is_no_output_is_removed_after_the_last_use_of_its_packages(session, run, monkeypatch, capsys):
    from utils.kaggle import earlier_runs

    found, _ = session
    shutil.copytree(run, found.runs / "mini")
    last = found.runs / "mini/fold0/last.pt"
    torch.save(torch.load(last, weights_only=True) | {"finished": False}, last)
    found.scratch.mkdir()
    (found.working / "submission.csv").write_text("")
    real = earlier_runs.progress
    progress = lambda folder: real(folder) if found.scratch.exists() else pytest.fail("too late")  # noqa: E731
    monkeypatch.setattr(earlier_runs, "progress", progress)
    monkeypatch.chdir(found.working)
    kernel.close(found, ["mini"])
    out = capsys.readouterr().out
    assert not found.scratch.exists() and "submission.csv" in out and WEIGHTS in out
    assert "mini/fold0 is not finished (epoch 2, step " in out and "attach this kernel's output" in out
    assert "mini/fold1 is not" not in out


def test_one_run_is_submitted_by_its_thresholds_and_several_are_combined(session, run, capsys):
    found, commands = session
    for name in ("a", "b"):
        shutil.copytree(run, found.runs / name)
    labels = ["--labels", str(found.working / "labels.csv")]
    assert kernel.submit(found, ["a"], "--device cpu --lr 1", gpus=2) == found.working / "submission.csv"
    scripts = [next(word for word in words if word.endswith(".py")) for words in commands]
    assert scripts == ["predict.py", "threshold.py", "ensemble.py"] and commands[1][2:] == labels
    assert commands[0][:2] == ["-m", "torch.distributed.run"] and commands[0][-2:] == ["--device", "cpu"]
    commands.clear()
    kernel.submit(found, ["a", "b"])
    assert [words[0] for words in commands] == ["predict.py", "predict.py", "ensemble.py"]
    assert commands[2][3:8] == ["--oof", str(found.runs / "a"), str(found.runs / "b"), *labels]
    commands.clear()
    assert kernel.submit(found, ["a", "c"]) is None and not commands
    assert "no epoch of c is finished yet" in capsys.readouterr().out


SETTINGS = {"MODE": ("Train", "chen", ""), "2 runs": ("train", "chen gapnet_pl", ""), "NAME": ("predict", " ", "")}
SETTINGS |= {"folder's name": ("train", "../chen", ""), "quotation": ("predict", "chen", '--loss "1:bce')}


@pytest.mark.parametrize("text", SETTINGS)
def test_settings_that_would_only_show_hours_later_are_refused(text):
    with pytest.raises(InputError, match=text):
        kernel.check_settings(*SETTINGS[text])
    kernel.check_settings("predict", "chen gapnet_pl", '--loss "1:bce 3:focal"')


@pytest.mark.parametrize("reserve", ["9h", "10h"])
def test_a_reserve_of_the_whole_session_is_refused(tmp_path, reserve):
    with pytest.raises(InputError, match="RESERVE .*leaves nothing of SESSION"):
        kernel.open_session(tmp_path, 0, "9h", reserve)


DEVICES = {"": "auto", "--device cpu --epochs 3": "cpu", "--lr 1 --device=cuda:1": "cuda:1"}


@pytest.mark.parametrize("options", DEVICES)
def test_the_device_is_read_from_the_options(options):
    assert kernel.device_of(options) == DEVICES[options]


def test_an_imitation_is_found_as_kaggles_folders_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(tempfile, "tempdir", None)
    kaggle = tmp_path / "kaggle"
    imitation.imitate(kaggle, Settings(4, 2, size=32))
    files = [path for path in (kaggle / "input").rglob("*") if path.is_file()]
    assert len(files) > 4 * 6 + 50 and {path.stat().st_mode & 0o777 for path in files} == {0o444}
    weights = kaggle / "input/datasets/you/hpa-kit/weights"
    weights.mkdir()
    (weights / "net.pth").write_text("")
    found = kernel.open_session(kaggle, 10_000.0, "2h", "30min")
    assert found.competition.name == COMPETITION and found.dataset.name == "hpa-kit" and found.outputs == ()
    assert Path.cwd() == found.scratch / "kit" and Path("input/weights/net.pth").is_file()
    assert os.access("train.py", os.W_OK) and (found.scratch / "kit/utils/kaggle/kernel.py").is_file()
    assert found.ends == 10_000 + 90 * 60 - kernel.BEFORE
    assert str(found.competition) in capsys.readouterr().out


def test_scratch_is_outside_the_output_if_that_can_be_written(tmp_path):
    (tmp_path / "working").mkdir()
    assert kernel.pick_scratch(tmp_path) == tmp_path / "temp" / kernel.SCRATCH
    shutil.rmtree(tmp_path / "temp")
    (tmp_path / "temp").write_text("no folder can be here")
    assert kernel.pick_scratch(tmp_path).parent == tmp_path / "working"


def test_class_names_of_a_row_are_at_most_three_lines():
    classes = list("abcdef")
    assert kernel.names_of("", classes) == "" and kernel.names_of("2 0", classes) == "c\na"
    assert kernel.names_of("0 1 2 3 4", classes) == "a\nb\nand 3 more"

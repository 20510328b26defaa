"""The Kaggle kernel, as far as it can be proved away from Kaggle: the notebook runs where nothing but its working folder can be
written, where there is no network, and in an environment that lacks what Kaggle's image lacks."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from conftest import ROOT, succeed

from utils.engine import checkpoint
from utils.kaggle import COMPETITION, manifest, upload, wheels

TINY = ("--size 32 --fit resize --normalise dataset --augment d4 --epochs 2 --batch-size 8 --optimiser adam --lr 0.001 --workers 0 "
        "--amp off --weights none")  # fmt: skip

# ---- the image, the wheels, the layout


def repack(name, folder):
    """Make a wheel of an installed pure-Python package, as published: no index is needed."""
    found = distribution(name)
    tag = "py3-none-any"
    path = folder / f"{re.sub('[-.]+', '_', found.metadata['Name'])}-{found.version}-{tag}.whl"
    info = next(str(file.parent) for file in found.files if file.name == "METADATA")
    kept = [
        file
        for file in found.files
        if ".." not in file.parts and "__pycache__" not in file.parts and file.name not in ("RECORD", "WHEEL")
    ]
    with zipfile.ZipFile(path, "w") as archive:
        for file in kept:
            archive.write(file.locate(), str(file))
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(
            f"{info}/RECORD", "".join(f"{file},,\n" for file in [*kept, f"{info}/WHEEL", f"{info}/RECORD"])
        )


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
    """A Python that sees all packages of this one but those that Kaggle's image lacks."""
    folder = tmp_path_factory.mktemp("image")
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    hidden = ("pretrainedmodels", "munch", "iterative_stratification", "iterstrat", "__pycache__")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(hidden):
            (site / path.name).symlink_to(path)
    (site / "sitecustomize.py").write_text(GUARD)
    return folder / "bin/python"


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
    """Can this user have namespaces of its own? Some CI machines forbid it."""
    words = ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, ROOT / "tests/sandbox.py"]
    code = "import sys, sandbox; sandbox.confine(sys.argv[1])"
    try:
        done = subprocess.run(
            [*words[:6], "-c", code, "/tmp"], env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}, capture_output=True
        )
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
links = [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
up = [name for name in links if int(Path(f"/sys/class/net/{name}/flags").read_text(), 16) & 1] if Path("/sys/class/net").exists() else links
print("PROBE", [refused(lambda: socket.create_connection(place, 2)) for place in (("1.1.1.1", 53), ("127.0.0.1", 9))],
      [refused(lambda: Path(folder, "written").write_text("")) for folder in
       (kaggle / "input", kaggle, "/etc", "/var/tmp", root) if "REFUSE_CONNECTIONS" not in os.environ])
"""


def run_kernel(kaggle, image, confined, capsys, **settings):
    """Run the notebook in a layout with other settings in its first cell: its text, whether it succeeded, and the probe's line."""
    upload.write_notebook(kaggle / "given.ipynb")
    notebook = nbformat.read(kaggle / "given.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    given, out, working = kaggle / "given.ipynb", kaggle / "working/out.ipynb", kaggle / "working"
    nbformat.write(notebook, given)
    before = listing(kaggle)
    words = [image, ROOT / "tests/sandbox.py", given, out, working, *["confined"] * confined]
    own = ["unshare", "--user", "--map-root-user", "--net", "--mount"] if confined else []
    how = (
        "namespaces: no network, all read-only but the working folder"
        if confined
        else "no namespaces here: connections refused"
    )
    with capsys.disabled():
        print(f"\n[{how}]", end=" ")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "KAGGLE"))
    }
    environment |= {"KAGGLE_ROOT": str(kaggle), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PIP_NO_INDEX": "1"}
    if (
        not confined
    ):  # there the input could be written to: that nothing is, but Python's own bytecode, is compared below
        environment |= {"REFUSE_CONNECTIONS": "1", "PYTHONPYCACHEPREFIX": str(kaggle / "temp/bytecode")}
    done = subprocess.run([*own, *map(str, words)], env=environment, capture_output=True, text=True, cwd=working)
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
    assert {
        path: seen for path, seen in listing(kaggle).items() if path in before or not path.startswith("working")
    } == before
    pictures = sum("image/jpeg" in output.get("data", {}) for output in shown)
    return text, done.returncode == 0, pictures


def listing(folder):
    """{path: (bytes, time of change)} of all files, the folders that are links too."""
    found = [Path(top, name) for top, _, names in os.walk(folder, followlinks=True) for name in names]
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="session")
def made(index, run, tmp_path_factory):
    """What the command makes, with a run of two trained folds and a file of weights: its folder."""
    folder = tmp_path_factory.mktemp("made")
    torch.save({}, folder / "net-1234.pth")
    out = succeed(
        "utils.kaggle.upload", run, "--user", "you", "--weights", folder / "net-1234.pth", "-o", folder / "upload"
    ).out
    assert "kaggle datasets create -p" in out and "best.safetensors" in out and "munch" in out
    return folder / "upload"


@pytest.fixture(scope="session")
def without_runs(made, tmp_path_factory):
    """The same data set as if no run had been named."""
    folder = shutil.copytree(made / "dataset", tmp_path_factory.mktemp("plain") / "dataset")
    shutil.rmtree(folder / "runs")
    (folder / "upload.json").write_text(json.dumps({"files": manifest.sizes_below(folder)}))
    return folder


# ---- the notebook, from end to end


def weights_of(path):
    return checkpoint.load(path)["model"]


def test_a_second_kernel_goes_on_with_the_first_ones_output_to_the_bit(
    tmp_path, atlas, without_runs, image, confined, capsys
):
    settings = {"RECIPE": "gapnet_pl", "FOLD": 1, "NAME": "tiny", "SESSION": "9h", "RESERVE": "1h"}
    first = layout(tmp_path / "first", atlas, without_runs)
    text, succeeded, pictures = run_kernel(
        first, image, confined, capsys, **settings, OPTIONS=f"{TINY} --time-limit 0.01s"
    )
    assert succeeded and pictures == 0, text
    assert "3 packages that the image lacks installed" in text and "pretrainedmodels 0.7.4" in text
    limit = int(re.search(r"--time-limit (\d+)s", text)[1])
    assert 7.8 * 3600 < limit < 7.95 * 3600  # nine hours less one, less the three minutes before the first cell
    assert "stopped at the time limit after step 1 (batch 1 of" in text
    assert "no epoch of tiny is finished yet" in text and "attach this kernel's output" in text
    assert {path.name for path in (first / "working").iterdir()} == {"folds.csv", "folds_duplicates.csv", "runs"}

    second = layout(tmp_path / "second", atlas, without_runs, earlier=first / "working")
    text, succeeded, pictures = run_kernel(second, image, confined, capsys, **settings, OPTIONS=TINY)
    assert succeeded and pictures == 2, text
    assert "tiny/fold1 taken over from" in text and "folds.csv taken over" in text and "going on from" in text
    assert "attach this kernel's output" not in text

    options = [
        "--recipe",
        "gapnet_pl",
        "--fold",
        1,
        "--name",
        "whole",
        "--folds",
        first / "working/folds.csv",
        *TINY.split(),
    ]
    succeed("train", *options, "--images", atlas / "train", "--runs", tmp_path)
    for name in ("best.safetensors", "last.pt"):
        whole, parts = (
            weights_of(tmp_path / "whole/fold1" / name),
            weights_of(second / "working/runs/tiny/fold1" / name),
        )
        assert all(torch.equal(whole[key], parts[key]) for key in whole), name
    check_submission(second / "working/submission.csv", atlas)
    config = json.loads((second / "working/runs/tiny/fold1/config.json").read_text())
    assert config["commit"] == (without_runs / "kit/commit.txt").read_text().strip()


def test_a_kernel_only_predicts_from_uploaded_checkpoints(tmp_path, atlas, made, image, confined, capsys, run):
    kaggle = layout(tmp_path / "kaggle", atlas, made / "dataset")
    text, succeeded, pictures = run_kernel(
        kaggle, image, confined, capsys, MODE="predict", NAME="mini", OPTIONS="--device cpu"
    )
    assert succeeded and pictures == 2, text
    assert "mini/fold0 taken over" in text and "mini/fold1 taken over" in text and "train.py" not in text
    check_submission(kaggle / "working/submission.csv", atlas)
    succeed(
        "predict", run, "--images", atlas / "test", "--ids", atlas / "sample_submission.csv", "-o", tmp_path / "own.csv"
    )
    own, theirs = (
        pd.read_csv(path, index_col="Id") for path in (tmp_path / "own.csv", kaggle / "working/runs/mini/test.csv")
    )
    pd.testing.assert_frame_equal(own, theirs, rtol=1e-6)


def check_submission(path, atlas):
    table, sample = (
        pd.read_csv(file, dtype=str, keep_default_na=False) for file in (path, atlas / "sample_submission.csv")
    )
    assert table["Id"].tolist() == sample["Id"].tolist()
    assert all(0 <= int(number) < 28 for row in table["Predicted"] for number in row.split())


def test_a_kernel_without_the_competitions_files_says_so_in_one_sentence(
    tmp_path, atlas, without_runs, image, confined, capsys
):
    kaggle = layout(tmp_path / "kaggle", atlas, without_runs)
    (kaggle / "input/competitions" / COMPETITION).unlink()
    text, succeeded, _ = run_kernel(kaggle, image, confined, capsys)
    assert not succeeded and "Traceback" not in text
    said = [line for line in text.splitlines() if line.strip()]
    assert said == [f"error: the files of the competition (train.csv, sample_submission.csv, train/, test/) are not below "
                    f"{kaggle / 'input'}; attach the competition {COMPETITION} (Add Input) and accept its rules"]  # fmt: skip

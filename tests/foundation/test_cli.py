"""How a script ends, whatever it prints to; ranges of options and spans of time."""

import io
import os
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT, train_options

from utils.cli import run_script
from utils.errors import InputError

NAMES = ["Kern – α", "Zytoplasma²", "→ Νουκλεόλοι", "細胞", "\U0001f52c"]


@pytest.fixture(scope="module")
def greek(atlas, tmp_path_factory):
    """Labels of five classes, and their names."""
    folder = tmp_path_factory.mktemp("greek")
    pd.DataFrame({"class": range(5), "name": NAMES}).to_csv(folder / "classes.csv", index=False)
    ids = pd.read_csv(atlas / "train.csv", dtype=str)["Id"]
    pd.DataFrame({"Id": ids, "Target": [str(row % 5) for row in range(len(ids))]}).to_csv(folder / "l.csv", index=False)
    return folder


def call(words, changes="", **settings):
    """A script as a process of its own. changes: of a shell, to its streams."""
    settings = os.environ | {"OMP_NUM_THREADS": "1"} | settings
    command = ["sh", "-c", f'exec "$@" {changes}', "sh", sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, env=settings)


def make_folds(greek, out):
    return ["make_folds.py", "--labels", greek / "l.csv", "--folds", 3, "--classes", greek / "classes.csv", "-o", out]


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1:strict"},
    ],
)
def test_an_encoding_without_a_letter_loses_no_report(greek, tmp_path, settings):
    done = call(make_folds(greek, tmp_path / "f.csv"), **settings)
    assert done.returncode == 0 and rb"\u03bf" in done.stdout, "a Greek letter, escaped"
    done = call(["make_folds.py", "--labels", tmp_path / "nowhere –"], **settings)
    assert done.returncode == 2 and b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_text_can_be_printed(monkeypatch, encoding):
    """Also the name of a file that is no UTF-8, in UTF-8."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)

    def main():
        print(*NAMES, "\udcff")
        raise InputError("–".join(NAMES))

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == 2
    for stream in streams.values():
        stream.flush()
        assert "Kern" in stream.buffer.getvalue().decode(encoding)


def test_scripts_work_with_closed_streams(greek, atlas, tmp_path):
    """As those that a daemon starts. (The shell's own copies of what it was given stay open.)"""
    closed, folds, runs = "<&- >&- 2>&-", tmp_path / "f.csv", tmp_path / "runs"
    assert call(make_folds(greek, folds), ">&-").returncode == 0
    training = train_options(atlas, folds, runs, epochs=1, workers=1, classes=greek / "classes.csv")
    assert call(["train.py", *training], closed).returncode == 0
    written = {path.name for path in (runs / "mini/fold0").iterdir()}
    assert {"last.pt", "best.safetensors", "oof.csv", "log.csv"} <= written
    predict = ["predict.py", runs / "mini", "--images"]
    assert call([*predict, atlas / "test", "-o", tmp_path / "p.csv"], closed).returncode == 0
    assert (tmp_path / "p.csv").stat().st_size
    assert call([*predict, atlas / "nowhere", "-o", tmp_path / "q.csv"], closed).returncode == 2


def test_a_stream_that_cannot_be_written_to_is_passed_over(greek, tmp_path):
    assert call(make_folds(greek, tmp_path / "f.csv"), "1</dev/null").returncode == 0
    assert (tmp_path / "f.csv").stat().st_size


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    main = "lambda: open(sys.argv[1], 'w') and os.write(1, b'stray')"
    program = f"import os, sys\nfrom utils.cli import run_script\nrun_script({main})"
    assert call(["-c", program, tmp_path / "file"], ">&-").returncode == 0
    assert (tmp_path / "file").read_bytes() == b""

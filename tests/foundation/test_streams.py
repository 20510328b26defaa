"""What is printed never ends a script: encodings that lack a letter, streams that are closed."""

import io
import os
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT, submission_of, train_options

from utils.cli import run_script
from utils.errors import InputError

NAMES = ["Kern – α", "Zytoplasma²", "→ Νουκλεόλοι", "細胞", "\U0001f52c"]
ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii by the locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "latin-1": {"PYTHONIOENCODING": "latin-1:strict"},
}


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


def commands(greek, atlas, out):
    """All that leads to a submission: lists of words, each beginning with its script."""
    classes = ["--classes", greek / "classes.csv"]
    runs, folds = out / "runs", out / "folds.csv"
    training = train_options(atlas, folds, runs, epochs=1, workers=1, classes=greek / "classes.csv")
    yield [
        "make_folds.py",
        "--labels",
        greek / "l.csv",
        "--folds",
        3,
        "--images",
        atlas / "train",
        *classes,
        "-o",
        folds,
    ]
    yield ["train.py", *training]
    yield ["predict.py", runs / "mini", "--images", atlas / "test", "-o", out / "p.csv"]
    yield ["threshold.py", runs / "mini", "--method", "per_class", "-o", out / "t.json"]
    yield ["ensemble.py", *submission_of(out / "p.csv", out / "t.json", atlas, out / "s.csv")]
    yield ["train.py", *training]  # says that it is trained already
    yield ["predict.py", runs / "mini", "--images", atlas / "nowhere –", "-o", out / "p.csv"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_without_a_letter_loses_no_report(greek, atlas, tmp_path, encoding):
    printed = b""
    for words in list(commands(greek, atlas, tmp_path))[: None if encoding == "ascii" else 1]:
        done = call(words, **ENCODINGS[encoding])
        assert done.returncode == (2 if words[2:4] == ["--images", atlas / "nowhere –"] else 0), done.stderr
        printed += done.stdout
    assert rb"\u03bf" in printed and b"Traceback" not in done.stderr, "a Greek letter, escaped"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_no_text_is_too_odd_to_be_printed(monkeypatch, encoding):
    """Nor a name of a file that is no UTF-8, in UTF-8."""
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


@pytest.mark.parametrize("changes", [">&-", "<&- >&- 2>&-"])
def test_scripts_do_their_work_with_closed_streams(greek, atlas, tmp_path, changes):
    """As those that a daemon starts. (The shell's own copies of what it was given stay open.)"""
    for words in list(commands(greek, atlas, tmp_path))[: 1 if changes == ">&-" else None]:
        done = call(words, changes)
        assert done.returncode == (2 if words[2:4] == ["--images", atlas / "nowhere –"] else 0), done.stderr
    if changes == ">&-":
        return
    assert (tmp_path / "s.csv").read_text().startswith("Id,Predicted\n")
    told = {path.name for path in (tmp_path / "runs/mini/fold0").iterdir()}
    assert {"last.pt", "best.safetensors", "oof.csv", "log.csv"} <= told


@pytest.mark.parametrize("script", ["train", "ensemble"])
def test_bad_input_is_code_2_where_nobody_hears_of_it(tmp_path, script):
    words = {"train": ["--fold", "0", "--folds", "no.csv"], "ensemble": ["no.csv", "--thresholds", "0.5"]}[script]
    assert call([f"{script}.py", *words], "2>&-").returncode == 2


def test_a_stream_that_cannot_be_written_to_is_passed_over(greek, tmp_path):
    words = ["make_folds.py", "--labels", greek / "l.csv", "--classes", greek / "classes.csv", "-o", tmp_path / "f.csv"]
    assert call(words, "1</dev/null").returncode == 0 and (tmp_path / "f.csv").stat().st_size


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    program = "import os, sys\nfrom utils.cli import run_script\nrun_script(lambda: open(sys.argv[1], 'w') and os.write(1, b'stray'))"
    assert call(["-c", program, tmp_path / "file"], ">&-").returncode == 0
    assert (tmp_path / "file").read_bytes() == b""

"""How a script ends, whatever it prints to; ranges of options and spans of time."""

import io
import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT, call_forked, train_options

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


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
REFUSED = f"""
import sys
from utils.cli import run_script
from utils.errors import InputError

def main():
    print(*{ascii(NAMES)})
    raise InputError(*{ascii(NAMES[2:3])}, sys.argv[1])

run_script(main)
"""


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii"}, C_LOCALE, {"PYTHONIOENCODING": "latin-1:strict"}])
def test_an_encoding_without_a_letter_loses_no_report(settings):
    done = call(["-c", REFUSED, NAMES[0]], **settings)
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert done.stdout.count(rb"\u03bf") == done.stderr.count(rb"\u03bf") == 2, "a Greek letter, escaped"


WRITES = """
import sys
from utils.data.labels import load_classes
from utils.files import write_json
from utils.safe_load import read_json

names = load_classes(sys.argv[1])
write_json(sys.argv[2], names)
assert read_json(sys.argv[2], "names", "") == names
"""


def test_files_are_read_and_written_in_utf_8_whatever_the_locale(greek, tmp_path):
    done = call(["-c", WRITES, greek / "classes.csv", tmp_path / "names.json"], **C_LOCALE)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "names.json").read_text("utf-8")) == NAMES


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


def close_streams():
    """As those of what a daemon starts."""
    for number in range(3):
        os.close(number)
    sys.stdin = sys.stdout = sys.stderr = None


def test_scripts_work_with_closed_streams(greek, atlas, tmp_path):
    def code_of(script, *words):
        return call_forked(script, *words, before=close_streams).code

    folds, runs = tmp_path / "f.csv", tmp_path / "runs"
    classes = ["--classes", greek / "classes.csv"]
    assert code_of("make_folds", "--labels", greek / "l.csv", "--folds", 3, *classes, "-o", folds) == 0
    training = [*train_options(atlas, folds, runs, epochs=1, workers=1), *classes]
    assert code_of("train", *training) == 0
    written = {path.name for path in (runs / "mini/fold0").iterdir()}
    assert {"last.pt", "best.safetensors", "oof.csv", "log.csv"} <= written
    assert code_of("predict", runs / "mini", "--images", atlas / "test", "-o", tmp_path / "p.csv") == 0
    assert (tmp_path / "p.csv").stat().st_size
    assert code_of("predict", runs / "mini", "--images", atlas / "nowhere", "-o", tmp_path / "q.csv") == 2


def test_a_process_with_closed_streams_works_and_is_refused():
    """(The shell's own copies of what it was given stay open.)"""
    for end, code in (("", 0), ("raise InputError('x')", 2)):
        program = f"from utils.cli import run_script\nfrom utils.errors import InputError\ndef main():\n    print(1)\n    {end}\n"
        assert call(["-c", program + "run_script(main)"], "<&- >&- 2>&-").returncode == code


def test_a_stream_that_cannot_be_written_to_is_passed_over():
    program = "from utils.cli import run_script\nrun_script(lambda: print(1))"
    done = call(["-c", program], "1</dev/null")
    assert done.returncode == 0 and not done.stderr


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    main = "lambda: open(sys.argv[1], 'w') and os.write(1, b'stray')"
    program = f"import os, sys\nfrom utils.cli import run_script\nrun_script({main})"
    assert call(["-c", program, tmp_path / "file"], "<&- >&-").returncode == 0
    assert (tmp_path / "file").read_bytes() == b""

"""Damage of any kind, to any file, ends in success or in one sentence."""

import random
import sys
import warnings

import fuzz
import pytest
import targets
from conftest import refuse

from utils.errors import InputError


@pytest.mark.parametrize("kind", targets.KINDS)
def test_mutants_end_in_success_or_in_one_sentence(own_files, kind, monkeypatch, tmp_path):
    if kind in targets.PACKED_KINDS:
        targets.pack(own_files)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        found = [
            fuzz.attempt(kind, own_files, number, random.Random(f"test {kind} {number}"))[0]
            for number in range(MUTANTS)
        ]
    assert not [verdict for verdict in found if verdict.name not in ("succeeded", "refused")]
    assert not list((tmp_path / "empty").iterdir()), "nothing is written where the command runs"


MUTANTS = 6


def test_the_fuzzer_finds_faults(own_files, monkeypatch):
    """A script that raises, hangs, says two sentences, or leaves a file when it refuses."""
    import ensemble

    def told(main):
        monkeypatch.setattr(ensemble, "main", main)
        return fuzz.attempt("predictions", own_files, 0, random.Random(0))[0].name

    def writes():
        (own_files / "out").mkdir()
        (own_files / "out/s.csv").write_text("half")
        raise InputError("bad")

    monkeypatch.setattr(fuzz, "SECONDS", 1)
    assert "ValueError: oh" in told(lambda: exec('raise ValueError("oh")'))
    assert "took more than" in told(lambda: exec("while True: pass"))
    assert "no one sentence" in told(
        lambda: (print("warning", file=sys.stderr), exec('raise InputError("x")', {"InputError": InputError}))
    )
    assert "s.csv was written" in told(writes)
    assert told(lambda: exec('raise InputError("x")', {"InputError": InputError})) == "refused"
    assert told(lambda: None) == "succeeded" and not (own_files / "out").exists()


def test_the_damaged_copies_of_pictures_are_those_that_are_read(own_files):
    targets.pack(own_files)
    for path in (own_files / "cache").glob("*-bgry-32.bin"):
        path.write_bytes(bytes(path.stat().st_size))
    (command,) = targets.KINDS["data"].commands
    refuse(*targets.words(command, own_files, "data"), says="damaged at i00_blue.png")


@pytest.mark.parametrize("kind", targets.KINDS)
def test_the_structural_mutators_find_something_to_change(own_files, kind):
    """Else only the first check of a format would ever be tried."""
    if kind in targets.PACKED_KINDS:
        targets.pack(own_files)
    data = targets.victim(own_files, kind, random.Random(0)).read_bytes()
    changed = [targets.KINDS[kind].structure(data, random.Random(number)) for number in range(5)]
    assert any(one != data for one in changed)

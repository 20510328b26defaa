"""The competition's files: looked at, fetched, unpacked; and all folds from them to the line that submits."""

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, refuse, succeed

from utils.kaggle import COMPETITION, fetch

CLIENT = f"""#!{sys.executable}
import pathlib, shutil, sys
assert sys.argv[1:5] == ["competitions", "download", "-c", "{COMPETITION}"], sys.argv
name, folder = sys.argv[sys.argv.index("-f") + 1], sys.argv[sys.argv.index("-p") + 1]
server = pathlib.Path(__file__).parent
if (server / "locked").exists():
    sys.exit("403 Client Error: Forbidden for url\\nmore")
for made in (name, name + ".zip"):
    if (server / made).exists():
        print("Downloading", made)
        shutil.copy(server / made, folder)
        if (server / "cut").exists():
            pathlib.Path(folder, made).write_bytes((server / made).read_bytes()[:50])
            print("10%\\r20%\\r", end="")
            sys.exit("IncompleteRead(50 bytes read)")
"""


def pack(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, Path(content).read_bytes() if isinstance(content, Path) else content)


@pytest.fixture
def server(tmp_path, atlas, monkeypatch):
    """Kaggle's files as they are published, and a client that fetches them."""
    server = tmp_path / "server"
    server.mkdir()
    for name in ("train", "test"):
        pack(server / f"{name}.zip", {path.name: path for path in sorted((atlas / name).iterdir())})
    shutil.copy(atlas / "sample_submission.csv", server)
    pack(server / "train.csv.zip", {"train.csv": atlas / "train.csv"})  # as the client leaves some tables
    client = server / "kaggle"
    client.write_text(CLIENT)
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{server}:{os.environ['PATH']}")
    monkeypatch.setattr(fetch, "ARCHIVES", dict.fromkeys(fetch.ARCHIVES, 1))
    return server


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_missing_files_are_fetched_and_unpacked(server, atlas, tmp_path):
    folder = tmp_path / "input"
    result = succeed("utils.kaggle.fetch", "--to", folder)
    train, test = len(pd.read_csv(atlas / "train.csv")), len(pd.read_csv(atlas / "sample_submission.csv"))
    assert f"{train} labelled samples in train, {test} in test" in result.out
    for name in ("train", "test"):
        assert everything(folder / name) == everything(atlas / name)
    assert (folder / "train.csv").read_bytes() == (atlas / "train.csv").read_bytes()
    assert not list(folder.rglob(".*"))
    (server / "kaggle").unlink()  # nothing is missing: no client is needed
    assert "unpacked" not in succeed("utils.kaggle.fetch", "--to", folder).out


@pytest.mark.parametrize("nested", [True, False])
def test_the_whole_competition_in_one_archive_is_unpacked(server, atlas, tmp_path, nested):
    folder = tmp_path / "input"
    folder.mkdir()
    members = {name: atlas / name for name in fetch.TABLES}
    if nested:
        members |= {name: server / name for name in ("train.zip", "test.zip")}
    else:
        members |= {f"{part}/{path.name}": path for part in ("train", "test") for path in (atlas / part).iterdir()}
    pack(folder / f"{COMPETITION}.zip", members)
    (server / "kaggle").unlink()
    succeed("utils.kaggle.fetch", "--to", folder)
    assert everything(folder / "test") == everything(atlas / "test")


def test_what_is_there_is_not_replaced(server, atlas, tmp_path):
    folder = tmp_path / "input"
    shutil.copytree(atlas / "train", folder / "train")
    mine = [folder / "train.csv", next((folder / "train").iterdir())]
    table = (atlas / "train.csv").read_text().replace(",0\n", ",0 1\n")
    mine[0].write_text(table)
    mine[1].write_bytes(b"a picture of one's own")
    members = {name: atlas / name for name in fetch.TABLES}
    members |= {f"{part}/{path.name}": path for part in ("train", "test") for path in (atlas / part).iterdir()}
    pack(folder / f"{COMPETITION}.zip", members)
    succeed("utils.kaggle.fetch", "--to", folder)
    assert mine[0].read_text() == table and mine[1].read_bytes() == b"a picture of one's own"
    assert everything(folder / "test") == everything(atlas / "test")


def test_unpacking_goes_on_where_it_was_stopped(server, atlas, tmp_path, monkeypatch):
    folder = tmp_path / "input"
    extract, calls = fetch._extract, []

    def stop_after_five(packed, member, target):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(target)
        extract(packed, member, target)

    folder.mkdir()
    shutil.copy(server / "train.zip", folder)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch, "_extract", stop_after_five)
        fetch.unpack(folder / "train.zip", folder)
    assert not (folder / "train").exists()  # half a folder would be taken for a whole one
    times = {path: path.stat().st_mtime_ns for path in calls}
    fetch.unpack(folder / "train.zip", folder)
    assert everything(folder / "train") == everything(atlas / "train")
    assert all((folder / "train" / path.name).stat().st_mtime_ns == time for path, time in times.items())


def test_a_stop_while_pictures_go_to_their_place_leaves_no_half_folder(server, atlas, tmp_path, monkeypatch):
    folder = tmp_path / "input"
    (folder / ".train.unpacking").mkdir(parents=True)  # of an unpacking that was stopped
    (folder / "train").mkdir()
    (folder / "train/own_red.png").write_bytes(b"what somebody has put there since")
    shutil.copy(server / "train.zip", folder)
    real, moved = os.replace, []

    def stop_later(source, target):
        if Path(target).parent == folder / "train":
            moved.append(target)
            if len(moved) == 5:
                raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch.os, "replace", stop_later)
        fetch.unpack(folder / "train.zip", folder)
    assert "train/" in fetch.lacking(folder)
    succeed("utils.kaggle.fetch", "--to", folder)
    (folder / "train/own_red.png").unlink()
    assert everything(folder / "train") == everything(atlas / "train") and not (folder / ".train.unpacking").exists()


def test_names_in_an_archive_lead_nowhere_else(tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    names = [
        "../../a_red.png",
        "/etc/b_green.png",
        "..\\c_blue.png",
        "x/../d_yellow.png",
        "run.sh",
        "../train.csv",
        ".e_red.png",
    ]
    pack(folder / "train.zip", dict.fromkeys(names, b"x"))
    fetch.unpack(folder / "train.zip", folder)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    pictures = [f"input/train/{name}.png" for name in ("a_red", "b_green", "c_blue", "d_yellow")]
    assert found == sorted(["input/train.csv", "input/train.zip", *pictures])


def test_what_is_wrong_is_said_with_its_mend(server, atlas, tmp_path, monkeypatch):
    folder = tmp_path / "input"
    refuse("utils.kaggle.fetch", "--to", folder, "--check", says=["lacks train.csv", "train/", "utils.kaggle.fetch"])
    (server / "locked").touch()
    refuse("utils.kaggle.fetch", "--to", folder, says=["403 Client Error", "accept", "/rules", "input/README.md"])
    (server / "locked").unlink()
    (server / "cut").touch()  # a download that breaks off: the next one goes on with it
    refuse("utils.kaggle.fetch", "--to", folder, says=["IncompleteRead", "try again"])
    assert not (folder / "train.csv.zip").exists() and list((folder / fetch.FETCHING).iterdir())
    (server / "cut").unlink()
    (server / "kaggle").rename(server / "other")
    refuse("utils.kaggle.fetch", "--to", folder, says=["lacks train.csv", "no kaggle client", "pip install kaggle"])
    (server / "other").rename(server / "kaggle")
    with monkeypatch.context() as patch:
        patch.setitem(fetch.ARCHIVES, "train.zip", 10**18)
        refuse("utils.kaggle.fetch", "--to", folder, says=["train.zip", "free", "make room"])
    whole = (server / "train.zip").read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 255  # one bit of a picture: the sum in the archive tells
    for damaged in (broken, whole[: len(whole) // 2]):
        (folder / "train.zip").write_bytes(damaged)
        refuse("utils.kaggle.fetch", "--to", folder, says=["train.zip is damaged", "fetch it again"])
        assert not (folder / "train").exists()
        (folder / "train.zip").unlink()
    succeed("utils.kaggle.fetch", "--to", folder)
    one = next((folder / "test").iterdir())
    one.unlink()
    refuse("utils.kaggle.fetch", "--to", folder, says=["1 channel file missing", one.stem, "test.zip"])


def test_which_folds_are_to_be_trained(run, folds, tmp_path):
    where = [run, "--list", "--folds", folds]
    assert succeed("utils.kaggle.submit", *where, "--wanted", 3).out.split() == ["0", "1", "2"]
    refuse("utils.kaggle.submit", *where, "--wanted", 5, says=["3 folds, not 5", "delete it"])
    table = pd.read_csv(folds, dtype=str)
    own = tmp_path / "folds.csv"
    table.assign(fold=table["fold"].replace("1", "0")).to_csv(own, index=False)
    refuse("utils.kaggle.submit", run, "--list", "--folds", own, says=["fold1", "delete or move"])
    table.assign(fold="-1").to_csv(own, index=False)
    refuse("utils.kaggle.submit", run, "--list", "--folds", own, says=["no fold to validate on", "make_folds.py"])


def test_a_step_of_run_sh_is_done_anew_where_what_it_is_made_from_is_newer(tmp_path):
    text = (ROOT / "run.sh").read_text()
    once = text[text.index("once() {") : text.index("# From a run's trained folds")]
    start = f'set -euo pipefail\nstep() {{ "$@"; }}\ntyped() {{ echo; }}\n{once}\n'

    def call(*sources):
        words = ["once", "made", *sources, "--", "cp", "new", "made"]
        subprocess.run(["bash", "-c", start + " ".join(words)], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        return (tmp_path / "made").read_text()

    for name, time in (("new", 0), ("older", 100), ("newer", 300)):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (time, time))
    assert call("older") == "new"  # not there yet
    (tmp_path / "made").write_text("old")
    os.utime(tmp_path / "made", (200, 200))
    assert call("older", "nowhere*") == "old" and call() == "old"
    assert call("older", "newer") == "new"


def test_a_submission_of_other_rows_is_not_offered(run, thresholds, predictions, atlas, folds, tmp_path):
    sample, submission = atlas / "sample_submission.csv", tmp_path / "submission.csv"
    succeed("ensemble", predictions, "--thresholds", thresholds, "--sample", sample, "-o", submission)
    where = ["--file", submission, "--sample", sample, "--folds", folds]
    shutil.copytree(run, tmp_path / "run")
    refuse("utils.kaggle.submit", tmp_path / "run", *where, says=["thresholds.json", "threshold.py"])
    shutil.copy(thresholds, tmp_path / "run/thresholds.json")
    line = succeed("utils.kaggle.submit", tmp_path / "run", *where).out.strip()
    assert line.startswith(f"kaggle competitions submit -c {COMPETITION} -f {submission} -m 'run, 2 folds, macro F1 0.")
    table = pd.read_csv(submission, dtype=str)
    table.iloc[::-1].to_csv(submission, index=False)
    refuse("utils.kaggle.submit", tmp_path / "run", *where, says=["another order", "ensemble.py --sample"])
    table.assign(Predicted="28").to_csv(submission, index=False)
    refuse("utils.kaggle.submit", tmp_path / "run", *where, says=["class numbers 0 to 27"])


def test_which_folds_are_trained_to_the_end(run, folds, tmp_path):
    where = ["--trained", "--folds", folds]
    refuse("utils.kaggle.submit", run, *where, says=["1 fold of 3 not trained to the end (2)", "goes on"])
    assert "fold0: trained" in succeed("utils.kaggle.submit", run, *where, "--fold", 0).out
    copy = tmp_path / "run/fold0"
    copy.mkdir(parents=True)
    state = torch.load(run / "fold0/last.pt", weights_only=True)
    torch.save(state | {"finished": False}, copy / "last.pt")
    refuse("utils.kaggle.submit", copy.parent, *where, "--fold", 0, says=["1 fold of 1 not trained to the end (0)"])
    config = state["config"] | {"max_minutes": state["spent"] / 60}  # no time left for one more epoch
    torch.save(state | {"finished": False, "config": config}, copy / "last.pt")
    assert "--max-minutes used up" in succeed("utils.kaggle.submit", copy.parent, *where, "--fold", 0).out


def test_all_folds_of_the_real_competition_in_one_command(server, tmp_path):
    kit = tmp_path / "kit"
    (kit / ".venv").mkdir(parents=True)
    for name in ("bin", "lib", "pyvenv.cfg"):
        (kit / ".venv" / name).symlink_to(Path(sys.prefix, name))
    shutil.copy(ROOT / "requirements.txt", kit / ".venv/requirements.installed")
    for path in [*ROOT.glob("*.py"), *(ROOT / name for name in ("run.sh", "requirements.txt", "utils"))]:
        (kit / path.name).symlink_to(path)
    (kit / "run.sh").unlink()
    shutil.copy(ROOT / "run.sh", kit)  # it works where it lies
    options = [
        "--size=32",
        "--fit=resize",
        "--batch-size=8",
        "--epochs=1",
        "--weights=none",
        "--workers=0",
        "--name=mine",
    ]

    def call(*words):
        environment = os.environ | {"FOLDS": "2", "OMP_NUM_THREADS": "1"}
        return subprocess.run(["bash", kit / "run.sh", "real", *words], env=environment, capture_output=True, text=True)

    wrong = call("gapnet_pl", "--sizee", "32")
    assert wrong.returncode == 2 and "--sizee" in wrong.stderr and not (kit / "input").exists()
    for name in ("train", "test"):
        (kit / "input").mkdir(exist_ok=True)
        shutil.copy(server / f"{name}.zip", kit / "input")
    stopped = call("gapnet_pl", *options, "--time-limit", "0.01s")
    assert stopped.returncode == 2 and "not trained to the end (0)" in stopped.stderr, stopped.stderr
    done = call("gapnet_pl", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    line = done.stdout.splitlines()[-1]
    assert line.startswith(
        f"kaggle competitions submit -c {COMPETITION} -f runs/mine/submission.csv -m 'mine, 2 folds, macro F1"
    )
    submission = pd.read_csv(kit / "runs/mine/submission.csv")
    assert submission["Id"].tolist() == pd.read_csv(server / "sample_submission.csv")["Id"].tolist()

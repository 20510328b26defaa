"""What utils.kaggle.upload makes and what it refuses; the wheels in it are tested in test_kernel.py."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, refuse, succeed

from utils.kaggle import COMPETITION, attached, upload, wheels
from utils.runs.run_folder import WEIGHTS


def test_metadata_is_what_kaggle_asks_for():
    for name in ("hpa-kit", "abcdef", "a" * upload.MOST):
        upload.check_names("you", name, ["me/other"])
        found = [upload.dataset_metadata("you", name), upload.kernel_metadata("you", name, ["me/other"])]
        for content in found:
            slug = content["id"].removeprefix("you/")
            assert 6 <= len(content["title"]) <= 50 and 6 <= len(slug) <= 50
            assert content["title"].lower().replace(" ", "-") == slug  # how Kaggle makes the address of the title
        assert len(found[0]["licenses"]) == 1
        wanted = {"enable_internet": False, "enable_gpu": True, "is_private": True, "kernel_type": "notebook"}
        assert found[1] | wanted == found[1]
        assert found[1]["dataset_sources"] == [f"you/{name}"] and found[1]["competition_sources"] == [COMPETITION]
        assert found[1]["kernel_sources"] == ["me/other"]


def refused(tmp_path, *words, says):
    message = refuse("utils.kaggle.upload", "--user", "you", "-o", tmp_path / "out", *words, says=says)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    return message


REFUSED = {
    "--user ../you": ["--user", "kaggle.com/<user>"],
    "--name kit": ["--name 'kit'", "6 to 43"],
    "--name a/../bcdefg": ["--name"],
    f"--name {'a' * 44}": ["--name"],
    "--go-on-from kernel": ["--go-on-from", "user/name"],
    "--wheel tensorflow": ["--wheel tensorflow", "not a package of the kit"],
    "no_such_run": ["no_such_run", "contains no fold<k>/best.safetensors"],
    "--weights no.pth": ["no.pth cannot be read"],
    "--folds no.csv": ["no.csv"],
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_uploaded_is_refused_and_nothing_is_written(tmp_path, words):
    refused(tmp_path, *words.split(), says=REFUSED[words])


def test_weights_that_kaggle_would_unpack_or_hide_are_refused(tmp_path):
    for name in ("net.zip", "net.tar.gz", ".hidden.pth"):
        (tmp_path / name).write_bytes(b"0")
        refused(tmp_path, "--weights", tmp_path / name, says=[name, "rename"])
    words = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "same.pth").write_bytes(b"0")
        words += ["--weights", folder / "same.pth"]
    refused(tmp_path, *words, says="two files of weights")


def test_runs_that_are_damaged_or_of_one_name_are_refused(tmp_path, run):
    other = shutil.copytree(run, tmp_path / "other/mini")
    refused(tmp_path, run, other, says="two runs are named mini")
    (other / "fold1" / WEIGHTS).write_bytes(b"PK")
    refused(tmp_path, other, says=f"fold1/{WEIGHTS}")
    shutil.copyfile(run / "fold1" / WEIGHTS, other / "fold1" / WEIGHTS)
    (other / "fold0/rows.csv").unlink()
    refused(tmp_path, other, says=["fold0", "rows.csv"])


def test_pips_failure_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    refused(tmp_path, says=["pip cannot get a wheel of pretrainedmodels", "network"])


def test_a_folder_is_replaced_only_if_this_command_wrote_it(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "make", lambda *_: None)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    call = ["utils.kaggle.upload", "--user", "you", "-o", out]
    refuse(*call, "--overwrite", says=["did not write", "--out"])
    assert (out / "mine.txt").read_text() == "mine"
    shutil.rmtree(out)
    succeed(*call)
    refuse(*call, says=["exists", "--overwrite"])
    (out / "dataset/kit/train.py").write_text("old")
    succeed(*call, "--overwrite")
    assert (out / "dataset/kit/train.py").read_bytes() == (ROOT / "train.py").read_bytes()
    (out / "mine.txt").write_text("mine")
    refuse(*call, "--overwrite", says=["mine.txt", "did not write"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_kit_is_uploaded_whole_and_nothing_else(tmp_path, run, monkeypatch):
    """The copy runs alone, and every file lies inside it."""
    monkeypatch.setattr(wheels, "make", lambda *_: None)
    made = tmp_path / "out"
    succeed("utils.kaggle.upload", run, "--user", "you", "-o", made)
    dataset = made / "dataset"
    tops = {"kit", "wheels", "runs", "upload.json", "dataset-metadata.json"}
    assert {path.name for path in dataset.iterdir()} == tops
    assert not any(path.is_symlink() or path.name.startswith(".") for path in made.rglob("*"))
    others = {path.name for path in (dataset / "kit").iterdir() if path.suffix != ".py"}
    assert others == {"utils", "requirements.txt", "commit.txt"}
    assert (dataset / "kit/utils/simulator/label_sets.csv").is_file()
    fold = dataset / "runs/mini/fold0"
    kept = {path.relative_to(fold).as_posix() for path in fold.rglob("*.*")}
    tables = {"config.json", "image_statistics.json", "rows.csv", "oof.csv", "log.csv"}
    assert kept == {WEIGHTS, *tables, "validation/epoch001.npy", "validation/epoch002.npy"}
    help_ = [sys.executable, "-B", "train.py", "--help"]
    done = subprocess.run(help_, cwd=dataset / "kit", capture_output=True, text=True)
    assert done.returncode == 0 and "--time-limit" in done.stdout, done.stderr
    attached.check_arrived(dataset)
    notebook = json.loads((made / "kernel" / upload.NOTEBOOK).read_text())
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])


def test_an_unfinished_fold_takes_its_state_along(tmp_path, run):
    copy = shutil.copytree(run, tmp_path / "mini")
    state = torch.load(copy / "fold0/last.pt", weights_only=True)
    torch.save(state | {"finished": False}, copy / "fold0/last.pt")
    files = upload.run_files([copy])
    assert {"runs/mini/fold0/last.pt", "runs/mini/fold0/steps.csv", f"runs/mini/fold1/{WEIGHTS}"} <= set(files)
    assert "runs/mini/fold1/last.pt" not in files

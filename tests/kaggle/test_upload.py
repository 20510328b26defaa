"""What utils.kaggle.upload makes and what it refuses; the wheels in it are tested in tests/kaggle/test_kernel.py."""

import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT, refuse, stop_in_epoch, succeed, train_options

from utils.kaggle import COMPETITION, manifest, metadata, upload, wheels


def test_metadata_is_what_kaggle_asks_for():
    for slug in ("hpa-kit", "abcdef", "a" * metadata.MOST):
        metadata.check_slug(slug)
        found = [metadata.dataset("you", slug), metadata.kernel("you", slug, ["me/other"])]
        for content in found:
            name = content["id"].removeprefix("you/")
            assert 6 <= len(content["title"]) <= 50 and 6 <= len(name) <= 50
            assert (
                content["title"].lower().replace(" ", "-") == name
            )  # how Kaggle makes a kernel's address of its title
        assert len(found[0]["licenses"]) == 1
        assert (
            found[1] | {"enable_internet": False, "enable_gpu": True, "is_private": True, "kernel_type": "notebook"}
            == found[1]
        )
        assert found[1]["dataset_sources"] == [f"you/{slug}"] and found[1]["competition_sources"] == [COMPETITION]
        assert found[1]["kernel_sources"] == ["me/other"]


def refused(tmp_path, *words, says):
    message = refuse("utils.kaggle.upload", "--user", "you", "-o", tmp_path / "out", *words, says=says)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    return message


@pytest.mark.parametrize("words, told", [
    (["--user", "../you"], ["--user", "kaggle.com/<user>"]), (["--user", ""], ["--user"]),
    (["--name", "kit"], ["--name 'kit'", "6 to 43"]), (["--name", "a/../bcdefg"], ["--name"]), (["--name", "a" * 44], ["--name"]),
    (["--go-on-from", "kernel"], ["--go-on-from", "user/name"]), (["--wheel", "tensorflow"], ["--wheel tensorflow", "does not ask"]),
    (["no_such_run"], ["no_such_run", "holds no fold<k>/best.safetensors"]), (["--weights", "no.pth"], ["no.pth cannot be read"]),
    (["--folds", "no.csv"], ["no.csv"]),
])  # fmt: skip
def test_what_cannot_be_uploaded_is_refused_before_anything_is_written(tmp_path, words, told):
    refused(tmp_path, *words, says=told)


def test_weights_that_kaggle_would_unpack_or_hide_are_refused(tmp_path):
    for name in ("net.zip", "net.tar.gz", ".hidden.pth"):
        (tmp_path / name).write_bytes(b"0")
        refused(tmp_path, "--weights", tmp_path / name, says=[name, "rename"])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.pth").write_bytes(b"0")
    refused(
        tmp_path,
        "--weights",
        tmp_path / "a/same.pth",
        "--weights",
        tmp_path / "b/same.pth",
        says="two files of weights",
    )


def test_runs_that_are_damaged_or_of_one_name_are_refused(tmp_path, run):
    other = shutil.copytree(run, tmp_path / "other/mini")
    refused(tmp_path, run, other, says="two runs are called mini")
    (other / "fold1/best.safetensors").write_bytes(b"PK")
    refused(tmp_path, other, says=["fold1/best.safetensors"])
    shutil.copyfile(run / "fold1/best.safetensors", other / "fold1/best.safetensors")
    (other / "fold0/rows.csv").unlink()
    refused(tmp_path, other, says=["fold0", "rows.csv"])


def test_pips_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    refused(tmp_path, says=["pip cannot get a wheel of pretrainedmodels", "network"])


@pytest.fixture
def quick(monkeypatch):
    """Uploads without wheels."""
    monkeypatch.setattr(wheels, "make", lambda *_: [])


def test_a_folder_is_replaced_only_where_this_command_wrote_it(tmp_path, quick):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    words = ["--user", "you", "-o", out, "--overwrite"]
    refuse("utils.kaggle.upload", *words, says=["did not write", "--out"])
    assert (out / "mine.txt").read_text() == "mine"
    shutil.rmtree(out)
    succeed("utils.kaggle.upload", *words[:-1])
    refuse("utils.kaggle.upload", *words[:-1], says=["there already", "--overwrite"])
    (out / "dataset/kit/train.py").write_text("old")
    succeed("utils.kaggle.upload", *words)
    assert (out / "dataset/kit/train.py").read_bytes() == (ROOT / "train.py").read_bytes()
    (out / "mine.txt").write_text("mine")
    refuse("utils.kaggle.upload", *words, says=["mine.txt", "did not write"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_kit_is_uploaded_whole_and_nothing_else(tmp_path, quick, run):
    """The copy runs alone, and every file lies inside it."""
    succeed("utils.kaggle.upload", run, "--user", "you", "-o", tmp_path / "out")
    dataset = tmp_path / "out/dataset"
    assert {path.name for path in dataset.iterdir()} == {
        "kit",
        "wheels",
        "runs",
        "upload.json",
        "dataset-metadata.json",
    }
    assert not any(path.is_symlink() or path.name.startswith(".") for path in (tmp_path / "out").rglob("*"))
    assert {path.name for path in (dataset / "kit").iterdir() if path.suffix != ".py"} == {
        "utils",
        "requirements.txt",
        "commit.txt",
    }
    kept = {
        path.relative_to(dataset / "runs/mini/fold0").as_posix() for path in (dataset / "runs/mini/fold0").rglob("*.*")
    }
    assert kept == {
        "best.safetensors",
        "config.json",
        "rows.csv",
        "oof.csv",
        "log.csv",
        "validation/epoch001.npy",
        "validation/epoch002.npy",
    }
    done = subprocess.run(
        [sys.executable, "-B", "train.py", "--help"], cwd=dataset / "kit", capture_output=True, text=True
    )
    assert done.returncode == 0 and "--time-limit" in done.stdout, done.stderr
    manifest.check_arrived(dataset)
    notebook = nbformat.read(tmp_path / "out/kernel" / metadata.NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


def test_an_unfinished_fold_takes_its_state_along(tmp_path, atlas, folds, monkeypatch):
    stop_in_epoch(monkeypatch, 2, train_options(atlas, folds, tmp_path))
    files = upload.run_files([tmp_path / "mini"])
    assert files["runs/mini/fold0/last.pt"] == tmp_path / "mini/fold0/last.pt" and "runs/mini/fold0/steps.csv" in files


def test_the_commands_help_fits_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = succeed("utils.kaggle.upload", "--help").out
    assert "--weights" in out and not [line for line in out.splitlines() if len(line) > 79]

"""Outputs through symbolic links, and places that are no files: a link stays a link, and a device or pipe is never replaced."""

import os
import shutil
import stat
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT, refuse, submission_of, succeed, train_options
from test_files import WRITERS

from utils.data.packing import open_images
from utils.errors import InputError
from utils.files import check_writable, destination, whole_file, whole_folder
from utils.kaggle.fetch import unpack


def out_of(script, atlas, folds, run, predictions, thresholds, out):
    """A command line whose output is the file `out`."""
    return {
        "make_folds": ["--labels", atlas / "train.csv", "--folds", 3, "-o", out],
        "predict": [run, "--images", atlas / "test", "--workers", 0, "-o", out],
        "threshold": [run, "-o", out],
        "ensemble": submission_of(predictions, thresholds, atlas, out),
        "utils.tools.find_duplicates": ["--images", atlas / "test", "-o", out],
        "utils.tools.augment_sheet": ["--images", atlas / "train", "-o", out],
    }[script]


SCRIPTS = ["make_folds", "predict", "threshold", "ensemble", "utils.tools.find_duplicates", "utils.tools.augment_sheet"]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("name", WRITERS)
def test_a_link_stays_and_its_target_is_written(tmp_path, name, there):
    """Relative, over another link, to a file that is there or not yet."""
    target, link = tmp_path / "far/deep" / name, tmp_path / "near" / name
    link.parent.mkdir()
    target.parent.mkdir(parents=True)
    if there:
        target.write_bytes(b"old")
    link.symlink_to("../second")
    (tmp_path / "second").symlink_to(target)
    check_writable(link)
    WRITERS[name](link)
    WRITERS[name](tmp_path / name)
    assert link.is_symlink() and (tmp_path / "second").is_symlink() and not target.is_symlink()
    assert target.stat().st_size == (tmp_path / name).stat().st_size and len(list(target.parent.iterdir())) == 1
    assert list(link.parent.iterdir()) == [link]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_writes_through_a_link(atlas, folds, run, predictions, thresholds, tmp_path, script):
    link = tmp_path / "link.png"
    link.symlink_to("target")
    succeed(script, *out_of(script, atlas, folds, run, predictions, thresholds, link))
    assert link.is_symlink() and (tmp_path / "target").stat().st_size > 0 and not list(tmp_path.glob(".*"))


def pipe(path):
    os.mkfifo(path)


def device(path):
    """The same node as /dev/null."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no right to make devices")


def socket(path):
    os.mknod(path, stat.S_IFSOCK | 0o666)


SPECIAL = {"pipe": pipe, "device": device, "socket": socket, "folder": os.mkdir}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", SPECIAL)
def test_no_rename_takes_the_place_of_what_is_no_file(tmp_path, kind, linked):
    special, path = tmp_path / "special", tmp_path / ("link" if linked else "special")
    if linked:
        path.symlink_to(special)
    with (
        pytest.raises(InputError, match=f"{path} is (no regular file|a folder); name a file"),
        whole_file(path) as file,
    ):
        SPECIAL[kind](special)  # it comes while the file is being written
        file.write("x")
    before = special.lstat()
    assert not stat.S_ISREG(before.st_mode)
    for call in (check_writable, destination, WRITERS["json.json"], WRITERS["figure.png"], WRITERS["torch.pt"]):
        with pytest.raises(InputError, match=f"{path} is (no regular file|a folder); name a file"):
            call(path)
    if kind != "folder":
        with pytest.raises(InputError, match=f"{path} is no regular file; name a folder"), whole_folder(path):
            pass
    assert special.lstat().st_ino == before.st_ino and path.is_symlink() == linked
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_refuses_a_pipe_behind_a_link(atlas, folds, run, predictions, thresholds, tmp_path, script):
    os.mkfifo(tmp_path / "pipe")
    link = tmp_path / "link.png"
    link.symlink_to("pipe")
    words = out_of(script, atlas, folds, run, predictions, thresholds, link)
    refuse(script, *words, says=f"{link} is no regular file; name a file to write")
    assert link.is_symlink() and (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["best.safetensors", "oof.csv", "log.csv", "config.json", "last.pt"])
def test_a_training_refuses_a_pipe_before_it_begins(atlas, folds, tmp_path, name):
    fold = tmp_path / "mini/fold0"
    fold.mkdir(parents=True)
    os.mkfifo(fold / name)
    refuse("train", *train_options(atlas, folds, tmp_path), says=f"{fold / name} is no regular file")
    assert (fold / name).is_fifo()


def test_a_training_into_a_link_makes_the_folder_it_leads_to(atlas, folds, tmp_path):
    (tmp_path / "runs/mini").mkdir(parents=True)
    (tmp_path / "runs/mini/fold0").symlink_to("../../far/fold")
    succeed("train", *train_options(atlas, folds, tmp_path / "runs", epochs=1))
    assert (tmp_path / "runs/mini/fold0").is_symlink() and (tmp_path / "far/fold/last.pt").is_file()


def test_a_folder_behind_a_link_is_replaced_where_it_lies(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/old").write_text("old")
    (tmp_path / "near").symlink_to("far")
    with whole_folder(tmp_path / "near") as part:
        (part / "new").write_text("new")
    assert (tmp_path / "near").is_symlink() and [path.name for path in (tmp_path / "far").iterdir()] == ["new"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_that_leads_back_to_itself_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for call in (check_writable, WRITERS["json.json"]):
        with pytest.raises(InputError, match="a is a link that leads back to itself"):
            call(tmp_path / "a")


def test_what_lies_where_a_file_is_begun_is_not_written_to(tmp_path):
    """A link, which would lead elsewhere, and a pipe, which would wait."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".x.json.part").symlink_to("precious")
    os.mkfifo(tmp_path / ".y.json.part")
    for name in ("x.json", "y.json"):
        with pytest.raises(InputError, match=f"cannot write {tmp_path / name}"):
            WRITERS["json.json"](tmp_path / name)
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    "stream, to", [("stdout", "a pipe"), ("stdout", "a file"), ("stdout", "nothing"), ("stderr", "a file")]
)
def test_the_standard_streams_are_refused_and_stay(atlas, tmp_path, stream, to):
    """Named by a link in `tmp_path`, so that a fault cannot harm the machine's."""
    link = tmp_path / "stream"
    link.symlink_to(f"/proc/self/fd/{2 if stream == 'stderr' else 1}")
    words = [sys.executable, "make_folds.py", "--labels", atlas / "train.csv", "--folds", "3", "-o", link]
    with open(tmp_path / "printed", "w") as file:
        out = {"a pipe": subprocess.PIPE, "a file": file, "nothing": subprocess.DEVNULL}[to]
        done = subprocess.run(list(map(str, words)), cwd=ROOT, stdout=out, stderr=out, text=True)
    said = (done.stderr or "") if to == "a pipe" else (tmp_path / "printed").read_text()
    assert done.returncode == 2 and link.is_symlink() and "Traceback" not in said
    assert to == "nothing" or (said.count("\n") == 1 and said.startswith(f"error: {link} is ")), said


def test_a_packed_copy_that_is_begun_anew_keeps_its_links(atlas, tmp_path):
    files = [tuple(sorted((atlas / "test").glob("*_green.png"))[:1])]
    cache = tmp_path / "cache"
    open_images(files, ["green"], 32, "resize", str(cache))
    for path in [*cache.glob("*.bin"), *cache.glob("*.index")]:
        shutil.move(path, tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    next(tmp_path.glob("*.index")).write_text("damaged")
    images, _ = open_images(files, ["green"], 32, "resize", str(cache))
    assert not len(images.decoded()) and all(
        path.is_symlink() for path in cache.iterdir() if path.suffix in (".bin", ".index")
    )


def test_a_pipe_in_place_of_a_packed_copy_stays_and_nothing_is_packed(atlas, tmp_path, capsys):
    files = [tuple(sorted((atlas / "test").glob("*_green.png"))[:1])]
    open_images(files, ["green"], 32, "resize", str(tmp_path))
    data = next(tmp_path.glob("*.bin"))
    data.unlink()
    os.mkfifo(data)
    images, _ = open_images(files, ["green"], 32, "resize", str(tmp_path))
    assert len(images.decoded()) == 1 and data.is_fifo() and "is no regular file" in capsys.readouterr().out


def archive_of(folder, *names):
    with zipfile.ZipFile(folder / "all.zip", "w") as packed:
        for name in names:
            packed.writestr(name, "content")
    return folder / "all.zip"


def test_unpacking_follows_links_and_replaces_no_pipe(tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    (tmp_path / "far").mkdir()
    (folder / "train").symlink_to("../far")
    (folder / "train.csv").symlink_to("../labels.csv")
    unpack(archive_of(folder, "train.csv", "train/a_red.png"), folder)
    assert (folder / "train").is_symlink() and (folder / "train.csv").is_symlink()
    assert (tmp_path / "far/a_red.png").read_text() == (tmp_path / "labels.csv").read_text() == "content"
    os.mkfifo(folder / "sample_submission.csv")
    with pytest.raises(InputError, match="sample_submission.csv is no regular file"):
        unpack(archive_of(folder, "sample_submission.csv"), folder)
    assert (folder / "sample_submission.csv").is_fifo() and sorted(os.listdir(tmp_path)) == [
        "far",
        "input",
        "labels.csv",
    ]

"""Files appear whole or not at all: full disks, links, places that are no files, two writers of one file."""

import os
import resource
import shutil
import stat
import subprocess
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import call_forked, refuse, stop_in_epoch, submission_of, succeed, train_options
from hypothesis import example, given
from hypothesis import strategies as st
from writers import WRITERS, write_whole

from utils import files
from utils.data.cache import open_images
from utils.engine.run_log import RunLog
from utils.errors import InputError, data_size
from utils.files import PartialFile, check_writable, destination, whole_file, whole_folder
from utils.kaggle.fetch import unpack

OLD = b"what was there before"
SCRIPTS = ["make_folds", "predict", "threshold", "ensemble", "utils.tools.find_duplicates", "utils.tools.augment_sheet"]


@contextmanager
def at_most(size):
    """No file of this process may become larger than `size` bytes: the system refuses the rest with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def limit_file(monkeypatch, name, size):
    """`at_most`, but only for the file of that name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Limited(PartialFile):
        def create(self):
            if self.path.name == f".{name}.part":
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            super().create()

        def remove(self):
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            super().remove()

    monkeypatch.setattr(files, "PartialFile", Limited)


@pytest.fixture
def small_disk(tmp_path):
    """Makes a disk of some bytes and fills all of it but some others."""
    place = tmp_path / "disk"

    def make(size, free=None):
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no right to mount")
        if free is not None:
            (place / "filler").write_bytes(bytes(shutil.disk_usage(place).free - free))
        return place

    yield make
    subprocess.run(["umount", place], capture_output=True)


@pytest.fixture(scope="module")
def out_of(atlas, run, predictions, thresholds):
    """A function that gives the command line of a script whose output is the file `out`."""

    def words(script, out):
        return {
            "make_folds": ["--labels", atlas / "train.csv", "--folds", 3, "-o", out],
            "predict": [run, "--images", atlas / "test", "--workers", 0, "-o", out],
            "threshold": [run, "--method", "global", "--repeats", 1, "-o", out],
            "ensemble": submission_of(predictions, thresholds, atlas, out),
            "utils.tools.find_duplicates": ["--images", atlas / "test", "-o", out],
            "utils.tools.augment_sheet": ["--images", atlas / "train", "-o", out],
        }[script]

    return words


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# No room


@given(
    st.lists(st.one_of(st.binary(max_size=60), st.integers(1, 30_000).map(bytes), st.none()), max_size=12),
    st.integers(0, 40_000),
    st.booleans(),
)
@example([b"x" * 999], 998, True)
@example([b"x" * 10, None, b"y" * 10], 15, False)
@example([], 0, True)
def test_a_file_is_whole_or_the_error_tells_its_whole_size(tmp_path_factory, chunks, limit, existing):
    """Whatever the pieces (None: a flush between them) and wherever the room ends."""
    folder = tmp_path_factory.mktemp("whole")
    path, expected = folder / "file", b"".join(chunk for chunk in chunks if chunk)
    if existing:
        path.write_bytes(OLD)
    message = None
    try:
        with at_most(limit), whole_file(path, "wb") as file:
            for chunk in chunks:
                file.flush() if chunk is None else file.write(chunk)
    except InputError as error:
        message = str(error)
    if len(expected) <= limit:
        assert message is None and content(folder) == {path.relative_to(folder): expected}
    else:
        assert f"cannot write {path}: it needs {data_size(len(expected))}, " in message
        assert content(folder) == ({path.relative_to(folder): OLD} if existing else {})


@pytest.mark.parametrize("name", WRITERS)
def test_every_library_that_writes_can_be_counted(tmp_path, name):
    """None goes past the file object, by its descriptor say, or stops at the first byte that has no room."""
    path = tmp_path / name
    WRITERS[name](path)
    size = path.stat().st_size
    for limit in (0, size // 2, size - 1):
        path.write_bytes(OLD)
        with pytest.raises(InputError, match=f"needs {data_size(size)}, "), at_most(limit):
            WRITERS[name](path)
        assert content(tmp_path) == {path.relative_to(tmp_path): OLD}
    with at_most(size):
        WRITERS[name](path)
    assert path.stat().st_size == size


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_may_be_full_only_in_the_end(tmp_path, monkeypatch, call):
    """Some file systems allot room no sooner."""
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match="needs 700 bytes, .* free on the disk"), whole_file(path, "wb") as file:
        file.write(bytes(700))
    assert content(tmp_path) == {path.relative_to(tmp_path): OLD}


def test_an_error_of_the_writer_is_its_own(tmp_path):
    with pytest.raises(ZeroDivisionError), at_most(10), whole_file(tmp_path / "file") as file:
        file.write("x" * 20_000)
        raise ZeroDivisionError
    assert not content(tmp_path)


def test_a_full_disk_is_reported_with_its_free_room_which_it_gets_back(small_disk):
    disk = small_disk(2**21, free=40_000)
    out = disk / "out.csv"
    out.write_bytes(OLD)
    free = shutil.disk_usage(disk).free
    says = f"needs 100 KB, {data_size(free)} are free on the disk .No space left on device.; free disk space"
    with pytest.raises(InputError, match=says):
        write_whole(out, lambda file: file.write(bytes(100_000)))
    assert content(disk)[out.relative_to(disk)] == OLD and shutil.disk_usage(disk).free == free


def test_a_disk_that_takes_no_more_files(small_disk):
    disk = small_disk("1m,nr_inodes=2")
    (disk / "only").write_bytes(b"")
    with pytest.raises(InputError, match=r"needs 9 bytes, 1.05 MB are free on the disk .No space left on device."):
        write_whole(disk / "new" / "file", lambda file: file.write(b"nine byte"))


@pytest.fixture(scope="module")
def stopped(atlas, folds, tmp_path_factory):
    """The runs' folder of a training that was stopped in its second epoch."""
    runs = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        stop_in_epoch(patch, 2, train_options(atlas, folds, runs))
    return runs


@pytest.mark.parametrize("name", ["best.safetensors", "oof.csv", "steps.csv", "log.csv", "last.pt"])
def test_a_training_without_room_keeps_what_it_has_and_is_resumed(atlas, folds, stopped, tmp_path, monkeypatch, name):
    runs = shutil.copytree(stopped, tmp_path / "runs")
    fold, command = runs / "mini/fold0", train_options(atlas, folds, runs)
    real, before = RunLog.epoch, (fold / name).read_bytes()
    monkeypatch.setattr(RunLog, "epoch", lambda self, found, best, *more: real(self, found, True, *more))
    with monkeypatch.context() as patch:
        limit_file(patch, name, len(before) // 2)
        refuse("train", *command, says=[f"cannot write {fold / name}: it needs ", "free disk space"])
    assert (fold / name).read_bytes() == before and not list(runs.rglob("*.part"))
    succeed("train", *command)
    assert (fold / name).read_bytes() != before


@pytest.mark.parametrize("name", ["rows.csv", "best.safetensors", "last.pt"])
def test_a_training_without_room_for_its_first_epoch_leaves_its_weights_or_nothing(
    atlas, folds, tmp_path, monkeypatch, name
):
    with monkeypatch.context() as patch:
        limit_file(patch, name, 50)
        refuse("train", *train_options(atlas, folds, tmp_path), says=[name, "it needs"])
    if name == "last.pt":
        assert {"best.safetensors", "oof.csv"} <= {path.name for path in content(tmp_path)}
        succeed("train", *train_options(atlas, folds, tmp_path))
    else:
        assert not content(tmp_path)


def test_an_atlas_without_room_can_be_completed(tmp_path):
    words = ["--out", tmp_path / "a", "--train", 3, "--test", 2, "--size", 64, "--workers", 1]
    with at_most(500):
        refuse("utils.simulator.__main__", *words, says=["cannot write", "it needs"])
    assert not list(tmp_path.rglob("*.part"))
    succeed("utils.simulator.__main__", *words)
    succeed("utils.simulator.__main__", "--out", tmp_path / "b", *words[2:])
    assert content(tmp_path / "a") == content(tmp_path / "b")


# Links, and places that are no files


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_writes_whole_files_through_links_and_replaces_no_pipe(out_of, tmp_path, script):
    os.mkfifo(tmp_path / "pipe")
    link, target = tmp_path / "link.png", tmp_path / "target"
    link.symlink_to("pipe")
    refuse(script, *out_of(script, link), says=f"{link} is not a regular file; name a file to write")
    assert link.is_symlink() and (tmp_path / "pipe").is_fifo()
    link.unlink()
    link.symlink_to("target")
    target.write_bytes(OLD)
    with at_most(0):
        refuse(script, *out_of(script, link), says=f"cannot write {link}: it needs ")
    assert target.read_bytes() == OLD
    succeed(script, *out_of(script, link))
    assert link.is_symlink() and target.read_bytes() != OLD and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("existing", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, existing):
    """Relative, over another link, to a file that exists or not."""
    target, link, name = tmp_path / "far/deep/x.json", tmp_path / "near/x.json", "json.json"
    link.parent.mkdir()
    target.parent.mkdir(parents=True)
    if existing:
        target.write_bytes(OLD)
    link.symlink_to("../second")
    (tmp_path / "second").symlink_to(target)
    check_writable(link)
    WRITERS[name](link)
    WRITERS[name](tmp_path / name)
    assert link.is_symlink() and (tmp_path / "second").is_symlink() and not target.is_symlink()
    assert target.read_bytes() == (tmp_path / name).read_bytes() and len(list(target.parent.iterdir())) == 1
    assert list(link.parent.iterdir()) == [link]


def make_device(path):
    """The same node as /dev/null."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no right to make devices")


SPECIAL = {
    "pipe": os.mkfifo,
    "device": make_device,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o666),
    "folder": os.mkdir,
}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_never_replaced(tmp_path, kind, linked):
    special, path = tmp_path / "special", tmp_path / ("link" if linked else "special")
    if linked:
        path.symlink_to(special)
    says = f"{path} is (not a regular file|a folder); name a file"
    with pytest.raises(InputError, match=says), whole_file(path) as file:
        SPECIAL[kind](special)  # it comes while the file is being written
        file.write("x")
    before = special.lstat()
    assert not stat.S_ISREG(before.st_mode)
    for call in (check_writable, destination, WRITERS["json.json"]):
        with pytest.raises(InputError, match=says):
            call(path)
    if kind != "folder":
        with pytest.raises(InputError, match=f"{path} is not a regular file; name a folder"), whole_folder(path):
            pass
    assert special.lstat().st_ino == before.st_ino and path.is_symlink() == linked
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["best.safetensors", "log.csv", "config.json", "last.pt"])
def test_a_training_refuses_a_pipe_before_it_begins(atlas, folds, tmp_path, name):
    fold = tmp_path / "mini/fold0"
    fold.mkdir(parents=True)
    os.mkfifo(fold / name)
    refuse("train", *train_options(atlas, folds, tmp_path), says=f"{fold / name} is not a regular file")
    assert (fold / name).is_fifo()


def test_a_training_into_a_link_makes_the_folder_it_leads_to(atlas, folds, tmp_path):
    (tmp_path / "runs/mini").mkdir(parents=True)
    (tmp_path / "runs/mini/fold0").symlink_to("../../far/fold")
    succeed("train", *train_options(atlas, folds, tmp_path / "runs", epochs=1))
    assert (tmp_path / "runs/mini/fold0").is_symlink() and (tmp_path / "far/fold/last.pt").is_file()


def test_a_link_that_leads_back_to_itself_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for call in (check_writable, WRITERS["json.json"]):
        with pytest.raises(InputError, match="a is a link to itself"):
            call(tmp_path / "a")


@pytest.mark.parametrize("stream, to", [("stdout", "a pipe"), ("stdout", "nothing"), ("stderr", "a file")])
def test_the_standard_streams_are_refused_and_stay(atlas, tmp_path, stream, to):
    """Named by a link in `tmp_path`, so that a fault cannot harm the machine's."""
    link = tmp_path / "stream"
    link.symlink_to(f"/proc/self/fd/{2 if stream == 'stderr' else 1}")
    words = ["--labels", atlas / "train.csv", "--folds", "3", "-o", link]
    ours, pipe = os.pipe()
    with open(tmp_path / "printed", "w") as file, open(os.devnull, "w") as nothing:
        target = {"a pipe": pipe, "a file": file.fileno(), "nothing": nothing.fileno()}[to]
        done = call_forked("make_folds", *words, before=lambda: [os.dup2(target, number) for number in (1, 2)])
    os.close(pipe)
    printed = os.read(ours, 10_000).decode() + (tmp_path / "printed").read_text()
    os.close(ours)
    assert done.code == 2 and link.is_symlink() and "Traceback" not in printed
    assert to == "nothing" or (printed.count("\n") == 1 and printed.startswith(f"error: {link} is ")), printed


def test_a_packed_copy_that_is_made_anew_keeps_its_links_and_replaces_no_pipe(atlas, tmp_path, capsys):
    samples = [tuple(sorted((atlas / "test").glob("*_green.png"))[:1])]
    cache = tmp_path / "cache"
    open_images(samples, ["green"], 32, "resize", str(cache))
    for path in [*cache.glob("*.bin"), *cache.glob("*.index")]:
        shutil.move(path, tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    next(tmp_path.glob("*.index")).write_text("damaged")
    images, _ = open_images(samples, ["green"], 32, "resize", str(cache))
    links = [path for path in cache.iterdir() if path.suffix in (".bin", ".index")]
    assert not len(images.decoded()) and all(path.is_symlink() for path in links)
    data = next(tmp_path.glob("*.bin"))
    data.unlink()
    os.mkfifo(data)
    images, _ = open_images(samples, ["green"], 32, "resize", str(cache))
    assert len(images.decoded()) == 1 and data.is_fifo() and "is not a regular file" in capsys.readouterr().out


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
    with pytest.raises(InputError, match="sample_submission.csv is not a regular file"):
        unpack(archive_of(folder, "sample_submission.csv"), folder)
    assert (folder / "sample_submission.csv").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["far", "input", "labels.csv"]


# What lies beside the place, and folders


def test_two_processes_do_not_write_one_file_at_once(tmp_path):
    path = tmp_path / "x.csv"
    with whole_file(path) as file:
        file.write("first\n")
        with pytest.raises(InputError, match="x.csv .another process is writing it."), whole_file(path) as other:
            other.write("second\n")
        file.write("first again\n")
    assert path.read_text() == "first\nfirst again\n" and content(tmp_path).keys() == {Path("x.csv")}
    (tmp_path / ".x.csv.part").write_text("what a killed process left")
    with whole_file(path) as file:
        file.write("third\n")
    assert path.read_text() == "third\n" and content(tmp_path).keys() == {Path("x.csv")}


def test_what_lies_where_a_file_is_begun_is_not_written_to(tmp_path):
    """A link, which would lead elsewhere, and a pipe, which would wait."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".x.json.part").symlink_to("precious")
    os.mkfifo(tmp_path / ".y.json.part")
    for name in ("x.json", "y.json"):
        with pytest.raises(InputError, match=f"cannot write {tmp_path / name}"):
            WRITERS["json.json"](tmp_path / name)
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("fails", ["the body", "the last step"])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch, fails):
    place, link = tmp_path / "run", tmp_path / "link"
    place.mkdir()
    link.symlink_to("run")
    (place / "old").write_text("old")
    real = Path.rename
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no room"), whole_folder(place) as part:
        (part / "new").write_text("new")
        if fails == "the body":
            raise OSError("no room")

        def rename(path, target):
            if path == part:
                raise OSError("no room")
            return real(path, target)

        patch.setattr(Path, "rename", rename)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "old", "run"]
    with whole_folder(link) as part:
        (part / "new").write_text("new")
    assert link.is_symlink() and sorted(path.name for path in tmp_path.rglob("*")) == ["link", "new", "run"]

"""Atomic writing of files and folders, and checks of output paths."""

import errno
import io
import json
import os
import shutil
import stat
import tempfile
import unicodedata
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import InputError, data_size

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is full, or the user's quota, or the file is too large


@contextmanager
def whole_file(path, mode="w"):
    """Open a file for writing (``w``: UTF-8, or ``wb``) so that readers see the old file or the complete new one.

    A temporary file beside it is flushed to disk and renamed; a symbolic link stays one. An exception in the body keeps
    the old file. Raise InputError if `path` cannot be written; for a full disk only after the body, to report the
    file's size.
    """
    path, place = Path(path), destination(path)
    part = PartialFile(place)
    try:
        part.create()
        buffered = io.BufferedWriter(part)
        with buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            destination(path)  # check again: hours may have passed
            part.move_to(place)
        if part.error:
            raise InputError(_no_room(path, part.size, part.error)) from part.error
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error}); choose a writable place") from error
    finally:
        part.remove()


class PartialFile(io.RawIOBase):
    """The file `.<name>.part` that becomes `place`, written sequentially.

    If the disk is full, it removes itself, sets `error` to the OSError, and only counts further bytes in `size`. It
    exposes no file descriptor, so that libraries cannot bypass it.
    """

    def __init__(self, place):
        self.path, self.size, self.error, self._file = place.with_name(f".{place.name}.part"), 0, None, None

    def create(self):
        """Create the file and its parent folders."""
        with self._noting_no_room():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(self.path)

    def writable(self):
        return True

    def write(self, data):
        length = memoryview(data).nbytes
        if not self.error:
            with self._noting_no_room():
                length = self._file.write(data)  # if less, the caller writes the rest again
        self.size += length
        return length

    def move_to(self, place):
        """Flush the file to disk, rename it, and flush its new name to disk."""
        if not self.error:
            with self._noting_no_room():
                os.fsync(self._file.fileno())
                os.replace(self.path, place)
                moved, self._file = self._file, None
                moved.close()
                _sync_folder(place.parent)

    def remove(self):
        """Remove the file unless it was renamed or is another process's."""
        if self._file:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            with suppress(OSError):
                self._file.close()

    @contextmanager
    def _noting_no_room(self):
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self.error = error
            self.remove()


def _open_locked(path):
    """Open `path`, new or left by a killed process. Raise BlockingIOError if another process is writing it."""
    while True:
        file = open(path, "ab", buffering=0, opener=_open_regular)  # noqa: SIM115
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except BlockingIOError as error:
            file.close()
            raise BlockingIOError(error.errno, "another process is writing it") from None
        except FileNotFoundError:
            ours = False
        except OSError:  # a file system without locks
            ours = True
        if ours:
            file.truncate(0)
            return file
        file.close()  # another process has just renamed it: this may be its complete file, try again


def _open_regular(path, flags):
    """Open without following a link or waiting for a pipe's reader."""
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path} is not a regular file")
    return handle


def _sync_folder(folder):
    with suppress(OSError):  # not every system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _no_room(path, size, error):
    """Return the message for a file of `size` bytes that does not fit on the disk."""
    folder = next(folder for folder in Path(os.path.realpath(path)).parents if folder.is_dir())
    room = f"it needs {data_size(size)}, {data_size(shutil.disk_usage(folder).free)} are free on the disk"
    return f"cannot write {path}: {room} ({error.strerror}); free disk space or choose another place"


@contextmanager
def whole_folder(path):
    """Yield an empty folder to fill, which then replaces `path`. An exception keeps the old folder; a symbolic link
    stays one."""
    path = destination(path, folder=True)
    part, old = (path.with_name(f".{path.name}.{ending}") for ending in ("part", "old"))
    try:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if path.exists():
            path.rename(old)
        part.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def destination(path, folder=False):
    """Resolve the symbolic links of a file (or folder) `path` to write.

    Raise InputError for anything that a rename would destroy: a device, a pipe, the file that stdout goes to.
    """
    try:
        place = Path(os.path.realpath(path))
        if place.is_symlink():
            raise InputError(f"{path} is a link to itself; name a file to write")
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return place
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a writable place") from error
    is_folder, is_file = stat.S_ISDIR(state.st_mode), stat.S_ISREG(state.st_mode)
    if not (is_folder if folder else is_file):
        found = "a folder" if is_folder else "a file" if is_file else "not a regular file"
        raise InputError(f"{path} is {found}; name a {'folder' if folder else 'file'} to write")
    for stream in (1, 2):
        with suppress(OSError):  # it is closed
            if os.path.samestat(state, os.fstat(stream)):
                raise InputError(f"{path} is the output stream of this command; name another file to write")
    return place


def write_json(path, content):
    with whole_file(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")


def write_csv(path, frame):
    """Write a DataFrame; floats at full precision."""
    with whole_file(path) as file:
        frame.to_csv(file, index=False, lineterminator="\n")


def check_outputs(outputs, inputs=()):
    """Call `check_writable` for all `outputs`, and raise InputError if two are the same file or one is among `inputs`.
    None is skipped."""
    outputs = [path for path in outputs if path is not None]
    read = {Path(path).resolve() for path in inputs if path is not None}
    for path in outputs:
        check_writable(path)
    if repeated := first_repeated(outputs):
        raise InputError(f"{repeated} is given for two outputs; give each a different file")
    for path in outputs:
        if Path(path).resolve() in read:
            raise InputError(f"{path} is read and would be overwritten; name another file to write")


def check_writable(path):
    """Raise InputError if no file can be written at `path`."""
    if str(path) in ("", ".") or str(path).endswith("/"):
        raise InputError(f"{str(path)!r} is not the name of a file to write; give one")
    path = Path(path)
    try:
        place = destination(path)
        folder = next(folder for folder in place.parents if folder.exists())
        if not folder.is_dir():
            raise InputError(f"cannot write {path}: {folder} is not a folder")
        tempfile.TemporaryFile(dir=folder).close()  # os.access is always true for root
        place.with_name(f".{place.name}.part").exists()  # raises if the name is too long
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a writable place") from error


def first_repeated(paths):
    """Return the first path to the same file as an earlier one, or None."""
    real = [Path(path).resolve() for path in paths]
    return next((path for number, path in enumerate(paths) if real[number] in real[:number]), None)


def is_stem(text):
    """Return whether `text` plus an ending is a usable file name: printable, without slashes, not too long."""
    plain = text == text.strip() and text.isprintable() and not set(text) & set("/\\")
    return plain and text not in ("", ".", "..") and len(text.encode()) <= 240  # file systems allow 255


def nfc(text):
    """Return `text` in composed Unicode: macOS writes é in file names as e and an accent, tables mostly do not."""
    return unicodedata.normalize("NFC", text)


def check_name(name):
    """Raise InputError unless a run's folder can be named `name`."""
    if not is_stem(name):
        raise InputError(f"--name {name!r} is not usable as a folder's name; use letters, digits, - and _")

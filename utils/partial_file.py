"""The file that a complete one is made of: where the disk has no room for it, it tells how much room it would have needed."""

import errno
import io
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import data_size

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's quota, or the size of one file is exhausted


class Part(io.RawIOBase):
    """A file written once from beginning to end.

    When there is no room for it, at whatever moment, it gives back what it took and goes on counting what it is given, so
    that whoever writes need not notice. `error` is then the OSError, and `size` in the end the bytes of the whole. Other
    OSErrors are raised. It has no file descriptor: some libraries would write past it.
    """

    def __init__(self, path):
        self.path, self.size, self.error, self._file = path, 0, None, None

    def create(self):
        """Make the file and the folders it lies in."""
        with self._noting():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_alone(self.path)

    def writable(self):
        return True

    def write(self, data):
        length = memoryview(data).nbytes
        if not self.error:
            with self._noting():
                length = self._file.write(data)  # perhaps less, then the rest comes again
        self.size += length
        return length

    def move_to(self, path):
        """Make the file safe on the disk, then let it take the place of the one at `path`, and make that safe too."""
        if not self.error:
            with self._noting():
                os.fsync(self._file.fileno())
                os.replace(self.path, path)
                moved, self._file = self._file, None
                moved.close()
                _sync_folder(path.parent)

    def remove(self):
        """Remove the file where it still lies beside its place."""
        if self._file:  # else it is another's
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            with suppress(OSError):
                self._file.close()

    @contextmanager
    def _noting(self):
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self.error = error
            self.remove()


def _open_alone(path):
    """Open a new or left-over file at `path` for writing, as the only process that does. Raises BlockingIOError otherwise."""
    while True:
        file = open(path, "ab", buffering=0, opener=_open_regular)  # noqa: SIM115
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                file.truncate(0)
                return file
        except BlockingIOError as error:
            file.close()
            raise BlockingIOError(error.errno, "another process is writing it") from None
        except FileNotFoundError:
            pass  # it was put in its place meanwhile: what is open here may be the complete file
        except OSError:  # a file system without locks
            file.truncate(0)
            return file
        file.close()


def _open_regular(path, flags):
    """Open a regular file only: not where a link leads, and without waiting for a pipe's reader."""
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path} is no regular file")
    return handle


def opened(part, mode):
    """The file object that writes to `part` in mode ``w`` (UTF-8) or ``wb``."""
    buffered = io.BufferedWriter(part)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8", newline="")


def no_room(path, size, error):
    """The sentence for a file of `size` bytes that an OSError of `NO_ROOM` kept from `path`."""
    if error.errno == errno.ENOSPC:
        folder = next(folder for folder in Path(os.path.realpath(path)).parents if folder.is_dir())
        free = shutil.disk_usage(folder).free
        why = f"{data_size(free)} are free on the disk" + (", but not for one more file" if free > size else "")
    else:
        why = "more than the quota leaves" if error.errno == errno.EDQUOT else "more than a file may take up here"
    return f"cannot write {path}: it needs {data_size(size)}, {why}; free the place or choose another"


def _sync_folder(folder):
    """Make the names in a folder safe, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

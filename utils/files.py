"""Files appear whole or not at all: written beside their place, flushed to disk, then renamed."""

import json
import os
import shutil
import stat
import tempfile
import unicodedata
from contextlib import contextmanager
from pathlib import Path

from utils.errors import InputError
from utils.partial_file import Part, no_room, opened


@contextmanager
def whole_file(path, mode="w"):
    """Open `path` for writing (``w``, UTF-8, or ``wb``) so that readers see the old file or the complete new one, never a part.
    Where `path` is a symbolic link it stays one: the file it leads to is written.

    Raises InputError when the place cannot be written; where room is wanting, after the body, since then it is known how much.
    On any exception in the body the old file stays as it was.
    """
    path, place = Path(path), destination(path)
    part = Part(
        place.with_name(f".{place.name}.part")
    )  # the same name each time: what a killed process left is overwritten
    try:
        part.create()
        with opened(part, mode) as file:
            yield file
            file.flush()
            destination(path)  # that it can still be replaced: hours may have passed
            part.move_to(place)
        if part.error:
            raise InputError(no_room(path, part.size, part.error)) from part.error
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); free the place or choose another"
        ) from error
    finally:
        part.remove()


@contextmanager
def whole_folder(path):
    """Make a folder that appears at `path` whole or not at all: yields an empty one beside it, to be filled. What was at `path` is
    replaced, and on any exception stays as it was. Where `path` is a symbolic link it stays one."""
    path = destination(path, folder=True)
    part, old = (path.with_name(f".{path.name}.{what}") for what in ("part", "old"))
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
    """Where a file (or a folder) that is to be called `path` belongs: the place itself, behind all symbolic links, where
    something of its kind or nothing may be.

    Raises InputError where it is anything else, which a rename would destroy: a device, a pipe, /dev/stdout and what it leads to.
    """
    try:
        place = Path(os.path.realpath(path))
        if place.is_symlink():
            raise InputError(f"{path} is a link that leads back to itself; name a file to write")
        state = os.stat(path)
        printed = [os.fstat(stream) for stream in (1, 2) if _is_open(stream)]
    except (FileNotFoundError, NotADirectoryError):
        return place
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a writable place") from error
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(state.st_mode):
        kind = (
            "a folder" if stat.S_ISDIR(state.st_mode) else "a file" if folder and place.is_file() else "no regular file"
        )
        raise InputError(f"{path} is {kind}; name a {'folder' if folder else 'file'} to write")
    if any(os.path.samestat(state, stream) for stream in printed):
        raise InputError(f"{path} is where this command prints to; name another file to write")
    return place


def _is_open(stream):
    try:
        os.fstat(stream)
    except OSError:
        return False
    return True


def write_json(path, content):
    with whole_file(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")


def write_csv(path, frame):
    """Write a DataFrame. Floats keep every digit they need to be read back to the same value."""
    with whole_file(path) as file:
        frame.to_csv(file, index=False, lineterminator="\n")


def first_repeated(paths):
    """The first path that names the same file as an earlier one, or None."""
    seen = set()
    for path in paths:
        real = Path(path).resolve()
        if real in seen:
            return path
        seen.add(real)
    return None


def is_stem(text):
    """Can files be called `text` and an ending? Only printable, no folder in it, and room for the ending in 255 bytes."""
    return (
        text == text.strip()
        and text not in ("", ".", "..")
        and text.isprintable()
        and not set(text) & set("/\\")
        and len(text.encode()) <= 240
    )


def nfc(text):
    """`text` in composed Unicode. macOS writes é in names of files as e and an accent, tables mostly as one character."""
    return unicodedata.normalize("NFC", text)


def check_name(name):
    """Raise InputError unless a run can be called `name`: it becomes a folder."""
    if not is_stem(name):
        raise InputError(f"--name {name!r} is not usable as a folder's name; use letters, digits, - and _")


def check_outputs(outputs, inputs=()):
    """`check_writable` for each of `outputs` (None: not asked for); also refuse two that are one file, and one that would
    overwrite what is read."""
    outputs = [path for path in outputs if path is not None]
    for path in outputs:
        check_writable(path)
    if repeated := first_repeated(outputs):
        raise InputError(f"{repeated} is named for two outputs; give each a file of its own")
    read = {Path(path).resolve() for path in inputs if path is not None}
    for path in outputs:
        if Path(path).resolve() in read:
            raise InputError(f"{path} is read and would be overwritten; name another file to write")


def check_writable(path):
    """Raise InputError now if a file at `path` could not be written later. Leaves nothing behind, creates no folder."""
    if str(path) in ("", ".") or str(path).endswith("/"):
        raise InputError(f"{str(path)!r} is no name of a file to write; give one")
    path = Path(path)
    try:
        place = destination(path)
        folder = place.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise InputError(f"cannot write {path}: {folder} is not a folder")
        # Asking os.access is not enough: root may "write" to a read-only file system. Only trying tells.
        tempfile.TemporaryFile(dir=folder).close()
        place.with_name(f".{place.name}.part").exists()  # raises where the name is too long
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a writable place") from error

"""Are the competition's files in input/? What is missing is fetched.

    python -m utils.kaggle.fetch              # looks, fetches what is missing
    python -m utils.kaggle.fetch --check      # only looks

Wanted are train.csv, sample_submission.csv, and the folders train/ and test/
with four channels of each Id in them. Archives that lie there (train.zip,
test.zip, or the whole competition's) are unpacked; others are fetched with the
official client (pip install kaggle; kaggle auth login), from an account that
has accepted the competition's rules. Unpacking goes on where it was stopped.
"""

import argparse
import os
import re
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from utils.cli import run_script
from utils.data.images import CHANNELS, ChannelSet, find_files
from utils.data.labels import load_classes, read_labels
from utils.data.tables import check_ids, read_table
from utils.errors import InputError, data_size, first_line, listing, plural
from utils.files import destination
from utils.kaggle import COMPETITION, TABLES

ARCHIVES = {"train.zip": 14e9, "test.zip": 4.4e9}  # bytes, about; the pictures in them take as much again
WHOLE = f"{COMPETITION}.zip"
RULES = f"https://www.kaggle.com/c/{COMPETITION}/rules"
FETCHING = ".fetching"
BY_HAND = "or put Kaggle's files there yourself, as input/README.md says"


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.kaggle.fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", default="input", metavar="FOLDER", help="where they belong (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="fetch nothing, only look")
    return parser.parse_args()


def main():
    args = parse_args()
    folder = Path(args.to)
    if not args.check:
        provide(folder)
    if missing := lacking(folder):
        raise InputError(f"{folder} lacks {listing(missing)}; fetch them with python -m utils.kaggle.fetch, {BY_HAND}")
    train, test = check(folder)
    print(f"{folder}: {train:,} labelled samples in train, {test:,} in test, four channels each")


def lacking(folder):
    """Which of the four things wanted are not there: names of files and folders."""
    return [name for name in (*TABLES, "train/", "test/") if not _there(folder / name)]


def _there(path):
    """Does the file exist, or the folder with something in it and nothing left to be put there?"""
    return path.is_file() or path.is_dir() and not _unfinished(path).exists() and any(os.scandir(path))


def check(folder):
    """Has every Id of the two tables its four channels? -> how many samples train and test have. Raises InputError naming those
    that have not."""
    labels = read_labels(folder / "train.csv", load_classes("hpa"))
    sample = read_table(folder / "sample_submission.csv", ["Id", "Predicted"], what="Kaggle's sample submission")
    check_ids(folder / "sample_submission.csv", sample["Id"])
    for name, table in (("train", labels), ("test", sample)):
        try:
            find_files([folder / name], table["Id"].tolist(), ChannelSet(tuple(CHANNELS.values())))
        except InputError as error:
            raise InputError(
                f"{error}; unpack {name}.zip again: put it into {folder} and delete {folder / name}"
            ) from None
    return len(labels), len(sample)


def provide(folder):
    """Unpack the archives that are there and fetch what is missing then. A folder is not there before it is whole."""
    if lacking(folder) and (folder / WHOLE).is_file():
        unpack(folder / WHOLE, folder)
    for name in (*TABLES, *ARCHIVES):
        wanted = folder / name.replace(".zip", "")
        if _there(wanted):
            continue
        if not ((folder / name).is_file() or (folder / f"{name}.zip").is_file()):
            download(name, folder)
        for archive in (folder / name, folder / f"{name}.zip"):  # the client packs some tables
            if archive.suffix == ".zip" and archive.is_file():
                unpack(archive, folder)
        if not _there(wanted):
            raise InputError(f"{folder / name} holds no {wanted.name}; delete it and fetch it again, {BY_HAND}")


def download(name, folder):
    """Fetch one of the competition's files with the official client. Raises InputError where it is not there or fails."""
    client = shutil.which("kaggle")
    if not client:
        raise InputError(
            f"{folder} lacks {name} and there is no kaggle client to fetch it; pip install kaggle, kaggle auth login, {BY_HAND}"
        )
    need, free = 2 * ARCHIVES.get(name, 0), shutil.disk_usage(_existing(folder)).free
    if free < need:
        raise InputError(
            f"{folder} has {data_size(free)} free, {name} and what is in it need about {data_size(need)}; make room"
        )
    beside = folder / FETCHING  # a file that is cut short never gets its place; the client goes on with it
    beside.mkdir(parents=True, exist_ok=True)
    command = [client, "competitions", "download", "-c", COMPETITION, "-f", name, "-p", str(beside)]
    print("$ kaggle", *command[1:], flush=True)
    code, said = _in_view(command)
    made = [beside / made for made in (name, f"{name}.zip") if (beside / made).is_file()]
    if code or not made:
        locked = [line for line in said if any(word in line for word in ("401", "403", "Authentication", "Forbidden"))]
        mend = f"log in with kaggle auth login and accept {RULES}" if locked else "try again"
        why = first_line("\n".join(locked or reversed(said)))  # what went wrong comes last
        raise InputError(f"the kaggle client did not fetch {name} ({why}); {mend}, {BY_HAND}")
    for path in made:
        place = destination(folder / path.name)
        try:
            os.replace(path, place)
        except OSError as error:  # a link to another disk, say
            raise InputError(f"{path} cannot be moved to {place} ({error.strerror}); move it there yourself") from error
    if not any(os.scandir(beside)):
        beside.rmdir()


def _in_view(command):
    """Run a command and show what it prints as it comes, a progress bar too: -> exit code, the last lines."""
    said = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        while chunk := os.read(run.stdout.fileno(), 4096):
            text = chunk.decode(errors="replace")
            print(text, end="", flush=True)
            said = (said + text)[-20_000:]
    return run.returncode, re.split(r"[\r\n]+", said.strip())


def _existing(folder):
    return next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())


def unpack(archive, folder):
    """Unpack Kaggle's archive: tables and further archives into `folder`, pictures into its train/ or test/, whatever folder
    they have in the archive. Nothing that is there already is replaced, and what a stopped unpacking has left in full is passed
    over. Raises InputError where the archive is damaged or the disk too small."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [(member, place) for member in packed.infolist() if (place := _place(member, archive))]
            there = {top for top in {place.parts[0] for _, place in members} if _there(folder / top)}
            todo = [
                (member, _beside(folder, place))
                for member, place in members
                if place.parts[0] not in there
                and not any(_whole(path, member.file_size) for path in (folder / place, _beside(folder, place)))
            ]
            need, free = sum(member.file_size for member, _ in todo), shutil.disk_usage(folder).free
            if need > free:
                raise InputError(
                    f"{archive} needs {data_size(need)} and {data_size(free)} are free; make room, what is unpacked stays"
                )
            for member, target in tqdm(todo, desc=f"unpacking {archive.name}", unit="file", disable=None):
                _extract(packed, member, target)
        for name in ("train", "test"):
            _finish(_unfinished(folder / name), folder / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} is damaged ({first_line(error)}); delete it and fetch it again") from None
    except OSError as error:
        raise InputError(f"{archive} cannot be unpacked ({error.strerror or error}); mend that, then go on") from None
    print(f"{archive} unpacked, {plural(len(members), 'file')}; it can be deleted")


def _place(member, archive):
    """Where a member belongs, relative to the folder: a Path, or None for what is not wanted."""
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    if member.is_dir() or not parts:
        return None
    name = parts[-1]
    if name in TABLES or name in ARCHIVES:
        return Path(name)
    within = [part for part in (*parts[:-1], archive.stem) if part in ("train", "test")]
    is_image = name.endswith(
        tuple(f"_{colour}.{kind}" for colour in CHANNELS.values() for kind in ("png", "jpg", "tif"))
    )
    return Path(within[0], name) if within and is_image and not name.startswith(".") else None


def _unfinished(folder):
    """Where pictures are gathered until all are there: beside their folder, where that is a link beside what it leads to."""
    folder = destination(folder, folder=True)
    return folder.with_name(f".{folder.name}.unpacking")


def _beside(folder, place):
    return folder / place if len(place.parts) == 1 else _unfinished(folder / place.parts[0]) / place.name


def _whole(target, size):
    return target.is_file() and target.stat().st_size == size


def _extract(packed, member, target):
    target = destination(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with packed.open(member) as source, open(part, "wb") as file:  # checked against its sum at its end
        shutil.copyfileobj(source, file, 2**20)
    os.replace(part, target)


def _finish(gathered, folder):
    """All pictures are there: into their place, beside those that are there already."""
    if not gathered.exists():
        return
    folder = destination(folder, folder=True)
    if folder.is_dir() and not any(os.scandir(folder)):
        folder.rmdir()
    if not folder.exists():
        os.replace(gathered, folder)
        return
    for path in sorted(gathered.iterdir()):
        os.replace(path, destination(folder / path.name))
    gathered.rmdir()


if __name__ == "__main__":
    run_script(main)

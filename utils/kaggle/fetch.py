"""Check that the competition's files are in input/, and download missing ones.

    python -m utils.kaggle.fetch              # check, download missing files
    python -m utils.kaggle.fetch --check      # only check

The files are train.csv, sample_submission.csv, and the folders train/ and
test/ with four channels of each Id. Archives in input/ (train.zip, test.zip,
or that of the whole competition) are unpacked. Others are downloaded with the
official client (pip install kaggle; kaggle auth login); the account must have
accepted the competition's rules. Interrupted unpacking resumes.
"""

import os
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from utils.cli import check_least, option_parser, run_script
from utils.data.image_files import find_files
from utils.data.images import CHANNELS, ENDINGS, ChannelSet, image_size
from utils.data.labels import load_classes, read_labels
from utils.data.tables import check_ids, read_table
from utils.errors import InputError, data_size, first_line, listing, plural
from utils.files import destination
from utils.kaggle import COMPETITION, SIDE, TABLES

ARCHIVES = {"train.zip": 14e9, "test.zip": 4.4e9}  # approximate bytes; the unpacked images need the same again
IMAGE_ENDS = tuple(f"_{channel}.{ending}" for channel in CHANNELS.values() for ending in ENDINGS)
RULES = f"https://www.kaggle.com/c/{COMPETITION}/rules"
FETCHING = ".fetching"  # folder of incomplete downloads, which the client resumes
BY_HAND = "or put Kaggle's files there yourself, see input/README.md"


def main():
    parser = option_parser(__doc__, "utils.kaggle.fetch")
    parser.add_argument("--to", default="input", metavar="FOLDER", help="folder of the files (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="check only, download nothing")
    crop = "refuse images smaller than N pixels, on which training with crops would fail; 0: any (default: %(default)s)"
    parser.add_argument("--crop", type=int, default=0, metavar="N", help=crop)
    args = parser.parse_args()
    check_least(args, crop=0)
    folder = Path(args.to)
    if args.crop:
        check_crop(folder, args.crop)
    if not args.check:
        provide(folder)
    if missing := find_missing(folder):
        raise InputError(f"{folder} lacks {listing(missing)}; fetch them with python -m utils.kaggle.fetch, {BY_HAND}")
    train, test = check(folder)
    print(f"{folder}: {train:,} labelled samples in train, {test:,} in test, four channels each")


def check_crop(folder, crop):
    """Raise InputError if crops of `crop` pixels do not fit into the images in train/ and test/, or would not into those that
    are still to be fetched."""
    for name in ("train", "test"):
        images = (path for path in folder.glob(f"{name}/*") if path.name.endswith(IMAGE_ENDS) and path.name[0] != ".")
        first = next(images, None)
        side = min(image_size(first)) if first else SIDE
        if side < crop:
            places = f"{folder / 'train'} and {folder / 'test'}"
            raise InputError(
                f"crops of {crop} pixels do not fit into the competition's images of {side} in {name}; give --size {side}, "
                f"or --fit resize, or unpack train_full_size.7z and test_full_size.7z into {places}"
            )


def find_missing(folder):
    """-> the names of missing tables and image folders."""
    return [name for name in (*TABLES, "train/", "test/") if not _exists(folder / name)]


def _exists(path):
    return path.is_file() or path.is_dir() and any(os.scandir(path))


def check(folder):
    """-> number of samples in train and in test. Raises InputError if an Id of the tables lacks a channel."""
    labels = read_labels(folder / "train.csv", load_classes("hpa"))
    sample = read_table(folder / "sample_submission.csv", ["Id", "Predicted"], what="Kaggle's sample submission")
    check_ids(folder / "sample_submission.csv", sample["Id"])
    for name, table in (("train", labels), ("test", sample)):
        try:
            find_files([folder / name], table["Id"].tolist(), ChannelSet(tuple(CHANNELS.values())))
        except InputError as error:
            fix = f"unpack {name}.zip again: put it into {folder} and delete {folder / name}"
            raise InputError(f"{error}; {fix}") from None
    return len(labels), len(sample)


def provide(folder):
    """Unpack existing archives and download what is still missing."""
    whole = folder / f"{COMPETITION}.zip"
    if find_missing(folder) and whole.is_file():
        unpack(whole, folder)
    for name in (*TABLES, *ARCHIVES):
        wanted = folder / name.replace(".zip", "")
        archives = [path for path in (folder / name, folder / f"{name}.zip") if path.suffix == ".zip"]
        if not _exists(wanted) and not any(path.is_file() for path in archives):
            download(name, folder)
        for archive in archives:  # the client zips some tables
            if not _exists(wanted) and archive.is_file():
                unpack(archive, folder)
        if not _exists(wanted):
            raise InputError(f"{folder / name} does not contain {wanted.name}; delete it and fetch it again, {BY_HAND}")


def download(name, folder):
    """Download one of the competition's files with the official client. Raises InputError if that fails."""
    client = shutil.which("kaggle")
    if not client:
        install = "pip install kaggle, kaggle auth login"
        raise InputError(f"{folder} lacks {name} and there is no kaggle client to fetch it; {install}, {BY_HAND}")
    partial = folder / FETCHING
    partial.mkdir(parents=True, exist_ok=True)
    check_room(folder, f"{name} with its content", 2 * ARCHIVES.get(name, 0))
    command = ["kaggle", "competitions", "download", "-c", COMPETITION, "-f", name, "-p", str(partial)]
    print("$", *command, flush=True)
    done = subprocess.run([client, *command[1:]])
    made = [path for path in (partial / name, partial / f"{name}.zip") if path.is_file()]
    if done.returncode or not made:
        fix = f"log in with kaggle auth login, accept {RULES} and try again"
        raise InputError(f"the kaggle client did not fetch {name}, for the reason above; {fix}, {BY_HAND}")
    for path in made:
        shutil.move(path, destination(folder / path.name))
    if not any(os.scandir(partial)):
        partial.rmdir()


def unpack(archive, folder):
    """Unpack Kaggle's archive: tables and inner archives into `folder`, images into its train/ or test/, whatever the
    archive's folders. Existing files are kept. train/ and test/ appear when complete; interrupted unpacking resumes.
    Raises InputError if the archive is damaged or the disk too small."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [(member, _place(member, archive, folder)) for member in packed.infolist()]
            members = [(member, place) for member, place in members if place]
            todo = [(m, place) for m, place in members if not place.is_file() or place.stat().st_size != m.file_size]
            check_room(folder, archive, sum(member.file_size for member, _ in todo))
            for member, place in tqdm(todo, desc=f"unpacking {archive.name}", unit="file", disable=None):
                _extract(packed, member, place)
        for target in (folder / "train", folder / "test"):
            gathered = _unfinished(target)
            if any(place.parent == gathered for _, place in members):
                target = destination(target, folder=True)
                if target.exists():
                    target.rmdir()  # it is empty
                os.replace(gathered, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} is damaged ({first_line(error)}); delete it and fetch it again") from None
    except OSError as error:
        raise InputError(f"{archive} cannot be unpacked ({error.strerror or error}); fix that and try again") from None
    print(f"{archive} unpacked, {plural(len(members), 'file')}; it can be deleted")


def _place(member, archive, folder):
    """-> the path to which a member of an archive is unpacked; None if it is not needed or exists."""
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    if member.is_dir() or not parts:
        return None
    name = parts[-1]
    if name in TABLES or name in ARCHIVES:
        return None if _exists(folder / name) else folder / name
    within = [part for part in (*parts[:-1], archive.stem) if part in ("train", "test")]
    if not within or name.startswith(".") or not name.endswith(IMAGE_ENDS) or _exists(folder / within[0]):
        return None
    return _unfinished(folder / within[0]) / name


def _unfinished(folder):
    """-> the folder that collects images until all are unpacked, beside their folder or the target of its link."""
    folder = destination(folder, folder=True)
    return folder.with_name(f".{folder.name}.unpacking")


def check_room(folder, what, need):
    """Raise InputError unless `need` bytes are free on the disk of `folder`. what: their content, for the message."""
    if (free := shutil.disk_usage(folder).free) < need:
        raise InputError(f"{what} needs about {data_size(need)} and {folder} has {data_size(free)} free; make room")


def _extract(packed, member, place):
    place = destination(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.part")
    with packed.open(member) as source, open(part, "wb") as file:  # zipfile verifies the checksum at the end
        shutil.copyfileobj(source, file, 2**20)
    os.replace(part, place)


if __name__ == "__main__":
    run_script(main)

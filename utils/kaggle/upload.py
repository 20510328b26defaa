"""Prepare an upload to Kaggle: a data set with the kit, and a notebook

    python -m utils.kaggle.upload --user NAME
    python -m utils.kaggle.upload runs/chen --user NAME
    python -m utils.kaggle.upload --user NAME --folds input/folds.csv \\
        --weights input/weights/se_resnext50_32x4d-a260b3a4.pth

kaggle_upload/dataset/ is the data set: kit/ (the scripts), wheels/ (packages
that Kaggle's image lacks), weights/, runs/<name>/fold<k>/ of each RUN, and
folds.csv. kaggle_upload/kernel/ is the kernel that uses it. Each has its
metadata file; the commands that upload them are printed.

From a run, files for prediction and thresholds are included, and from an
unfinished fold also those to resume its training.
"""

import json
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from utils.cli import option_parser, run_script
from utils.data.tables import read_table
from utils.engine import checkpoint
from utils.errors import InputError, data_size, listing, plural
from utils.files import check_name, check_writable, is_stem, whole_folder, write_json
from utils.kaggle import COMPETITION, wheels
from utils.kaggle.attached import MANIFEST, sizes_below
from utils.runs import unlike_training
from utils.runs.run_folder import ANY_WEIGHTS, fold_files, read_fold
from utils.safe_load import file_size

ROOT = Path(__file__).parent.parent.parent
KIT = ("*.py", "utils/**/*.py", "utils/**/*.csv", "requirements.txt")
# Files of a fold, and further ones of an unfinished fold:
TABLES = ("rows.csv", "oof.csv", "log.csv", "skipped.csv")
KEPT = (*ANY_WEIGHTS, "config.json", unlike_training.FILE, *TABLES, "validation/*.npy")
TO_RESUME = ("last.pt", "steps.csv")
UNPACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")  # Kaggle would unpack such files
NOTEBOOK = "kaggle_kernel.ipynb"
# From github.com/Kaggle/kaggle-cli, docs/datasets_metadata.md and docs/kernels_metadata.md. The client (2.2) requires
# at least six characters for a data set's name, although the page says three; a kernel's name has at most 50 too.
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
KERNEL = "-kernel"  # suffix of the kernel's name
LEAST, MOST = 6, 50 - len(KERNEL)


def main():
    parser = option_parser(__doc__, "utils.kaggle.upload")
    arg = parser.add_argument
    several = {"action": "append", "default": []}
    arg("runs", nargs="*", metavar="RUN", help="folders of runs whose folds to predict with or to resume")
    arg("--user", required=True, metavar="NAME", help="your name on Kaggle")
    arg("--weights", metavar="FILE", help="file of pretrained weights; may be repeated", **several)
    arg("--folds", metavar="CSV", help="folds.csv to upload (default: the kernel makes one)")
    arg("--wheel", metavar="PACKAGE", help="further package to upload as a wheel; may be repeated", **several)
    arg("--name", default="hpa-kit", help="name of the data set on Kaggle (default: %(default)s)")
    arg("--go-on-from", metavar="USER/KERNEL", help="attach that kernel's output; may be repeated", **several)
    arg("--overwrite", action="store_true", help="replace an earlier output of this command")
    arg("-o", "--out", default="kaggle_upload", help="folder to write (default: %(default)s)")
    args = parser.parse_args()
    build(**vars(args))
    print_contents(Path(args.out))
    if not args.weights and not args.runs:
        print('no weights: recipes with pretrained weights need --weights, or OPTIONS = "--weights none" in the kernel')
    print_commands(Path(args.out), f"{args.user}/{args.name}")


def build(out, user, name, runs=(), weights=(), folds=None, go_on_from=(), overwrite=False, wheel=(), with_wheels=True):
    """Write the folder `out`, complete or not at all. The arguments are the command's options; with_wheels: False if no
    package is missing. Raises InputError for files and names that cannot be uploaded."""
    out = Path(out)
    check_names(user, name, go_on_from)
    check_place(out, overwrite)
    files = {f"kit/{path.relative_to(ROOT).as_posix()}": path for pattern in KIT for path in ROOT.glob(pattern)}
    files |= weight_files(weights) | run_files(runs)
    if folds:
        read_table(folds, ["Id", "Target", "fold"], what="a table of folds")
        files["folds.csv"] = Path(folds)
    try:
        with whole_folder(out) as part:
            dataset, kernel = part / "dataset", part / "kernel"
            for place, source in files.items():
                (dataset / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, dataset / place)
            (dataset / "kit/commit.txt").write_text(f"{commit() or 'unknown'}\n")
            if with_wheels:
                (dataset / "wheels").mkdir()
                wheels.make(ROOT / "requirements.txt", dataset / "wheels", wheel)
            write_json(dataset / MANIFEST, {"files": sizes_below(dataset)})
            write_json(dataset / "dataset-metadata.json", dataset_metadata(user, name))
            kernel.mkdir()
            write_notebook(kernel / NOTEBOOK)
            write_json(kernel / "kernel-metadata.json", kernel_metadata(user, name, go_on_from))
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror or error}); free space or change --out") from error


def check_names(user, name, kernels=()):
    """Raise InputError unless these are valid names on Kaggle: of a user, a data set, and kernels (user/name)."""
    if not (SLUG.fullmatch(user) and 2 <= len(user) <= 50):
        raise InputError(f"--user {user!r} is not a valid Kaggle user name; give the one in kaggle.com/<user>")
    if not (SLUG.fullmatch(name) and LEAST <= len(name) <= MOST):
        rule = f"{LEAST} to {MOST} lower-case letters and digits, words joined by -"
        raise InputError(f"--name {name!r} is not a valid data set name on Kaggle; give {rule}")
    for kernel in kernels:
        if not re.fullmatch(f"{SLUG.pattern}/{SLUG.pattern}", kernel):
            raise InputError(f"--go-on-from {kernel!r} is not a kernel; give user/name as in kaggle.com/code/user/name")


def check_place(out, overwrite):
    """Raise InputError unless `out` is new and writable, or, with `overwrite`, an earlier output of this command."""
    check_writable(out / MANIFEST)
    if not out.exists():
        return
    strange = sorted({path.name for path in out.iterdir()} - {"dataset", "kernel"})
    if strange or not (out / "dataset" / MANIFEST).is_file():
        found = listing(strange) or "files"
        raise InputError(f"{out} contains {found} that this command did not write; choose another --out")
    if not overwrite:
        raise InputError(f"{out} exists; give --overwrite to replace it, or choose another --out")


def commit():
    """-> the kit's git commit, with -dirty appended if tracked files have changed; None without git."""
    with suppress(OSError):
        words = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        return subprocess.run(words, capture_output=True, errors="replace").stdout.strip() or None


def weight_files(paths):
    """-> {weights/<name>: file}."""
    files = {}
    for path in map(Path, paths):
        file_size(path)  # raises InputError if it cannot be read
        if not is_stem(path.name) or path.name.startswith(".") or path.suffix.lower() in UNPACKED:
            raise InputError(f"{path} cannot be uploaded: Kaggle hides or unpacks files with such names; rename it")
        if f"weights/{path.name}" in files:
            raise InputError(f"two files of weights are named {path.name}; rename one")
        files[f"weights/{path.name}"] = path
    return files


def run_files(runs):
    """-> {runs/<name>/fold<k>/<file>: file} of all folds that can predict or resume."""
    files = {}
    for run in map(Path, runs):
        name = run.resolve().name
        check_name(name)
        if any(place.startswith(f"runs/{name}/") for place in files):
            raise InputError(f"two runs are named {name}; rename the folder of one")
        best, last = fold_files(run, *ANY_WEIGHTS), fold_files(run, "last.pt")
        for path in best:
            checkpoint.load(path)
            read_fold(path.parent)
        unfinished = [path for path in last if not checkpoint.load(path).get("finished")]
        if not best + unfinished:
            raise InputError(f"{run} contains no fold<k>/best.safetensors; give a run's folder that train.py wrote")
        for folder in dict.fromkeys(path.parent for path in best + unfinished):
            patterns = KEPT + (TO_RESUME if folder / "last.pt" in unfinished else ())
            for path in (path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()):
                files[f"runs/{name}/{folder.name}/{path.relative_to(folder).as_posix()}"] = path
    return files


def dataset_metadata(user, name):
    """-> the content of dataset-metadata.json, with exactly one licence. The client creates it private by default."""
    title = name.replace("-", " ")  # Kaggle derives the address from it
    return {"title": title, "id": f"{user}/{name}", "licenses": [{"name": "other"}]}


def kernel_metadata(user, name, sources=()):
    """-> the content of kernel-metadata.json: a private notebook with GPUs and without internet, and its inputs."""
    return {
        "id": f"{user}/{name}{KERNEL}",
        "title": (name + KERNEL).replace("-", " "),
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",  # T4 x2; the default is a P100, too old for recent torch
        "dataset_sources": [f"{user}/{name}"],
        "competition_sources": [COMPETITION],
        "kernel_sources": list(sources),
    }


def write_notebook(path):
    """Write the kernel's notebook without outputs."""
    notebook = json.loads((ROOT / "notebooks" / NOTEBOOK).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    write_json(path, notebook)


def print_contents(out):
    sizes = sizes_below(out / "dataset")
    for top in dict.fromkeys(place.split("/")[0] for place in sizes):
        own = {place: size for place, size in sizes.items() if place.split("/")[0] == top}
        print(f"{data_size(sum(own.values())):>8}  {plural(len(own), 'file'):>10}  {out / 'dataset' / top}")
        for place, size in own.items():
            if top in ("wheels", "weights") or place.endswith((".pt", ".safetensors")):
                print(f"{'':22}{data_size(size):>8}  {place}")
    print(f"{data_size(sum(sizes.values())):>8}  {plural(len(sizes), 'file'):>10}  in all")


def print_commands(out, name):
    dataset, kernel = out / "dataset", out / "kernel"
    print(f"""
Set MODE, RECIPE and FOLD in the first cell of {kernel / NOTEBOOK}, accept the competition's rules, and run
with Kaggle's client (pip install kaggle; kaggle auth login):

kaggle datasets create -p {dataset} --dir-mode zip          # the first time; later:
kaggle datasets version -p {dataset} --dir-mode zip -m new
kaggle datasets status {name}                               # repeat until ready
kaggle kernels push -p {kernel}
kaggle kernels status {name}{KERNEL}
kaggle kernels output {name}{KERNEL} -p kaggle_output""")


if __name__ == "__main__":
    run_script(main)

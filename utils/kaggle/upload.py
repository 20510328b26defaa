"""Make what is to be uploaded to Kaggle: kit, wheels, weights, runs; a notebook

    python -m utils.kaggle.upload --user NAME
    python -m utils.kaggle.upload runs/chen --user NAME
    python -m utils.kaggle.upload --user NAME --folds input/folds.csv \\
        --weights input/weights/se_resnext50_32x4d-a260b3a4.pth

kaggle_upload/dataset/ becomes a data set of yours: kit/ (the scripts), wheels/
(the packages that Kaggle's image lacks), weights/, runs/<name>/fold<k>/ of the
RUNs, folds.csv. kaggle_upload/kernel/ becomes the kernel that uses it. Each
has its metadata file, and the commands that upload them are printed.

Of a run what predicting and thresholds need is taken along, and of a fold that
is not finished also what it needs to go on there.
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
from utils.runs.run_folder import ANY_WEIGHTS, fold_files, read_fold
from utils.safe_load import file_size

ROOT = Path(__file__).parent.parent.parent
KIT = ("*.py", "utils/**/*.py", "utils/**/*.csv", "requirements.txt")
KEPT = (*ANY_WEIGHTS, "config.json", "rows.csv", "oof.csv", "log.csv", "skipped.csv", "validation/*.npy")  # of a fold
TO_GO_ON = ("last.pt", "steps.csv")  # of one that is not finished
UNPACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")  # Kaggle would unpack such files
NOTEBOOK = "kaggle_kernel.ipynb"
# Of github.com/Kaggle/kaggle-cli, docs/datasets_metadata.md and docs/kernels_metadata.md. The client itself (2.2) wants
# at least six characters for a data set's name, where the page says three; the kernel's name must fit into 50 too.
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
KERNEL = "-kernel"  # at the end of the kernel's name
LEAST, MOST = 6, 50 - len(KERNEL)


def parse_args():
    parser = option_parser(__doc__, "utils.kaggle.upload")
    arg = parser.add_argument
    several = {"action": "append", "default": []}
    arg("runs", nargs="*", metavar="RUN", help="folders of runs: their trained folds, to predict with or to go on")
    arg("--user", required=True, metavar="NAME", help="your name on Kaggle")
    arg("--weights", metavar="FILE", help="pretrained weights that --weights looks for; may be repeated", **several)
    arg("--folds", metavar="CSV", help="a folds.csv to use there (default: the kernel makes one)")
    arg("--wheel", metavar="PACKAGE", help="one more package, missing or outdated there; may be repeated", **several)
    arg("--name", default="hpa-kit", help="of the data set on Kaggle (default: %(default)s)")
    arg("--go-on-from", metavar="USER/KERNEL", help="attach that kernel's output; may be repeated", **several)
    arg("--overwrite", action="store_true", help="replace what this command made before")
    arg("-o", "--out", default="kaggle_upload", help="folder to write (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    build(**vars(args))
    print_contents(Path(args.out))
    if not args.weights and not args.runs:
        print('no weights: recipes that start from ImageNet need --weights here, or OPTIONS = "--weights none" there')
    print_commands(Path(args.out), f"{args.user}/{args.name}")


def build(out, user, name, runs=(), weights=(), folds=None, go_on_from=(), overwrite=False, wheel=(), with_wheels=True):
    """Make the folder `out`, whole or not at all. Arguments as the command's options.

    with_wheels: False for an environment that has all packages. Raises InputError on what cannot be uploaded.
    """
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
        raise InputError(f"cannot write {out} ({error.strerror or error}); free the place or choose another") from error


def check_names(user, name, kernels=()):
    """Raise InputError unless these can be names on Kaggle: of a user, a data set, and kernels as user/name."""
    if not (SLUG.fullmatch(user) and 2 <= len(user) <= 50):
        raise InputError(f"--user {user!r} is no name of a Kaggle user; give what stands in kaggle.com/<user>")
    if not (SLUG.fullmatch(name) and LEAST <= len(name) <= MOST):
        rule = f"{LEAST} to {MOST} small letters and digits, words joined by -"
        raise InputError(f"--name {name!r} cannot be a data set's name on Kaggle; give {rule}")
    for kernel in kernels:
        if not re.fullmatch(f"{SLUG.pattern}/{SLUG.pattern}", kernel):
            address = "give user/name as in its address, kaggle.com/code/user/name"
            raise InputError(f"--go-on-from {kernel!r} is no kernel; {address}")


def check_place(out, overwrite):
    """Raise InputError unless `out` can be written, and holds at most what this command wrote if `overwrite` is set."""
    check_writable(out / MANIFEST)
    if not out.exists():
        return
    strange = sorted({path.name for path in out.iterdir()} - {"dataset", "kernel"})
    if strange or not (out / "dataset" / MANIFEST).is_file():
        found = listing(strange) or "files"
        raise InputError(f"{out} holds {found} that this command did not write; choose another --out")
    if not overwrite:
        raise InputError(f"{out} exists; give --overwrite to replace it, or choose another --out")


def commit():
    """The kit's commit, with -dirty after it if files that git tracks were changed since; None without git."""
    with suppress(OSError):
        words = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        return subprocess.run(words, capture_output=True, errors="replace").stdout.strip() or None


def weight_files(paths):
    """{weights/<name>: file} of files of weights."""
    files = {}
    for path in map(Path, paths):
        file_size(path)  # raises InputError if it cannot be read
        if not is_stem(path.name) or path.name.startswith(".") or path.suffix.lower() in UNPACKED:
            raise InputError(f"{path} cannot be uploaded: Kaggle hides or unpacks files of such names; rename it")
        if f"weights/{path.name}" in files:
            raise InputError(f"two files of weights are called {path.name}; rename one")
        files[f"weights/{path.name}"] = path
    return files


def run_files(runs):
    """{runs/<name>/fold<k>/<file>: file} of all folds of the runs that can predict or go on."""
    files = {}
    for run in map(Path, runs):
        name = run.resolve().name
        check_name(name)
        if any(place.startswith(f"runs/{name}/") for place in files):
            raise InputError(f"two runs are called {name}; rename the folder of one")
        best, last = fold_files(run, *ANY_WEIGHTS), fold_files(run, "last.pt")
        for path in best:
            checkpoint.load(path)
            read_fold(path.parent)
        unfinished = [path for path in last if not checkpoint.load(path).get("finished")]
        if not best + unfinished:
            raise InputError(f"{run} holds no fold<k>/best.safetensors; give the folder of a run that train.py wrote")
        for folder in dict.fromkeys(path.parent for path in best + unfinished):
            patterns = KEPT + (TO_GO_ON if folder / "last.pt" in unfinished else ())
            for path in (path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()):
                files[f"runs/{name}/{folder.name}/{path.relative_to(folder).as_posix()}"] = path
    return files


def dataset_metadata(user, name):
    """The content of dataset-metadata.json. Private unless it is created with --public; exactly one licence is asked for."""
    title = name.replace("-", " ")  # Kaggle makes the name in the address of it
    return {"title": title, "id": f"{user}/{name}", "licenses": [{"name": "other"}]}


def kernel_metadata(user, name, sources=()):
    """The content of kernel-metadata.json: a private notebook with GPUs and without internet, and what is attached to it."""
    return {
        "id": f"{user}/{name}{KERNEL}",
        "title": (name + KERNEL).replace("-", " "),
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",  # Kaggle's word for its T4 x2; the default is a P100, too old for newer torch
        "dataset_sources": [f"{user}/{name}"],
        "competition_sources": [COMPETITION],
        "kernel_sources": list(sources),
    }


def write_notebook(path):
    """Write the kernel's notebook without what it printed here."""
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
MODE, RECIPE and FOLD stand in the first cell of {kernel / NOTEBOOK}; then, with Kaggle's client (pip install kaggle;
kaggle auth login), and the competition's rules accepted:

kaggle datasets create -p {dataset} --dir-mode zip          # the first time; later:
kaggle datasets version -p {dataset} --dir-mode zip -m new
kaggle datasets status {name}                               # until it says ready
kaggle kernels push -p {kernel}
kaggle kernels status {name}{KERNEL}
kaggle kernels output {name}{KERNEL} -p kaggle_output""")


if __name__ == "__main__":
    run_script(main)

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

import argparse
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import nbformat

from utils.cli import run_script
from utils.errors import InputError, data_size, listing, plural
from utils.files import check_name, check_writable, is_stem, whole_folder, write_json
from utils.kaggle import metadata, wheels
from utils.kaggle.manifest import MANIFEST, sizes_below
from utils.safe_load import file_size

ROOT = Path(__file__).parent.parent.parent
KIT = (":(glob)*.py", "utils", "requirements.txt")  # for git: the scripts of the top folder, not those of tests/
KEPT = (
    "best.safetensors",
    "best.pt",
    "config.json",
    "rows.csv",
    "oof.csv",
    "log.csv",
    "skipped.csv",
    "validation/*.npy",
)  # of a fold
TO_GO_ON = ("last.pt", "steps.csv")  # of one that is not finished
UNPACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")  # Kaggle would unpack such files


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg = parser.add_argument
    arg("runs", nargs="*", metavar="RUN", help="folders of runs: their trained folds, to predict with or to go on")
    arg("--user", required=True, metavar="NAME", help="your name on Kaggle")
    arg(
        "--weights",
        action="append",
        default=[],
        metavar="FILE",
        help="pretrained weights that --weights looks for; may be repeated",
    )
    arg("--folds", metavar="CSV", help="a folds.csv to use there (default: the kernel makes one)")
    arg(
        "--wheel",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="one more package, for an image that lacks it or has it too old; may be repeated",
    )
    arg("--name", default="hpa-kit", help="of the data set on Kaggle (default: %(default)s)")
    arg(
        "--go-on-from",
        action="append",
        default=[],
        metavar="USER/KERNEL",
        help="attach that kernel's output; may be repeated",
    )
    arg("--overwrite", action="store_true", help="replace what this command made before")
    arg("-o", "--out", default="kaggle_upload", help="folder to write (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    metadata.check_user(args.user)
    metadata.check_slug(args.name)
    for source in args.go_on_from:
        metadata.check_kernel(source)
    build(
        args.out, args.user, args.name, args.runs, args.weights, args.folds, args.go_on_from, args.overwrite, args.wheel
    )
    report(Path(args.out), args)


def build(out, user, name, runs=(), weights=(), folds=None, go_on_from=(), overwrite=False, wheel=(), with_wheels=True):
    """Make the folder `out`, whole or not at all. Arguments as the command's options; with_wheels False leaves the wheels out, for
    an environment that has all packages. Raises InputError, before anything is written, on what cannot be uploaded."""
    out = Path(out)
    check_place(out, overwrite)
    wheels.check_names(ROOT / "requirements.txt", wheel)
    files = kit_files() | weight_files(weights) | run_files(runs)
    if folds:
        from utils.data.labels import read_table  # here and below: only what is uploaded asks for pandas and torch

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
            write_json(dataset / "dataset-metadata.json", metadata.dataset(user, name))
            kernel.mkdir()
            write_notebook(kernel / metadata.NOTEBOOK)
            write_json(kernel / "kernel-metadata.json", metadata.kernel(user, name, go_on_from))
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror or error}); free the place or choose another") from error


def check_place(out, overwrite):
    """Raise InputError unless `out` can be written, and holds at most what this command made, which `overwrite` allows to replace."""
    check_writable(out / MANIFEST)
    if out.is_symlink() or out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{out} is a link or holds the working directory; choose another --out")
    if not out.exists():
        return
    if not (out / "dataset" / MANIFEST).is_file():
        raise InputError(f"{out} holds what this command did not write; choose another --out")
    if strange := sorted(set(path.name for path in out.iterdir()) - {"dataset", "kernel"}):
        raise InputError(f"{out} holds {listing(strange)}, which this command did not write; choose another --out")
    if not overwrite:
        raise InputError(f"{out} is there already; give --overwrite to replace it, or choose another --out")


def kit_files():
    """{place in the data set: file} of the kit: what git does not ignore of `KIT`, or where there is no git what is there."""
    found = []
    with suppress(OSError):
        words = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *KIT]
        done = subprocess.run(words, capture_output=True, errors="replace")
        found = [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
    if not found:
        found = [path.relative_to(ROOT).as_posix() for pattern in ("*.py", "utils/**/*.py", "utils/*.csv", "requirements.txt")
                 for path in ROOT.glob(pattern)]  # fmt: skip
    return {f"kit/{name}": ROOT / name for name in sorted(found)}


def commit():
    """The kit's commit, with -dirty after it where files that git tracks were changed since; None without git."""
    with suppress(OSError):
        words = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        return subprocess.run(words, capture_output=True, errors="replace").stdout.strip() or None


def weight_files(paths):
    """{weights/<name>: file} of files of weights."""
    files = {}
    for path in map(Path, paths):
        file_size(path)
        if not is_stem(path.name) or path.name.startswith(".") or path.suffix.lower() in UNPACKED:
            raise InputError(
                f"{path} cannot be uploaded under this name, Kaggle hides or unpacks such files; rename it"
            )
        if f"weights/{path.name}" in files:
            raise InputError(f"two files of weights are called {path.name}; rename one")
        files[f"weights/{path.name}"] = path
    return files


def run_files(runs):
    """{runs/<name>/fold<k>/<file>: file} of all folds of the runs that can predict or go on."""
    from utils.engine import checkpoint
    from utils.runs.run_folder import ANY_WEIGHTS, fold_files, read_fold

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


def write_notebook(path):
    """The kernel's notebook without what it printed here."""
    notebook = nbformat.read(ROOT / "notebooks" / metadata.NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def report(out, args):
    """Print what is in the folders, and the commands that upload them."""
    sizes = sizes_below(out / "dataset")
    for top in dict.fromkeys(place.split("/")[0] for place in sizes):
        own = {place: size for place, size in sizes.items() if place.split("/")[0] == top}
        print(f"{data_size(sum(own.values())):>8}  {plural(len(own), 'file'):>10}  {out / 'dataset' / top}")
        for place, size in own.items():
            if top in ("wheels", "weights") or place.endswith(".pt"):
                print(f"{'':22}{data_size(size):>8}  {place}")
    print(f"{data_size(sum(sizes.values())):>8}  {plural(len(sizes), 'file'):>10}  in all")
    if not args.weights and not args.runs:
        print(
            'no weights: recipes that start from ImageNet need --weights here, or OPTIONS = "--weights none" in the notebook'
        )
    dataset, kernel, name = out / "dataset", out / "kernel", f"{args.user}/{args.name}"
    print(f"""
MODE, RECIPE and FOLD stand in the first cell of {kernel / metadata.NOTEBOOK}; then, with Kaggle's client (pip install kaggle;
kaggle auth login), and the competition's rules accepted:

kaggle datasets create -p {dataset} --dir-mode zip          # the first time; later:
kaggle datasets version -p {dataset} --dir-mode zip -m new
kaggle datasets status {name}                               # until it says ready
kaggle kernels push -p {kernel}
kaggle kernels status {name}{metadata.KERNEL}
kaggle kernels output {name}{metadata.KERNEL} -p kaggle_output""")


if __name__ == "__main__":
    run_script(main)

"""Taking over what earlier kernels, or a training at home, have left: of each fold what has got furthest."""

import shutil
from collections import namedtuple
from pathlib import Path

from utils.data.labels import read_table
from utils.engine import checkpoint
from utils.errors import InputError, listing
from utils.files import whole_folder, write_csv
from utils.runs.run_folder import ANY_WEIGHTS, fold_files

Progress = namedtuple("Progress", "finished epoch step score")  # in this order one is further than another


def progress(folder):
    """How far the fold in `folder` is: Progress, or None where no checkpoint is there. Weights alone is a trained fold's. Raises
    InputError where a checkpoint is damaged."""
    for name in ("last.pt", *ANY_WEIGHTS):
        if (Path(folder) / name).is_file():
            state = checkpoint.load(Path(folder) / name)
            finished = bool(state.get("finished")) if name == "last.pt" else True
            return Progress(finished, state["epoch"], state.get("step", 0), state["score"])
    return None


def take_over(sources, runs, names):
    """Copy each fold of the runs `names` from the folder of `sources` (each with a runs/ in it) where it has got furthest into `runs`,
    whole or not at all, unless it is as far there: -> the sources that gave something. Prints what is taken from where."""
    found = {}
    for source in sources:
        for name in names:
            for folder in {
                path.parent
                for kind in ("last.pt", *ANY_WEIGHTS)
                for path in fold_files(Path(source) / "runs" / name, kind)
            }:
                found.setdefault((name, folder.name), []).append((_sound_progress(folder), source, folder))
    used = []
    for (name, fold), candidates in sorted(found.items()):
        far, source, folder = max(candidates, key=lambda candidate: candidate[0][:3])
        place = Path(runs) / name / fold
        here = progress(place)
        if here is not None and here[:3] >= far[:3]:
            continue
        copy_whole(folder, place)
        used.append(source)
        where = f"epoch {far.epoch}, step {far.step:,}" if not far.finished else "trained"
        print(f"{name}/{fold} taken over from {source}: {where}")
    return list(dict.fromkeys(used))


def _sound_progress(folder):
    try:
        return progress(folder)
    except InputError as error:
        raise InputError(f"{error}; or detach that input") from None


def copy_whole(source, place):
    """Copy a folder to `place`, in which it appears whole; what was there goes. Raises InputError where it cannot be written."""
    try:
        with whole_folder(place) as part:
            shutil.copytree(
                source, part, ignore=shutil.ignore_patterns(".*"), copy_function=shutil.copyfile, dirs_exist_ok=True
            )
            for folder in [part, *part.rglob("*")]:
                if folder.is_dir():
                    folder.chmod(0o755)  # the mode of a read-only input comes along
    except (OSError, shutil.Error) as error:
        raise InputError(
            f"cannot copy {source} to {place} ({getattr(error, 'strerror', None) or error}); free the place"
        ) from error


def validation_labels(runs, names, path):
    """Write the labels of all validation images of the runs, from their rows.csv, as a table Id,Target: what thresholds are fitted
    on, wherever the folds.csv of a run may be. Raises InputError where two runs know an image by other labels."""
    import pandas as pd

    parts = []
    for name in names:
        for file in fold_files(Path(runs) / name, "rows.csv"):
            table = read_table(file, ["Id", "Target", "part"], what="a fold's rows.csv")
            parts.append(table.loc[table["part"] == "valid", ["Id", "Target"]])
    table = pd.concat(parts).drop_duplicates()
    if twice := table["Id"][table["Id"].duplicated()].unique().tolist():
        raise InputError(f"the runs {', '.join(names)} have other labels for {listing(twice)}; predict with each alone")
    write_csv(path, table)

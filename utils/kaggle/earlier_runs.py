"""Taking over what earlier kernels, or a training at home, have trained: of each fold what has got furthest."""

from collections import namedtuple
from pathlib import Path

import pandas as pd

from utils.data.tables import read_table
from utils.engine import checkpoint
from utils.errors import InputError, listing
from utils.files import write_csv
from utils.kaggle.attached import copy_folder
from utils.runs.run_folder import ANY_WEIGHTS, fold_files

Progress = namedtuple("Progress", "finished epoch step score")  # in this order one is further than another


def progress(folder):
    """How far the fold in `folder` is: Progress, or None without a checkpoint. Weights without last.pt are of a trained fold.

    Raises InputError on a damaged checkpoint.
    """
    for name in ("last.pt", *ANY_WEIGHTS):
        if (Path(folder) / name).is_file():
            state = checkpoint.load(Path(folder) / name)
            finished = bool(state.get("finished")) if name == "last.pt" else True
            return Progress(finished, state["epoch"], state.get("step", 0), state["score"])
    return None


def take_over(sources, runs, names):
    """Copy each fold of the runs `names` into `runs` from where it has got furthest, unless it is as far there already.

    sources: folders with a runs/ in them. Returns those that something was copied from, and prints what.
    """
    used = []
    for name in names:
        found = {}
        for source in sources:
            files = fold_files(Path(source) / "runs" / name, "last.pt", *ANY_WEIGHTS)
            for folder in {path.parent for path in files}:
                try:
                    found.setdefault(folder.name, []).append((progress(folder), source, folder))
                except InputError as error:
                    raise InputError(f"{error}; or detach that input") from None
        for fold, candidates in sorted(found.items()):
            far, source, folder = max(candidates, key=lambda candidate: candidate[0][:3])
            here = progress(Path(runs) / name / fold)
            if here is None or here[:3] < far[:3]:
                copy_folder(folder, Path(runs) / name / fold)
                used.append(source)
                stage = "trained" if far.finished else f"epoch {far.epoch}, step {far.step:,}"
                print(f"{name}/{fold} taken over from {source}: {stage}")
    return list(dict.fromkeys(used))


def write_validation_labels(runs, names, path):
    """Write the labels of all validation images of the runs, from their rows.csv, as a table Id,Target to fit thresholds on.

    So the folds.csv of a run need not be known. Raises InputError if two runs have different labels for an image.
    """
    parts = []
    for name in names:
        for file in fold_files(Path(runs) / name, "rows.csv"):
            table = read_table(file, ["Id", "Target", "part"], what="a fold's rows.csv")
            parts.append(table.loc[table["part"] == "valid", ["Id", "Target"]])
    table = pd.concat(parts).drop_duplicates()
    if twice := table["Id"][table["Id"].duplicated()].unique().tolist():
        raise InputError(f"the runs {', '.join(names)} have other labels for {listing(twice)}; predict with each alone")
    write_csv(path, table)

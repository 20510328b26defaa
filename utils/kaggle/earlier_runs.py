"""Continue earlier kernels or uploaded runs: copy the most advanced state of each fold."""

from collections import namedtuple
from pathlib import Path

import pandas as pd

from utils.data.tables import read_table
from utils.engine import checkpoint
from utils.errors import InputError, listing
from utils.files import write_csv
from utils.kaggle.attached import copy_folder
from utils.runs.run_folder import ANY_WEIGHTS, fold_files

Progress = namedtuple("Progress", "finished epoch step score")  # compared in this order


def progress(folder):
    """-> Progress of the fold in `folder`, or None without a checkpoint. A fold with weights but without last.pt is
    finished. Raises InputError for a damaged checkpoint."""
    for name in ("last.pt", *ANY_WEIGHTS):
        if (Path(folder) / name).is_file():
            state = checkpoint.load(Path(folder) / name)
            finished = bool(state.get("finished")) if name == "last.pt" else True
            return Progress(finished, state["epoch"], state.get("step", 0), state["score"])
    return None


def take_over(sources, runs, names):
    """Copy each fold of the runs `names` from the source with the most progress into `runs`, unless that is as far
    already. Prints what it copies. sources: folders that contain runs/. -> the sources used."""
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
            best, source, folder = max(candidates, key=lambda candidate: candidate[0][:3])
            present = progress(Path(runs) / name / fold)
            if present is None or present[:3] < best[:3]:
                copy_folder(folder, Path(runs) / name / fold)
                used.append(source)
                stage = "trained" if best.finished else f"epoch {best.epoch}, step {best.step:,}"
                print(f"{name}/{fold} copied from {source}: {stage}")
    return list(dict.fromkeys(used))


def write_validation_labels(runs, names, path):
    """Write the labels of the runs' validation images, from their rows.csv, as a table Id,Target to fit thresholds on.
    Raises InputError if two runs have different labels for an image."""
    files = [file for name in names for file in fold_files(Path(runs) / name, "rows.csv")]
    rows = pd.concat([read_table(file, ["Id", "Target", "part"], what="a fold's rows.csv") for file in files])
    table = rows.loc[rows["part"] == "valid", ["Id", "Target"]].drop_duplicates()
    if twice := table["Id"][table["Id"].duplicated()].unique().tolist():
        raise InputError(f"{', '.join(names)} have different labels for {listing(twice)}; predict with each run alone")
    write_csv(path, table)

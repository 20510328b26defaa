"""Which data a notebook shows: the competition's files where they are there, else a simulated atlas."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.images import CHANNELS, load_sample, look_at_files, scan_folder
from utils.data.labels import HPA_CLASSES, read_labels
from utils.errors import listing, plural
from utils.parallel import cores
from utils.simulator.plan import Settings
from utils.simulator.write import write_atlas

SMALL = Settings(train=300, test=100, size=192, power=0.5, duplicates=0.06)  # drawn where there is nothing to show


@dataclass(frozen=True)
class Data:
    """What is there to be looked at.

    folder: of train.csv, train/ and test/. real: are they the competition's? labels: DataFrame Id, Target (str) of all
    labelled samples, with images or without. train, test: {Id: {channel: path}} of the samples with all four channels, in
    train only labelled ones. told: what is there and what is missing, a line.
    """

    folder: Path
    real: bool
    labels: pd.DataFrame
    train: dict
    test: dict
    told: str

    def targets(self):
        """{Id: Target} of all labelled samples."""
        return dict(zip(self.labels["Id"], self.labels["Target"], strict=True))

    def with_images(self):
        """The rows of `labels` whose images are there."""
        return self.labels[self.labels["Id"].isin(set(self.train))].reset_index(drop=True)

    def image(self, id_, size=None):
        """One sample, red to yellow: of `utils.data.images.load_sample`."""
        found = self.train.get(id_) or self.test[id_]
        return load_sample([found[name] for name in CHANNELS.values()], size)

    def sample(self, split, count, seed=0):
        """At most `count` samples of "train" or "test", drawn without replacement: -> {Id: (path, …)}, red to yellow.

        Samples with a file that is cut short or none of the kit's, or with channels of unequal size, are left out.
        """
        found = getattr(self, split)
        picked = np.random.default_rng(seed).choice(sorted(found), min(count, len(found)), replace=False)
        files = [tuple(found[id_][name] for name in CHANNELS.values()) for id_ in picked.tolist()]
        _, bad = look_at_files(files)
        return {
            id_: paths for row, (id_, paths) in enumerate(zip(picked.tolist(), files, strict=True)) if row not in bad
        }


def find_data(root="input", small=SMALL):
    """The competition's files in `root` if there is train.csv and one sample of it at least, else `root`/demo if `bash run.sh` has
    made it, else a small atlas, which is drawn into `root`/explore. -> Data; prints what is shown.

    Folders are listed and tables read, no picture is opened. Raises InputError where a table is not as it should be, and
    where `root`/explore holds another atlas.
    """
    root = Path(root)
    lacking = f"no train.csv with samples of all four channels in train/ lies in {root}"
    data = open_data(root, "the competition's files", True)
    if data is None:
        data = open_data(root / "demo", f"{lacking}, so the simulated atlas of bash run.sh")
    if data is None:
        write_atlas(root / "explore", small, workers=cores())
        data = open_data(root / "explore", f"{lacking}, so a small simulated atlas, drawn for this page")
    print(data.told)
    return data


def open_data(folder, what, real=False):
    """The Data in a folder, None unless it has train.csv and one labelled sample with all four channels."""
    table, there = folder / "train.csv", {}
    for split in ("train", "test"):
        there[split] = scan_folder(folder / split) if (folder / split).is_dir() else {}
    if not table.exists() or not there["train"]:
        return None
    labels = read_labels(table, HPA_CLASSES)[["Id", "Target"]]
    known = set(labels["Id"])
    whole = {split: {id_: files for id_, files in found.items() if len(files) == len(CHANNELS)}
             for split, found in there.items()}  # fmt: skip
    train = {id_: files for id_, files in whole["train"].items() if id_ in known}
    if not train:
        return None
    told = f"{what}: {plural(len(labels), 'labelled sample')}, {plural(len(whole['test']), 'test sample')}"
    lacking = [f"{id_} has no {' and no '.join(missing)}" for found in there.values() for id_, files in found.items()
               if (missing := [name for name in CHANNELS.values() if name not in files])]  # fmt: skip
    few = listing(lacking, show=2, sep="; ")
    notes = [
        (len(labels) > len(train), f"{plural(len(train), 'labelled sample')} with all four images"),
        (bool(lacking), f"{plural(len(lacking), 'sample')} left out for a missing channel ({few})"),
        (
            len(whole["train"]) > len(train),
            f"{plural(len(whole['train']) - len(train), 'sample')} of train/ without a label",
        ),
    ]
    told += "".join(f"; {note}" for applies, note in notes if applies)
    return Data(folder, real, labels, train, whole["test"], told)

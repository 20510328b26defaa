"""The data that a notebook shows: the competition's files if available, else a simulated atlas."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.image_files import look_at_files, scan_folder
from utils.data.images import CHANNELS, load_sample
from utils.data.labels import HPA_CLASSES, read_labels
from utils.errors import listing, plural
from utils.parallel import cores
from utils.simulator.plan import Settings, plan_image
from utils.simulator.sample import draw_sample
from utils.simulator.write import write_atlas

SMALL = Settings(train=300, test=100, size=192, power=0.5, duplicates=0.06)  # simulated without data


@dataclass(frozen=True)
class Data:
    """folder: contains train.csv, train/ and test/. real: whether the data are the competition's. labels: DataFrame Id,
    Target (str) of all labelled samples, with or without images. train, test: {Id: {channel: path}} of samples with all
    four channels; those of train are labelled. summary: one line about available and missing data."""

    folder: Path
    real: bool
    labels: pd.DataFrame
    train: dict
    test: dict
    summary: str

    def targets(self):
        """-> {Id: Target} of all labelled samples."""
        return dict(zip(self.labels["Id"], self.labels["Target"], strict=True))

    def with_images(self):
        """-> the rows of `labels` with images."""
        return self.labels[self.labels["Id"].isin(set(self.train))].reset_index(drop=True)

    def image(self, id_, size=None):
        """-> one sample of `utils.data.images.load_sample`, channels red, green, blue, yellow."""
        found = self.train.get(id_) or self.test[id_]
        return load_sample([found[name] for name in CHANNELS.values()], size)

    def sample(self, split, count, seed=0):
        """Draw at most `count` samples of "train" or "test" without replacement: -> {Id: (path, …)}, red to yellow.
        Samples with unreadable files, or with channels of unequal size, are left out."""
        found = getattr(self, split)
        ids = np.random.default_rng(seed).choice(sorted(found), min(count, len(found)), replace=False).tolist()
        files = [tuple(found[id_][name] for name in CHANNELS.values()) for id_ in ids]
        _, bad = look_at_files(files)
        return {id_: paths for row, (id_, paths) in enumerate(zip(ids, files, strict=True)) if row not in bad}


def find_data(root="input", small=SMALL):
    """Open the competition's files in `root` if available, else the atlas of `bash run.sh` in `root`/demo, else
    simulate a small atlas into `root`/explore: -> Data; prints its summary. Opens no image.

    Raises InputError for a bad table, and if `root`/explore contains a different atlas."""
    root = Path(root)
    missing = f"no train.csv with samples of all four channels in train/ in {root}"
    data = open_data(root, "the competition's files", True)
    data = data or open_data(root / "demo", f"{missing}, so the simulated atlas of bash run.sh")
    if not data:
        write_atlas(root / "explore", small, workers=cores())
        data = open_data(root / "explore", f"{missing}, so a small simulated atlas")
    print(data.summary)
    return data


def open_data(folder, what, real=False):
    """-> the Data in a folder, or None without train.csv or without a labelled sample with all four channels."""
    found = {part: scan_folder(folder / part) if (folder / part).is_dir() else {} for part in ("train", "test")}
    if not (folder / "train.csv").exists() or not found["train"]:
        return None
    labels = read_labels(folder / "train.csv", HPA_CLASSES)[["Id", "Target"]]
    known = set(labels["Id"])
    whole = {
        part: {id_: files for id_, files in samples.items() if len(files) == len(CHANNELS)}
        for part, samples in found.items()
    }
    train = {id_: files for id_, files in whole["train"].items() if id_ in known}
    if not train:
        return None
    lacking = [
        f"{id_} has no {' and no '.join(missing)}"
        for samples in found.values()
        for id_, files in samples.items()
        if (missing := [name for name in CHANNELS.values() if name not in files])
    ]
    notes = [f"{what}: {plural(len(labels), 'labelled sample')}, {plural(len(whole['test']), 'test sample')}"]
    if len(labels) > len(train):
        notes.append(f"{plural(len(train), 'labelled sample')} with all four images")
    if lacking:
        examples = listing(lacking, show=2, sep="; ")
        notes.append(f"{plural(len(lacking), 'sample')} left out for a missing channel ({examples})")
    if unlabelled := len(whole["train"]) - len(train):
        notes.append(f"{plural(unlabelled, 'sample')} of train/ without a label")
    return Data(folder, real, labels, train, whole["test"], "; ".join(notes))


def mixed_fields(data, count=16, size=256, seed=0):
    """-> [("real" or "simulated", (size, size, 4))] in random order: up to `count` real fields of Data and the same
    number of simulated ones, or only `count` simulated ones if the Data are not real."""
    files = data.sample("train", count, seed).values() if data.real else ()
    fields = [("real", load_sample(paths, size)) for paths in files]
    settings = Settings(train=1000, test=1, size=size, seed=5)
    for index in range(len(fields) or count):
        plan = plan_image(settings, "train", index)
        fields.append(("simulated", draw_sample(settings.seed, "train", plan.index, plan.shows, size)))
    return [fields[place] for place in np.random.default_rng(seed).permutation(len(fields))]

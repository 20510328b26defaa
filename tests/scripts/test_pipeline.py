"""All five scripts in a row, on images that a small network can learn."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import succeed, write_labels

from utils.data.images import image_size
from utils.data.labels import CYTO_CLASSES
from utils.opencv import cv2
from utils.runs.predictions import read_predictions
from utils.simulator import write
from utils.simulator.plan import Settings
from utils.simulator.sample import draw_sample

COMPARTMENTS = {"Nucleoplasm": 0, "Nucleoli": 2, "Microtubules": 14, "Plasma membrane": 21}
SETS = ["0", "1", "2", "3", "0 2", "1 3"]  # of the four classes above


@pytest.fixture(scope="module")
def competition(tmp_path_factory):
    """Kaggle's layout with four of the compartments: 180 + 60 pictures of 64²."""
    folder = tmp_path_factory.mktemp("kaggle")
    numbers = list(COMPARTMENTS.values())
    pd.DataFrame({"class": range(4), "name": list(COMPARTMENTS)}).to_csv(folder / "classes.csv", index=False)
    tables = {}
    for split, count in (("train", 180), ("test", 60)):
        (folder / "input" / split).mkdir(parents=True)
        tables[split] = {f"{split}{index:03}": SETS[index % len(SETS)] for index in range(count)}
        for index, (id_, target) in enumerate(tables[split].items()):
            shown = tuple(numbers[int(word)] for word in target.split())
            image = draw_sample(0, split, index, shown, 64, ambiguity=0)
            for plane, channel in enumerate(("red", "green", "blue", "yellow")):
                cv2.imwrite(str(folder / "input" / split / f"{id_}_{channel}.png"), image[..., plane])
    write_labels(folder / "input" / "train.csv", tables["train"])
    write_labels(folder / "solution.csv", tables["test"])
    backwards = dict.fromkeys(reversed(tables["test"]), "0")
    write_labels(folder / "input" / "sample_submission.csv", backwards, column="Predicted")
    return folder


def test_from_images_to_a_submission_that_beats_the_constant(competition, monkeypatch):
    """With Kaggle's files in input/ no path to them has to be given."""
    monkeypatch.chdir(competition)
    succeed("make_folds", "--folds", 2, "--classes", "classes.csv")
    recipe = ["--recipe", "gapnet_pl", "--name", "mini", "--classes", "classes.csv", "--size", 64, "--fit", "resize"]
    pace = ["--augment", "d4", "--epochs", 16, "--batch-size", 8, "--optimiser", "adamw", "--lr", 0.001]
    for fold in (0, 1):
        succeed("train", *recipe, *pace, "--fold", fold)
    succeed("predict", "runs/mini", "-o", "test.csv", "--tta", 4)
    succeed("threshold", "runs/mini")
    succeed("ensemble", "test.csv", "--thresholds", "runs/mini/thresholds.json")
    sample, submission = (pd.read_csv(path, dtype=str) for path in ("input/sample_submission.csv", "submission.csv"))
    assert submission["Id"].tolist() == sample["Id"].tolist() and submission["Predicted"].notna().all()
    assert json.loads(Path("runs/mini/thresholds.json").read_text())["rows"] == 180

    words = ["submission.csv", "--truth", "solution.csv", "--classes", "classes.csv"]
    out = succeed("utils.tools.score", *words).out
    mine, constant = (float(line.split()[0]) for line in out.splitlines()[1:3])
    share = np.array([2, 2, 2, 2]) / 6
    assert constant == pytest.approx((2 * share / (1 + share)).mean(), abs=1e-4)
    assert mine > constant + 0.25, out


def test_the_protocol_of_a_comparison_on_tiffs_of_mixed_sizes(tmp_path):
    """Rumetshofer et al., sections 2 and 3.1: damaged samples left out, 8:1:1, random crops, patches averaged, the best
    checkpoint on the test part, the tables."""
    data, table, runs = tmp_path / "cyto", tmp_path / "folds.csv", tmp_path / "runs"
    write.write_atlas(data, Settings(60, 4, size=64, seed=1, power=0.5, form="cyto", corrupt=0.1, duplicates=0.0))
    images = ["--images", data / "train"]
    split = ["--classes", "cyto", "--split", "6:2:2", "--drop-corrupt"]
    succeed("make_folds", "--labels", data / "train.csv", *images, *split, "-o", table)
    parts = pd.read_csv(table, dtype=str).set_index("Id")["fold"]
    dropped = pd.read_csv(tmp_path / "folds_dropped.csv", dtype=str)["Id"]
    assert len(dropped) and not set(dropped) & set(parts.index)
    sizes = {image_size(data / "train" / f"{id_}_green.tif") for id_ in parts.index}
    assert len(sizes) > 1, "mixed"
    for network in ("gapnet_pl", "conv_mil"):
        words = ["--recipe", network, "--name", network, "--runs", runs, "--folds", table, *images]
        small = ["--size", 48, "--epochs", 2, "--batch-size", 8, "--workers", 0]
        succeed("train", *words, "--fold", 0, "--classes", "cyto", *small)
        words = [*images, "--ids", table, "-o", runs / network / "test.csv"]
        succeed("predict", runs / network, *words, "--fold", -2, "--workers", 0, "--tta", 1)
    predicted = read_predictions(runs / "gapnet_pl/test.csv")
    assert set(predicted.index) == set(parts.index[parts == "-2"]) and list(predicted.columns) == list(CYTO_CLASSES)
    both = [runs / "gapnet_pl", runs / "conv_mil"]
    out = succeed("utils.tools.compare", *both, "--predictions", "test.csv", "--labels", table).out
    assert "626,221" in out and "conv_mil" in out and "Wilcoxon" in out

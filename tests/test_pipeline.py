"""All five scripts in a row, each a process of its own, on an atlas that a small network can learn."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT

from utils import simulate


@pytest.fixture(scope="module")
def competition(tmp_path_factory):
    """Kaggle's layout: input/train, input/test, input/train.csv, input/sample_submission.csv."""
    folder = tmp_path_factory.mktemp("kaggle")
    simulate.write_atlas(folder / "input", 400, 120, 64, seed=1, power=0.8)
    return folder


def call(folder, script, *words):
    done = subprocess.run([sys.executable, ROOT / script, *map(str, words)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_images_to_a_submission_that_beats_the_constant(competition):
    """With Kaggle's files in input/ no path has to be given."""
    call(competition, "make_folds.py", "--folds", 2)
    for fold in (0, 1):
        call(competition, "train.py", "--recipe", "gapnet_pl", "--fold", fold, "--name", "mini", "--size", 64, "--fit", "resize",
             "--normalise", "dataset", "--augment", "d4", "--epochs", 16, "--batch-size", 8, "--optimiser", "adamw", "--lr", 0.001)  # fmt: skip
    call(competition, "predict.py", "runs/mini", "-o", "test.csv", "--tta", 4)
    call(competition, "threshold.py", "runs/mini")
    call(competition, "ensemble.py", "test.csv", "--thresholds", "runs/mini/thresholds.json")
    sample = pd.read_csv(competition / "input/sample_submission.csv", dtype=str)
    submission = pd.read_csv(competition / "submission.csv", dtype=str)
    assert submission["Id"].tolist() == sample["Id"].tolist() and submission["Predicted"].notna().all()
    fitted = json.loads((competition / "runs/mini/thresholds.json").read_text())
    assert fitted["rows"] == 400
    out = subprocess.run([sys.executable, "-m", "utils.score", competition / "submission.csv", "--truth", competition / "input/solution.csv"],
                         cwd=ROOT, capture_output=True, text=True).stdout  # fmt: skip
    mine, constant = (float(line.split()[0]) for line in out.splitlines()[1:3])
    assert mine > 1.5 * constant, out

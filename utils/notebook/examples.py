"""Made-up stand-ins, so that a notebook has something to show where there is no trained machine and no person yet."""

from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.labels import HPA_CLASSES, decode, encode, read_labels
from utils.files import write_csv
from utils.parallel import cores
from utils.runs.predictions import write_predictions
from utils.simulator.plan import Settings
from utils.simulator.write import write_atlas


def machine(folder, images=120, seed=0):
    """Simulated pictures, and predictions that are often right: -> folder of pictures, labels, predictions, thresholds."""
    folder, rng = Path(folder), np.random.default_rng(seed)
    write_atlas(folder, Settings(train=8, test=images, size=128, power=0.5), workers=cores())
    table = read_labels(folder / "solution.csv", HPA_CLASSES)
    truth = encode(table["Target"], HPA_CLASSES)
    probabilities = np.clip(0.55 * truth + rng.normal(0.15, 0.2, truth.shape), 0, 1)
    write_predictions(folder / "predictions.csv", table["Id"], probabilities, HPA_CLASSES)
    return folder / "test", folder / "solution.csv", folder / "predictions.csv", "0.5"


def person(truth, path, seed=0):
    """Write answers of somebody who finds every second label and guesses one in four pictures: -> path.

    truth: DataFrame Id, Target of the pictures judged.
    """
    rng = np.random.default_rng(seed)
    right = encode(truth["Target"], HPA_CLASSES)
    said = right & (rng.random(right.shape) < 0.5)
    guesses = np.flatnonzero(rng.random(len(said)) < 0.25)
    said[guesses, rng.integers(len(HPA_CLASSES), size=len(guesses))] = 1
    write_csv(path, pd.DataFrame({"Id": truth["Id"], "Target": decode(said)}))
    return path

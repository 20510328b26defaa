"""python -m utils.tools.class_priors: simulated test sets with other class priors and another exposure."""

import numpy as np
import pandas as pd
from conftest import refuse, succeed, write_labels

from utils.data.labels import decode
from utils.runs.predictions import write_predictions
from utils.scoring.calibration import sigmoid


def test_known_priors_and_matched_positives_help_if_these_have_changed(tmp_path):
    rng, names = np.random.default_rng(4), ["first", "second", "third"]
    truth = (rng.random((1500, 3)) < [0.3, 0.2, 0.1]).astype(int)
    ids = [f"i{n:04}" for n in range(1500)]
    pd.DataFrame({"class": range(3), "name": names}).to_csv(tmp_path / "classes.csv", index=False)
    write_labels(tmp_path / "train.csv", dict(zip(ids, decode(truth), strict=True)))
    write_predictions(tmp_path / "oof.csv", ids, sigmoid(rng.normal(-2, 1, truth.shape) + 3 * truth), names)
    labels = ["--labels", tmp_path / "train.csv", "--classes", tmp_path / "classes.csv"]
    command = ["utils.tools.class_priors", tmp_path / "oof.csv", *labels]
    out = succeed(*command, "--repeats", 3).out
    rows = {line.split()[0]: line.replace("±", " ").split() for line in out.splitlines()[2:]}
    assert set(rows) == {"nothing", "priors", "exposure"}
    assert float(rows["priors"][6]) > 0 and float(rows["exposure"][8]) > 0.02 and abs(float(rows["nothing"][4])) < 0.01
    refuse(*command, "--factor", 1, says="--factor")
    refuse(*command, "--repeats", 1, says="--repeats")

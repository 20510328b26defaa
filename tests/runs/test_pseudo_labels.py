"""Training on images whose labels are another network's probabilities."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import refuse, succeed, train_options

from utils.data.labels import encode, load_classes
from utils.engine import losses
from utils.errors import InputError
from utils.runs.predictions import write_predictions
from utils.runs.pseudo_labels import add_pseudo_labels, read_pseudo_labels, soft_targets

CLASSES = load_classes("hpa")


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_probabilities_of_0_and_1_train_as_labels_do_to_the_bit(atlas, folds, tmp_path):
    """The test images as rows that are always trained on, and as pseudo-labels; then with other probabilities."""
    known, pseudo = read(atlas / "solution.csv")[["Id", "Target"]], tmp_path / "pseudo.csv"
    truth = encode(known["Target"], CLASSES).astype(float)
    always = known.assign(fold="-1", source="more", group=known["Id"])
    pd.concat([read(folds), always]).to_csv(tmp_path / "folds.csv", index=False)
    write_predictions(pseudo, known["Id"], truth, CLASSES)
    options = {"loss": "1:weighted_bce 2:bce"}

    def command(name, folds, *more):
        return [*train_options(atlas, folds, tmp_path, name, **options), "--images", atlas / "test", *more]

    succeed("train", *command("hard", tmp_path / "folds.csv"))
    succeed("train", *command("soft", folds, "--pseudo", pseudo))
    hard, soft, softer = (tmp_path / name / "fold0" for name in ("hard", "soft", "softer"))
    for name in ("rows.csv", "steps.csv", "oof.csv"):
        assert (hard / name).read_bytes() == (soft / name).read_bytes(), name
    weights = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (hard, soft)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    rows = read(soft / "rows.csv")
    assert set(known["Id"]) <= set(rows["Id"][rows["part"] == "train"])
    assert set(rows["Id"][rows["part"] == "valid"]) == set(read(folds).query("fold == '0'")["Id"])

    write_predictions(pseudo, known["Id"], 0.25 + 0.5 * truth, CLASSES)
    refuse("train", *command("soft", folds, "--pseudo", pseudo), says="other rows in the folds file or --pseudo")
    succeed("train", *command("softer", folds, "--pseudo", pseudo))
    assert (soft / "rows.csv").read_bytes() == (softer / "rows.csv").read_bytes()
    assert (pd.read_csv(soft / "steps.csv")["bce"] != pd.read_csv(softer / "steps.csv")["bce"]).all()


def test_targets_are_the_probabilities_and_positives_begin_at_a_half(tmp_path):
    folds, path = tmp_path / "folds.csv", tmp_path / "pseudo.csv"
    rows = pd.DataFrame({"Id": ["a", "b"], "Target": ["0", "0 2"]})
    rows.to_csv(folds, index=False)
    write_predictions(path, ["x", "y", "z"], [[0.5, 0.49, 0.9], [0.1, 0.2, 0.3], [1, 0, 0]], "012")
    soft = read_pseudo_labels(path, folds, ["0", "1", "2"], limit=2)
    together = add_pseudo_labels(rows, soft)
    assert together["Id"].tolist() == ["a", "b", "x", "y"] and together["Target"].tolist() == ["0", "0 2", "0 2", ""]
    targets = soft_targets(together.iloc[[3, 1, 2]], soft)  # as if an image could not be read
    assert targets.dtype == np.float32
    assert targets == pytest.approx(np.array([[0.1, 0.2, 0.3], [1, 0, 1], [0.5, 0.49, 0.9]]))
    loss = losses.ScheduledLoss(losses.parse_schedule("1:weighted_bce"), targets, torch.device("cpu"))
    assert torch.equal(loss.class_weights, losses.class_weights([2, 0, 2]))
    with pytest.raises(InputError, match="other classes than the folds"):
        read_pseudo_labels(path, folds, ["0", "1"])
    write_predictions(path, ["x", "b"], np.zeros((2, 3)), "012")
    with pytest.raises(InputError, match="1 Id also in .*folds.csv: b"):
        read_pseudo_labels(path, folds, ["0", "1", "2"])

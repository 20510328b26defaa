"""utils.tools.neighbours: planted copies found, the limit exact, nothing won on shuffled labels."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import random_table, refuse, succeed, write_labels

from utils.data.labels import encode, load_classes
from utils.opencv import cv2
from utils.runs.predictions import write_predictions
from utils.scoring.calibration import sigmoid
from utils.scoring.metrics import macro_f1
from utils.tools.neighbours import best_limit, fit_limit

COLOURS = ("red", "green", "blue", "yellow")


@pytest.mark.parametrize("seed", range(5))
def test_the_limit_is_the_best_of_all(seed):
    truth, probabilities = random_table(seed, 60, 4, absent=False)
    rng = np.random.default_rng(seed)
    decided, bits = probabilities >= 0.5, rng.integers(0, 12, 60)
    copied = np.where(bits[:, None] < 4, truth, rng.random((60, 4)) < 0.3)
    scores = {limit: macro_f1(truth, np.where((bits <= limit)[:, None], copied, decided)) for limit in range(-1, 12)}
    limit = best_limit(truth, decided, copied, bits)
    assert scores[limit] == pytest.approx(max(scores.values()))
    assert limit == min(place for place, score in scores.items() if score > scores[limit] - 1e-12)
    assert best_limit(truth, truth, copied, bits) == -1, "decisions that no copy improves"


@pytest.fixture
def table():
    """Labels of 1,000 images, a poor network, and bits to neighbours of which those below 20 have the same labels."""
    rng = np.random.default_rng(0)
    truth = (rng.random((1000, 6)) < 0.1).astype(np.uint8)
    oof, bits = sigmoid(rng.normal(-2, 1, truth.shape) + truth), rng.integers(0, 60, 1000)
    copied = np.where(bits[:, None] < 20, truth, truth[rng.permutation(1000)])
    return truth, oof, copied, bits


def test_copies_of_the_same_labels_help_within_their_bits(table):
    limit, gain, error = fit_limit(*table, repeats=1)
    assert limit == 19 and gain > 0.1 and gain > 4 * error


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_won_on_shuffled_labels(table, seed):
    truth, oof, copied, bits = table
    shuffled = copied[np.random.default_rng(seed).permutation(1000)]
    _, gain, error = fit_limit(truth, oof, shuffled, bits, repeats=1)
    assert not gain > 2 * error and gain < 0.01


@pytest.fixture
def planted(atlas, tmp_path):
    """An atlas, and copies of half of its training and half of its test images: shifted, brightened, compressed as JPEG."""
    solution, train = (
        pd.read_csv(atlas / name, dtype=str).set_index("Id")["Target"] for name in ("solution.csv", "train.csv")
    )
    labels = {}
    (tmp_path / "external").mkdir()
    for folder, targets in (("train", train), ("test", solution)):
        for id_, target in list(targets.items())[::2]:
            labels["x" + id_] = target
            for colour in COLOURS:
                plane = cv2.imread(str(atlas / folder / f"{id_}_{colour}.png"), cv2.IMREAD_GRAYSCALE)
                moved = np.clip(np.roll(plane, (1, -1), (0, 1)) * 1.3 + 3, 0, 255).astype(np.uint8)
                cv2.imwrite(str(tmp_path / "external" / f"x{id_}_{colour}.jpg"), moved, [cv2.IMWRITE_JPEG_QUALITY, 85])
    write_labels(tmp_path / "external.csv", labels)
    write_labels(tmp_path / "s.csv", dict.fromkeys(solution.index, "0 25"), column="Predicted")
    logits = np.random.default_rng(0).normal(-2, 1, (len(train), 28)) + 3 * encode(train, range(28))
    write_predictions(tmp_path / "oof.csv", train.index, sigmoid(logits), load_classes("hpa"))
    images = [
        word for folder in (atlas / "train", atlas / "test", tmp_path / "external") for word in ("--images", folder)
    ]
    words = [tmp_path / "oof.csv", "--labels", atlas / "train.csv", "--known", tmp_path / "external.csv", *images]
    copied = [id_ for id_ in solution.index if "x" + id_ in labels]
    return tmp_path, ["utils.tools.neighbours", *words, "--repeats", 1], solution, copied


def submitted(folder):
    return pd.read_csv(folder / "out.csv", dtype=str, keep_default_na=False).set_index("Id")["Predicted"]


def test_planted_copies_are_found_and_little_else(planted):
    """A test image may also look like the copy of its near-duplicate in the training set."""
    folder, words, truth, copied = planted
    succeed(*words, "--submission", folder / "s.csv", "-o", folder / "out.csv")
    after = submitted(folder)
    assert after.index.tolist() == pd.read_csv(folder / "s.csv", dtype=str)["Id"].tolist()
    changed = after[after != "0 25"]
    assert np.isin(copied, changed.index).mean() > 0.8 and len(changed) <= len(copied) + 2
    assert changed.tolist() == truth[changed.index].tolist()


def test_no_validation_image_is_its_own_neighbour(planted, atlas):
    """If the training table is among the known ones, only the atlas's own near-duplicates count."""
    _, words, *_ = planted
    place = words.index("--known") + 1
    out = succeed(*words[:place], atlas / "train.csv", *words[place + 1 :]).out
    within = re.search(r"bits, (\d+) validation", out)
    assert within is None or int(within[1]) < 16


def test_a_submission_stays_as_it_is_if_copies_do_not_help(planted):
    folder, words, *_ = planted
    table = pd.read_csv(folder / "external.csv", dtype=str)
    table.assign(Target=table["Target"].sample(frac=1, random_state=0).tolist()).to_csv(
        folder / "external.csv", index=False
    )
    out = succeed(*words, "--submission", folder / "s.csv", "-o", folder / "out.csv").out
    assert (submitted(folder) == "0 25").all() and "0 rows of 16 got the labels" in out
    refuse(*words, "--submission", folder / "s.csv", says="go together")
    refuse(*words[:-8], "--images", folder / "external", "--repeats", 1, says="without an image")
    refuse(*words, "--known", folder / "external.csv", says="external.csv")

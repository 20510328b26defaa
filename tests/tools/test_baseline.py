"""utils.tools.baseline: features against closed forms, rows as train.py takes them, textures classified."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, write_images

from utils.data.labels import split_fold
from utils.opencv import cv2
from utils.runs.predictions import read_predictions
from utils.tools import baseline
from utils.tools.baseline import (
    correlation,
    features,
    fit_predict,
    nucleus_features,
    pattern_frequencies,
    read_features,
)

RGBY = ("red", "green", "blue", "yellow")


def noise(seed=0, size=48, channels=4):
    return np.random.default_rng(seed).random((size, size, channels), np.float32)


def test_features_have_the_documented_number_and_no_gaps():
    for size in (32, 47):
        for image in (noise(size=size), np.zeros((size, size, 4), np.float32), np.ones((size, size, 4), np.float32)):
            found = features(image, RGBY)
            assert len(found) == 4 * 34 + 3 * 6 + 7 and np.isfinite(found).all()
    assert len(features(noise(channels=1), ("green",))) == 34
    assert len(features(noise(channels=2), ("red", "green"))) == 74


def test_moments_and_quantiles_are_of_each_channel():
    image = noise() ** [1, 2, 3, 4]
    found, pixels = features(image.astype(np.float32), RGBY), image.reshape(-1, 4)
    third = ((pixels - pixels.mean(0)) ** 3).mean(0) / pixels.std(0) ** 3
    expected = [pixels.mean(0), pixels.std(0), third, np.quantile(pixels, (0.1, 0.25, 0.5, 0.75, 0.9, 0.99), axis=0)]
    assert found[: 9 * 4] == pytest.approx(np.vstack(expected).ravel(), rel=1e-4)


def test_octaves_hold_what_gaussians_leave_of_a_wave():
    """A cosine that mirrors at both edges is damped by exp(−σ²ω²/2) (the Gaussian's transform)."""
    size, cycles = 65, 6
    omega = np.pi * cycles / (size - 1)
    image = np.tile(np.cos(omega * np.arange(size, dtype=np.float32)), (size, 1))[..., None]
    damped = np.exp(-((np.array([0, 1, 2, 4, 8, 16]) * omega) ** 2) / 2)
    for octave, share in zip(baseline.split_octaves(image), damped[:-1] - damped[1:]):
        assert octave == pytest.approx(share * image, abs=5e-3)


def test_patterns_of_flat_ramp_spot_and_rows():
    ramp = np.tile(np.arange(20.0), (20, 1))
    spot = np.zeros((20, 20))
    spot[10, 10] = 1
    rows = np.tile(np.arange(20.0)[:, None] % 2, 20)
    frequencies = pattern_frequencies(np.dstack([np.ones((20, 20)), ramp, spot, rows]))
    assert frequencies[:, 0].tolist() == [0] * 8 + [1, 0], "no neighbour is darker"
    assert frequencies[:, 1].tolist() == [0] * 5 + [1] + [0] * 4, "three to the right, one above, one below"
    assert frequencies[:, 2] * 18**2 == pytest.approx([1] + [0] * 7 + [18**2 - 1, 0]), (
        "only the spot has darker neighbours"
    )
    assert frequencies[:, 3].tolist() == [0] * 8 + [0.5, 0.5], (
        "a bright row's equals, left and right, are not contiguous"
    )


def test_patterns_ignore_quarter_turns_and_brightness():
    image = noise()
    frequencies = pattern_frequencies(image)
    assert frequencies.sum(axis=0) == pytest.approx(np.ones(4))
    assert (pattern_frequencies(np.rot90(image)) == frequencies).all() and (
        pattern_frequencies(image**2 + 3) == frequencies
    ).all()


def test_correlation_is_pearsons_and_zero_without_contrast():
    first, second = noise()[..., 0], noise()[..., 1]
    expected = np.corrcoef(first.ravel(), (first - second).ravel())[0, 1]
    assert correlation(first, first - second) == pytest.approx(expected)
    assert correlation(first, np.full_like(first, 0.3)) == 0


def test_green_nucleus_features_of_a_round_nucleus():
    distance = np.hypot(*(np.indices((64, 64)) - 32))
    nucleus = distance < 15
    green = np.where(nucleus, 0.6, 0.2).astype(np.float32)
    share, mean_in, std_in, mean_out, std_out, mean_rim, ratio = nucleus_features(
        green, nucleus.astype(np.float32) * 0.8
    )
    assert (share, mean_in, mean_out, mean_rim) == pytest.approx((nucleus.mean(), 0.6, 0.2, 0.2), abs=1e-6)
    assert max(std_in, std_out) < 1e-6 and ratio == pytest.approx(np.log(0.61 / 0.21), abs=1e-5)
    ring = ((distance >= 15) & (distance < 16)).astype(np.float32)
    *_, rim, _ = nucleus_features(ring, nucleus.astype(np.float32))
    assert rim > 0.8, "the rim is the first pixels outside"


def test_a_class_that_cannot_be_fitted_gets_its_share():
    known = noise(channels=1)[:20, :5, 0]
    truth = np.stack([np.zeros(20), np.ones(20), np.arange(20) % 2], axis=1).astype(np.uint8)
    probabilities = fit_predict(known, truth, known[:7])
    assert (probabilities[:, 0] == 0).all() and (probabilities[:, 1] == 1).all()
    assert ((probabilities[:, 2] > 0) & (probabilities[:, 2] < 1)).all()


def test_a_probability_does_not_depend_on_the_other_images():
    known, truth = noise(channels=1)[:, :5, 0], np.arange(48)[:, None] % 2
    alone = [fit_predict(known, truth, known[row : row + 1])[0] for row in range(4)]
    assert fit_predict(known, truth, np.vstack([known[:4], 100 * known]))[:4] == pytest.approx(np.array(alone))


def test_sixteen_bits_give_the_features_of_eight(tmp_path):
    plane = np.rint(noise()[..., 0] * 255).astype(np.uint8)
    for name, values in (("a", plane), ("b", plane.astype(np.uint16) * 257)):
        cv2.imwrite(str(tmp_path / f"{name}_green.png"), values)
    eight, sixteen = (read_features([tmp_path / f"{name}_green.png"], 48, ("green",)) for name in "ab")
    assert eight == pytest.approx(sixteen, rel=1e-4) and eight[0] == pytest.approx(plane.mean() / 255)


@pytest.fixture
def textures(tmp_path):
    """30 images of 64², class 0 fine grain, 1 coarse grain, of equal mean and spread; three folds, Ids in no order."""
    rng = np.random.default_rng(0)
    ids = [f"i{n:02}" for n in rng.permutation(30)]
    table = pd.DataFrame({"Id": ids, "Target": [str(int(id_[1:]) % 2) for id_ in ids], "fold": np.arange(30) % 3})
    (tmp_path / "images").mkdir()
    for id_, target in zip(table["Id"], table["Target"]):
        for channel in RGBY:
            grain = rng.standard_normal((64, 64))
            grain = cv2.GaussianBlur(grain, (0, 0), 2) if target == "1" else grain
            plane = np.clip(128 + 30 * (grain - grain.mean()) / grain.std(), 0, 255)
            cv2.imwrite(str(tmp_path / "images" / f"{id_}_{channel}.png"), np.rint(plane).astype(np.uint8))
    pd.DataFrame({"class": [0, 1], "name": ["fine", "coarse"]}).to_csv(tmp_path / "classes.csv", index=False)
    table.to_csv(tmp_path / "folds.csv", index=False)
    return tmp_path, table


def command(folder, fold=1, **more):
    options = {"folds": folder / "folds.csv", "fold": fold, "images": folder / "images", "runs": folder / "runs"}
    options |= {"classes": folder / "classes.csv", "size": 64, "workers": 1} | more
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    return ["utils.tools.baseline", *words]


def test_textures_are_classified_and_threshold_reads_the_result(textures):
    folder, table = textures
    out = succeed(*command(folder)).out
    oof = read_predictions(folder / "runs" / "linear" / "fold1" / "oof.csv")
    held = table[table["fold"] == 1]
    assert oof.index.tolist() == held["Id"].tolist() and oof.columns.tolist() == ["fine", "coarse"]
    assert ((oof["coarse"] > 0.9) == (held["Target"] == "1").to_numpy()).all()
    assert ((oof["fine"] > 0.9) == (held["Target"] == "0").to_numpy()).all()
    assert "macro F1 1.0000 at 0.5" in out and "20 images to train on, 10 to validate" in out
    succeed("threshold", folder / "runs" / "linear", "--repeats", 1, "-o", folder / "t.json")
    assert json.loads((folder / "t.json").read_text())["macro_f1"]["in_sample"] == 1


def test_held_out_labels_and_workers_change_nothing(textures):
    folder, table = textures
    succeed(*command(folder))
    before = (folder / "runs" / "linear" / "fold1" / "oof.csv").read_bytes()
    table.assign(Target=table["Target"].where(table["fold"] != 1, "0 1")).to_csv(folder / "folds.csv", index=False)
    succeed(*command(folder, name="other", workers=2))
    assert (folder / "runs" / "other" / "fold1" / "oof.csv").read_bytes() == before


def test_rows_of_fold_minus_one_are_trained_on(textures):
    folder, table = textures
    only = table.assign(fold=table["fold"].where(table["fold"] != 2, -1))
    only.loc[(only["fold"] == 0), "Target"] = "0"  # the coarse ones are known from the rows of fold −1 alone
    only.to_csv(folder / "folds.csv", index=False)
    succeed(*command(folder))
    assert read_predictions(folder / "runs" / "linear" / "fold1" / "oof.csv")["coarse"].max() > 0.1


def test_one_channel_is_enough(textures):
    folder, _ = textures
    for path in [path for path in (folder / "images").iterdir() if "green" not in path.name]:
        path.unlink()
    assert "34 features" in succeed(*command(folder, channels="green")).out


def test_a_smaller_limits_rows_lie_within_a_larger_ones(folds):
    def rows(limit=0, train_limit=0, seed=0):
        return [part["Id"].tolist() for part in split_fold(folds, range(28), 1, limit, seed, train_limit)]

    five, twelve, everything = (rows(train_limit=count) for count in (5, 12, 0))
    assert [len(part[0]) for part in (five, twelve, everything)] == [5, 12, len(everything[0])]
    assert set(five[0]) < set(twelve[0]) < set(everything[0])
    assert five[1] == everything[1] and len(rows(limit=3)[1]) == 3
    assert rows(limit=7) == rows(limit=7) != rows(limit=7, seed=5)


def test_baseline_refuses_and_leaves_nothing(textures):
    folder, table = textures
    bad = {
        "no fold 3": dict(fold=3),
        "--size 31 is out of range": dict(size=31),
        "--train-limit -1": dict(train_limit=-1),
        "not usable as a folder's name": dict(name="a/b"),
        "mixes channels": dict(channels="rgb+y/3"),
        "is not a folder": dict(images=folder / "absent"),
        "does not exist": dict(folds=folder / "absent.csv"),
    }
    for says, more in bad.items():
        refuse(*command(folder, **more), says=says)
    table.assign(fold=1).to_csv(folder / "one.csv", index=False)
    refuse(*command(folder, folds=folder / "one.csv"), says="no rows outside fold 1")
    write_images(folder / "images", ["i00"], ["blue"], size=20)
    refuse(*command(folder), says="channels of unequal size")
    data = bytearray((folder / "images" / "i00_red.png").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    (folder / "images" / "i00_red.png").write_bytes(bytes(data))
    write_images(folder / "images", ["i00"], ["green", "blue", "yellow"], size=64)
    refuse(*command(folder, workers=2), says="i00_red.png is damaged")
    (folder / "images" / "i00_red.png").unlink()
    refuse(*command(folder), says="i00_red")
    assert not (folder / "runs").exists()


def test_results_are_replaced_only_when_asked_and_networks_never(textures):
    folder, _ = textures
    succeed(*command(folder, train_limit=15))
    oof = folder / "runs" / "linear" / "fold1" / "oof.csv"
    before = oof.read_bytes()
    refuse(*command(folder), says="oof.csv exists already")
    assert oof.read_bytes() == before
    succeed(*command(folder), "--overwrite")
    assert oof.read_bytes() != before
    oof.with_name("best.safetensors").touch()
    refuse(*command(folder), "--overwrite", says="holds a trained network")

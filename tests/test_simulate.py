"""The simulated atlas: the same seed gives the same bytes, labels are real, pictures show what they should."""

import filecmp

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

from utils import simulate


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def make(folder, workers=1, **more):
    options = {"train": 12, "test": 5, "size": 48, "seed": 5, "power": 0.7} | more
    return succeed(
        "utils.simulate", "--out", folder, "--workers", workers, *[w for k, v in options.items() for w in (f"--{k}", v)]
    )


def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path):
    make(tmp_path / "a", workers=1)
    make(tmp_path / "b", workers=2)
    make(tmp_path / "c", seed=6)
    names = files_of(tmp_path / "a")
    assert names == files_of(tmp_path / "b") != files_of(tmp_path / "c")
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", names, shallow=False)[1:] == ([], [])


def test_kaggles_layout(atlas):
    train, test = (pd.read_csv(atlas / name, keep_default_na=False) for name in ("train.csv", "solution.csv"))
    sample = pd.read_csv(atlas / "sample_submission.csv", dtype=str)
    assert list(train.columns) == ["Id", "Target"] and list(sample.columns) == ["Id", "Predicted"]
    assert sample["Id"].tolist() == test["Id"].tolist() and (sample["Predicted"] == "0").all()
    for split, table in (("train", train), ("test", test)):
        names = {f"{id_}_{channel}.png" for id_ in table["Id"] for channel in ("red", "green", "blue", "yellow")}
        assert {path.name for path in (atlas / split).iterdir()} == names
        plane = cv2.imread(str(atlas / split / sorted(names)[0]), cv2.IMREAD_UNCHANGED)
        assert plane.shape == (64, 64) and plane.dtype == np.uint8


def test_an_interrupted_atlas_is_completed_and_a_finished_one_left_alone(tmp_path):
    make(tmp_path / "a")
    before = {name: (tmp_path / "a" / name).read_bytes() for name in files_of(tmp_path / "a")}
    assert "complete already" in make(tmp_path / "a").out
    victims = [name for name in before if name.suffix == ".png"][:7]
    for name in victims:
        (tmp_path / "a" / name).unlink()
    make(tmp_path / "a")
    assert {name: (tmp_path / "a" / name).read_bytes() for name in files_of(tmp_path / "a")} == before
    refuse("utils.simulate", "--out", tmp_path / "a", "--train", 3, "--test", 2, "--size", 48, says="other settings")


def test_label_frequencies_are_the_real_ones():
    drawn = [simulate.plan_image(0, "train", index, 1.0, 0.02)[1].split() for index in range(4000)]
    share = np.bincount([int(word) for words in drawn for word in words], minlength=28) / 4000
    real = {0: 12885, 25: 8228, 21: 3777, 2: 3621, 14: 1066, 27: 11}  # of 31,072
    for number, count in real.items():
        p = count / 31072
        assert abs(share[number] - p) < 5 * np.sqrt(p * (1 - p) / 4000) + 1e-4


def pictures(target, count=6, split="train"):
    return np.stack([simulate.draw_sample(1, split, index, target, 128) for index in range(count)]).astype(float) / 255


def test_the_protein_is_where_its_compartment_is():
    """Green against the nucleus (blue): inside for nuclear classes, outside for cytoplasmic ones."""
    ratio = {}
    for target in ("0", "2", "5", "25", "6", "23"):
        images = pictures(target)
        nucleus = images[..., 2] > 0.5 * np.quantile(images[..., 2], 0.98, axis=(1, 2), keepdims=True)
        ratio[target] = images[..., 1][nucleus].mean() / images[..., 1][~nucleus].mean()
    assert min(ratio[target] for target in ("0", "2", "5")) > 3, ratio
    assert max(ratio[target] for target in ("25", "6", "23")) < 1.5, ratio


def test_microtubule_proteins_follow_red_and_reticulum_proteins_yellow():
    def follows(target, channel):
        return np.mean(
            [np.corrcoef(image[..., 1].ravel(), image[..., channel].ravel())[0, 1] for image in pictures(target)]
        )

    assert follows("14", 0) > 0.8 and follows("6", 3) > 0.7
    assert follows("14", 0) > follows("2", 0) + 0.4


def test_every_compartment_can_be_seen_and_none_looks_like_another():
    means = [pictures(str(number), 3)[..., 1] for number in range(28)]
    assert all(image.max() > 0.04 for images in means for image in images)
    flat = np.array([images.ravel() for images in means])
    assert np.abs(np.corrcoef(flat) - np.eye(28)).max() < 0.98


def test_test_pictures_are_darker():
    train, test = (np.mean([pictures("0 25", 24, split).mean()]) for split in ("train", "test"))
    assert test < train


def test_same_scene_at_another_size():
    small, large = (simulate.draw_sample(2, "train", 7, "23 0", size) for size in (128, 512))
    for channel in range(4):
        shrunk = [
            cv2.resize(image[..., channel], (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in (small, large)
        ]
        assert np.corrcoef(shrunk)[0, 1] > 0.9


@pytest.mark.parametrize(
    "option, value", [("size", 16), ("size", 4096), ("train", 0), ("test", -1), ("power", -1), ("duplicates", 1)]
)
def test_impossible_settings_are_refused(tmp_path, option, value):
    refuse("utils.simulate", "--out", tmp_path / "a", f"--{option}", value, says=option)
    assert not (tmp_path / "a").exists()


def test_near_copies_are_the_same_scene_moved(tmp_path):
    plain, copy = (
        simulate.draw_sample(4, "train", 3, "0", 128),
        simulate.draw_sample(4, "train", 9, "0", 128, copy_of=3),
    )
    other = simulate.draw_sample(4, "train", 9, "0", 128)

    def best_match(a, b):
        patch = a[16:112, 16:112, 2].astype(np.float32)
        return cv2.matchTemplate(b[..., 2].astype(np.float32), patch, cv2.TM_CCOEFF_NORMED).max()

    assert best_match(plain, copy) > 0.8 > best_match(plain, other)
    assert not np.array_equal(plain, copy)

"""Images unlike the training images: the file of a fold, what is marked and why."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import kit, refuse, succeed, train_options

from utils.data.cache import Images
from utils.data.image_files import find_files, scan_folders
from utils.data.image_statistics import statistic_names
from utils.data.images import parse_channels
from utils.errors import InputError
from utils.opencv import cv2
from utils.runs import unlike_training
from utils.tools.judge_unlike import damage, damages

RGBY = parse_channels("rgby")


def images_of(folder, size=64):
    found = scan_folders([folder])
    return Images(find_files([folder], sorted(found), RGBY, found), size)


@pytest.fixture(scope="module")
def fitted(atlas):
    return unlike_training.fit(unlike_training.measure(images_of(atlas / "train"), RGBY.names), RGBY.names)


def judged(fitted, images):
    values = [unlike_training.image_statistics(image, fitted.channels) for image in images]
    return unlike_training.judge([fitted], np.stack(values))


def pixels(folder):
    images = images_of(folder)
    return [images.read(row) for row in range(len(images))]


FOUND = {  # damage: what should be said of it
    "brightfield": {"bright background"},
    "empty field": {"faint"},
    "noise": {"bright background", "noisy", "few or no nuclei"},
    "8 times as bright": {"saturated"},
    "out of focus, 1/64 of the side": {"blurred"},
    "enlarged 4 times": {"blurred"},
    "no nuclei": {"few or no nuclei"},
    "red and blue swapped": {"channels swapped"},
}


def test_clean_images_are_not_marked(fitted, atlas):
    """A rate of 1 / 49: of 16 images more than 3 would be found once in two thousand times."""
    assert fitted.rate == 1 / 49
    assert (judged(fitted, pixels(atlas / "test"))["unlike_training"] > 1).sum() <= 3


@pytest.mark.parametrize("name", FOUND)
def test_damage_is_found_and_named(fitted, atlas, name):
    rng = np.random.default_rng(0)
    table = judged(fitted, [damage(image, damages(RGBY.names)[name], rng) for image in pixels(atlas / "test")])
    marked = table["unlike_training"] > 1
    assert marked.mean() >= 0.6
    assert np.mean([reason.split(" (")[0] in FOUND[name] for reason in table["reason"][marked]]) >= 0.7
    assert (table["reason"] != "").equals(marked)


def test_swapped_channels_are_named(fitted, atlas):
    table = judged(fitted, [np.ascontiguousarray(image[..., [2, 1, 0, 3]]) for image in pixels(atlas / "train")])
    assert (table["reason"] == "channels swapped (red, blue)").mean() > 0.7


def test_several_folds_are_averaged(fitted, atlas):
    values = unlike_training.measure(images_of(atlas / "test"), RGBY.names)
    other = fitted._replace(threshold=2 * fitted.threshold)
    both, one = (unlike_training.judge(folds, values)["unlike_training"] for folds in ([fitted, other], [fitted]))
    assert both.to_numpy() == pytest.approx(0.75 * one.to_numpy())


def test_counts_are_written_in_words():
    table = pd.DataFrame({"unlike_training": [0.5, 3.0, 1.5, 2.0], "reason": ["", "faint (red)", "blurred", "faint"]})
    said = unlike_training.describe(list("abcd"), table)
    assert said == "3 of 4 images are unlike the training images (faint 2, blurred 1), most of all b, d, c"
    assert unlike_training.describe(["a"], table[:1]) == "0 of 1 image is unlike the training images"


def test_a_file_holds_all_to_the_bit(fitted, tmp_path):
    assert unlike_training.read(tmp_path, RGBY.names) is None
    unlike_training.write(tmp_path, fitted)
    again = unlike_training.read(tmp_path, RGBY.names)
    assert again._replace(gaussian=None) == fitted._replace(gaussian=None)
    for one, other in zip(again.gaussian, fitted.gaussian, strict=True):
        assert np.array_equal(one, other)
    with pytest.raises(InputError, match="other channels"):
        unlike_training.read(tmp_path, ("green",))


@pytest.mark.parametrize("different", [1, 2, 5])
def test_few_or_equal_images_give_a_file_that_is_read(atlas, tmp_path, different):
    values = np.resize(unlike_training.measure(images_of(atlas / "train"), RGBY.names)[:different], (6, 33))
    unlike_training.write(tmp_path, unlike_training.fit(values, RGBY.names))
    table = unlike_training.judge([unlike_training.read(tmp_path, RGBY.names)], values + 5)
    assert np.isfinite(table["unlike_training"]).all() and (table["reason"] != "").all()


def without(content, key):
    return {name: value for name, value in content.items() if name != key}


WRONG = {
    "lacks": lambda c: without(c, "covariance"),
    "short": lambda c: c | {"mean": c["mean"][1:]},
    "text": lambda c: c | {"deviation": ["a"] * len(c["mean"])},
    "ragged": lambda c: c | {"covariance": c["covariance"][1:] + [[1.0]]},
    "NaN": lambda c: c | {"mean": [float("nan")] * len(c["mean"])},
    "zero": lambda c: c | {"deviation": [0.0] * len(c["mean"])},
    "singular": lambda c: c | {"covariance": [[1.0] * len(c["mean"])] * len(c["mean"])},
    "asymmetric": lambda c: c | {"covariance": [[2.0] * len(c["mean"]), *c["covariance"][1:]]},
    "huge": lambda c: c | {"mean": [1e300] * len(c["mean"])},
    "infinite": lambda c: c | {"images": "inf"},
    "text NaN": lambda c: c | {"threshold": "nan"},
    "negative": lambda c: c | {"threshold": -1.0},
    "other": lambda c: c | {"statistics": c["statistics"][::-1]},
    "list": lambda c: [c],
    "null": lambda c: None,
}


@pytest.mark.parametrize("name", WRONG)
def test_damaged_files_are_refused_in_one_sentence(fitted, tmp_path, name):
    unlike_training.write(tmp_path, fitted)
    path = tmp_path / unlike_training.FILE
    path.write_text(json.dumps(WRONG[name](json.loads(path.read_text()))))
    with pytest.raises(
        InputError, match="image_statistics.json is not a table of image statistics .*; write it again"
    ) as caught:
        unlike_training.read(tmp_path, RGBY.names)
    assert "\n" not in str(caught.value)


def test_training_writes_the_same_file_for_any_workers_and_when_it_goes_on(run, atlas, folds, tmp_path):
    path = run / "fold0" / unlike_training.FILE
    content = json.loads(path.read_text())
    rows = pd.read_csv(run / "fold0/rows.csv")
    assert content["images"] == (rows["part"] == "train").sum() and content["statistics"] == statistic_names(
        ("blue", "green", "red", "yellow")
    )
    command = train_options(atlas, folds, tmp_path, epochs=2, workers=1, seed=5)
    succeed("train", *command, "--max-minutes", 1e-9)
    other = tmp_path / "mini/fold0" / unlike_training.FILE
    assert other.read_bytes() == path.read_bytes()
    other.unlink()  # as if an older version had begun the run
    succeed("train", *command)
    assert other.read_bytes() == path.read_bytes()


def test_predict_names_each_of_them(run, atlas, thresholds, tmp_path):
    """In the table and on the page, one of three images without nuclei."""
    found = scan_folders([atlas / "train"])
    ids = sorted(found)[:3]
    for id_ in ids:
        for path in found[id_].values():
            (tmp_path / "images").mkdir(exist_ok=True)
            (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    cv2.imwrite(str(tmp_path / f"images/{ids[1]}_blue.png"), np.zeros((64, 64), np.uint8))
    words = ["--images", tmp_path / "images", "--thresholds", thresholds, "--workers", 0, "-o", tmp_path / "p.csv"]
    more = ["--names", tmp_path / "n.csv", "--sheet", tmp_path / "s.html"]
    out = succeed("predict", run, *words, *more).out
    assert f"1 of 3 images is unlike the training images (few or no nuclei 1), most of all {ids[1]}" in out
    table = pd.read_csv(tmp_path / "n.csv", keep_default_na=False).drop_duplicates("Id").set_index("Id")
    assert table.columns[-2:].tolist() == ["unlike_training", "reason"]
    assert (table["unlike_training"] > 1).to_dict() == {id_: id_ == ids[1] for id_ in ids}
    assert table.loc[ids, "reason"].tolist() == ["", "few or no nuclei", ""]
    page = (tmp_path / "s.html").read_text()
    assert page.count("unlike the training images: ") == 1
    assert f"{ids[1]}, unlike the training images: few or no nuclei" in page


def test_predict_counts_them_and_predicts_the_same_without(run, atlas, predictions, tmp_path):
    own = tmp_path / "run/fold0"
    own.mkdir(parents=True)
    for name in ("best.safetensors", "config.json", unlike_training.FILE):
        (own / name).write_bytes((run / "fold0" / name).read_bytes())
    words = [own, "--images", atlas / "test", "--workers", 2, "-o"]
    assert "of 16 images are unlike the training images" in succeed("predict", *words, tmp_path / "with.csv").out
    (own / unlike_training.FILE).write_text("{")
    refuse("predict", *words, tmp_path / "bad.csv", says=["image_statistics.json is not", "judge_unlike"])
    assert not (tmp_path / "bad.csv").exists()
    (own / unlike_training.FILE).unlink()
    out = succeed("predict", *words, tmp_path / "without.csv").out
    assert f"{own} has no image_statistics.json" in out and "unlike the training images (" not in out
    assert (tmp_path / "with.csv").read_bytes() == (tmp_path / "without.csv").read_bytes()
    result = kit("utils.tools.judge_unlike", own, "--images", atlas / "train", "--write")
    assert result.code == 2 and "rows.csv" in result.err
    (own / "rows.csv").write_bytes((run / "fold0/rows.csv").read_bytes())
    succeed("utils.tools.judge_unlike", own, "--images", atlas / "train", "--limit", 2, "--write")
    assert (own / unlike_training.FILE).read_bytes() == (run / "fold0" / unlike_training.FILE).read_bytes()

"""The simulated atlas: the same seed gives the same bytes, labels follow the real table, files come as asked for."""

import filecmp
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

from utils.data.image_files import check_files
from utils.data.images import read_plane
from utils.errors import InputError
from utils.opencv import cv2
from utils.simulator.optics import photograph
from utils.simulator.plan import MISTAKEN_FOR, Settings, plan_image
from utils.simulator.sample import draw_sample
from utils.simulator.write import damage, target

CHANNELS = ("red", "green", "blue", "yellow")


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def make(folder, workers=1, **more):
    options = {"train": 12, "test": 5, "size": 48, "seed": 5, "power": 0.7} | more
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    return succeed("utils.simulator.__main__", "--out", folder, "--workers", workers, *words)


def same(a, b, names):
    return filecmp.cmpfiles(a, b, names, shallow=False)[1:] == ([], [])


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.mark.parametrize("more", [{"external": 4, "corrupt": 0.3}, {"form": "cyto", "corrupt": 0.3}])
def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path, more):
    more |= {"train": 6, "test": 2}
    make(tmp_path / "a", workers=1, **more)
    make(tmp_path / "b", workers=2, **more)
    names = files_of(tmp_path / "a")
    assert names == files_of(tmp_path / "b")
    assert same(tmp_path / "a", tmp_path / "b", names)


def test_kaggles_layout(atlas):
    train, test = (read(atlas / name) for name in ("train.csv", "solution.csv"))
    sample = read(atlas / "sample_submission.csv")
    assert list(train.columns) == ["Id", "Target"] and list(sample.columns) == ["Id", "Predicted"]
    assert sample["Id"].tolist() == test["Id"].tolist() and (sample["Predicted"] == "0").all()
    for split, table in (("train", train), ("test", test)):
        names = {f"{id_}_{channel}.png" for id_ in table["Id"] for channel in CHANNELS}
        assert {path.name for path in (atlas / split).iterdir()} == names
        plane = cv2.imread(str(atlas / split / sorted(names)[0]), cv2.IMREAD_UNCHANGED)
        assert plane.shape == (64, 64) and plane.dtype == np.uint8


def test_an_interrupted_atlas_is_completed_and_a_finished_one_kept(tmp_path):
    out = tmp_path / "a"
    make(out)
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    assert "complete already" in make(out).out
    settings = Settings(12, 5, size=48, power=0.7)
    other = {plan_image(settings, "train", i).id for i in range(12)}
    assert other.isdisjoint(read(out / "train.csv")["Id"])  # another seed, another atlas
    for name in [name for name in before if name.suffix == ".png"][:7] + [Path("truth.csv"), Path("solution.csv")]:
        (out / name).unlink()
    note = out / "atlas.json"
    note.write_text(note.read_text().replace("complete", "unfinished"))
    (out / "train/.x_red.png.part").write_text("what a crash left")
    make(out)
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before
    call = ["utils.simulator.__main__", "--out", out, "--train", 3, "--test", 2, "--size", 48]
    refuse(*call, says="other settings (train 12, test 5, seed 5")
    note.write_text(json.dumps({"state": "complete"}))
    refuse(*call, says="does not contain the settings of an atlas")
    note.unlink()
    refuse(*call, says="did not write")


def test_chosen_ids_are_drawn_alone_and_alike(tmp_path):
    whole, part = tmp_path / "all", tmp_path / "some"
    make(whole, duplicates=0.5)
    chosen = read(whole / "train.csv")["Id"].tolist()[3:6] + read(whole / "solution.csv")["Id"].tolist()[:1]
    pd.DataFrame({"Id": chosen}).to_csv(tmp_path / "ids.csv", index=False)
    make(part, duplicates=0.5, ids=tmp_path / "ids.csv")
    images = [name for name in files_of(part) if name.suffix == ".png"]
    assert len(images) == 16 and {name.name.split("_")[0] for name in images} == set(chosen)
    assert same(whole, part, images)
    make(part, duplicates=0.5)
    assert same(whole, part, files_of(whole))
    truth = read(whole / "truth.csv").set_index("Id")
    copies = truth[truth["Copies"] != ""]
    assert len(copies) > 3 and (truth.loc[copies["Copies"], "Shows"].to_numpy() == copies["Shows"]).all()
    (tmp_path / "other.csv").write_text("Id\nnobody\n")
    words = ["--out", tmp_path / "x", "--ids", tmp_path / "other.csv"]
    refuse("utils.simulator.__main__", *words, says=["nobody", "--ids"])


def test_label_frequencies_are_the_real_ones():
    settings = Settings(4000, 0)
    drawn = [plan_image(settings, "train", index).label for index in range(4000)]
    share = np.bincount([number for label in drawn for number in label], minlength=28) / 4000
    real = {0: 12885, 25: 8228, 21: 3777, 2: 3621, 14: 1066, 27: 11}  # of 31,072
    for number, count in real.items():
        p = count / 31072
        assert abs(share[number] - p) < 5 * np.sqrt(p * (1 - p) / 4000) + 1e-4
    both = np.mean([0 in label and 25 in label for label in drawn])
    assert abs(both - 3631 / 31072) < 0.025  # rows of train.csv with both


def test_label_noise_changes_the_given_share_of_labels_and_never_the_truth(tmp_path):
    settings = Settings(2000, 500, external=500, power=0.5, label_noise=0.2)
    plans = {split: [plan_image(settings, split, i) for i in range(500)] for split in ("train", "test", "external")}
    wrong = {split: np.mean([plan.label != plan.shows for plan in rows]) for split, rows in plans.items()}
    assert wrong["test"] == 0
    assert 0.13 < wrong["train"] < 0.26 and 0.13 < wrong["external"] < 0.26
    for plan in plans["train"]:
        assert plan.label and len({*plan.label} ^ {*plan.shows}) <= 2  # one class too few, too many or mistaken
        gone, come = {*plan.shows} - {*plan.label}, {*plan.label} - {*plan.shows}
        assert not come or any(come <= {*MISTAKEN_FOR[number]} for number in (gone or plan.shows))
    make(tmp_path / "a", label_noise=1)
    names = ("truth", "train", "solution")
    truth, train, solution = (read(tmp_path / "a" / f"{name}.csv").set_index("Id") for name in names)
    assert (truth.loc[train.index, "Target"] == train["Target"]).all()
    assert (truth.loc[train.index, "Shows"] != train["Target"]).sum() >= 8
    assert (truth.loc[solution.index, "Shows"] == solution["Target"]).all()


def test_near_copies_show_the_labels_of_a_train_image():
    settings = Settings(60, 60, external=60, duplicates=0.4)
    for split in ("train", "test", "external"):
        copies = [plan for i in range(60) if (plan := plan_image(settings, split, i)).copies is not None]
        assert 10 < len(copies) < 40
        for plan in copies:
            original = plan_image(settings, "train", plan.copies)
            assert original.copies is None and original.shows == plan.shows


def test_the_cyto_form_has_13_classes_mixed_tiffs_and_the_damage_it_lists(tmp_path):
    make(tmp_path / "a", form="cyto", train=40, test=4, size=64, corrupt=0.25, power=0.3)
    truth = read(tmp_path / "a/truth.csv")
    assert len(read(tmp_path / "a/classes.csv")) == 13
    assert {int(word) for target in truth["Target"] for word in target.split()} <= set(range(13))
    broken = truth[truth["corrupt"] != ""]
    assert 4 <= len(broken) <= 20 and len(set(broken["corrupt"])) >= 3
    shapes, depths, stored = set(), set(), set()
    for row in truth.itertuples():
        paths = [tmp_path / "a" / row.split / f"{row.Id}_{channel}.tif" for channel in CHANNELS]
        if row.corrupt:
            with pytest.raises(InputError, match=row.Id):
                check_files([paths])
            continue
        check_files([paths])
        planes = [read_plane(path) for path in paths]
        assert len({plane.shape for plane in planes}) == 1 and all(plane.max() > 3 for plane in planes)
        shapes.add(planes[0].shape[0])
        depths.add(planes[0].dtype.name)
        stored.add(cv2.imread(str(paths[1]), cv2.IMREAD_UNCHANGED).ndim)
    assert shapes == {54, 64, 96} and depths == {"uint8", "uint16"} and stored == {2, 3}


def test_the_external_set_is_jpeg_and_brighter_than_train_and_the_test_set_darker(tmp_path):
    make(tmp_path / "a", external=2)
    assert {path.suffix for path in (tmp_path / "a/external").iterdir()} == {".jpg"}
    assert len(read(tmp_path / "a/external.csv")) == 2

    def brightness(split):
        return np.mean([draw_sample(1, split, index, (0, 25), 64).mean() for index in range(12)])

    assert brightness("test") < 0.9 * brightness("train") and brightness("train") < brightness("external")


def test_same_scene_at_another_size():
    images = [draw_sample(2, "train", 7, (23, 0), size) for size in (64, 256, 1024)]
    shrunk = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) for image in images])
    for channel in range(4):
        assert np.corrcoef(shrunk[..., channel].reshape(3, -1)).min() > 0.9


def test_sixteen_bits_are_the_same_image_with_more_steps():
    eight, sixteen = (draw_sample(2, "train", 3, (6,), 64, bits=bits) for bits in (8, 16))
    assert sixteen.dtype == np.uint16 and np.abs(sixteen / 257 - eight).max() <= 0.51
    assert len(np.unique(sixteen)) > 4 * len(np.unique(eight))


OUT_OF_RANGE = """--size 16, --size 4096, --train 0, --test -1, --external -1, --power -1, --duplicates 1.1, --corrupt nan,
    --label-noise 1.5, --ambiguity -0.1, --form tiff, --workers 0"""


@pytest.mark.parametrize("words", OUT_OF_RANGE.split(","))
def test_impossible_settings_are_refused(tmp_path, words):
    option, value = words.split()
    refuse("utils.simulator.__main__", "--out", tmp_path / "a", option, value, says=option)
    assert not (tmp_path / "a").exists()


def test_near_copies_are_the_same_scene_moved():
    plain, copy = draw_sample(4, "train", 3, (0,), 128), draw_sample(4, "train", 9, (0,), 128, copies=3)
    other = draw_sample(4, "train", 9, (0,), 128)

    def best_match(a, b):
        patch = a[16:112, 16:112, 2].astype(np.float32)
        return cv2.matchTemplate(b[..., 2].astype(np.float32), patch, cv2.TM_CCOEFF_NORMED).max()

    assert best_match(plain, copy) > 0.8 > best_match(plain, other)
    assert not np.array_equal(plain, copy)


def test_every_kind_of_damage_befalls_every_channel_at_the_given_rate():
    settings = Settings(600, 0, corrupt=0.3)
    found = [damage(plan_image(settings, "train", index), settings) for index in range(600)]
    assert 0.24 < np.mean([fault != "" for fault, _ in found]) < 0.36
    assert len({pair for pair in found if pair[0]}) == 16


def test_label_noise_of_the_cyto_form_changes_its_labels():
    settings = Settings(400, 0, form="cyto", label_noise=1.0, power=0.5)
    for index in range(400):
        plan = plan_image(settings, "train", index)
        assert target(plan.shows, settings) != target(plan.label, settings) != ""


def test_exposure_and_black_level_are_alike_at_every_size():
    flat = [np.full((size, size, 4), 0.3, np.float32) for size in (256, 512)]
    images = [photograph(np.random.default_rng(3), light, len(light), "train", 16) for light in flat]
    means = [image.mean(axis=(0, 1)) / 65535 for image in images]
    unsaturated = means[1] < 0.8
    assert unsaturated.sum() >= 2 and means[0][unsaturated] == pytest.approx(means[1][unsaturated], abs=0.004)


def test_sheets_of_all_compartments_and_cell_types_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.simulator.sheets.SIZE", 64)
    monkeypatch.setattr("utils.simulator.sheets.CROP", 32)
    succeed("utils.simulator.sheets", "-o", tmp_path)
    for name in ("compartments.jpg", "cell_types.jpg"):
        assert cv2.imread(str(tmp_path / name)).std() > 20

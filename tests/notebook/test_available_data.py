"""Which data a notebook shows, and what is missing in them."""

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import write_images
from example_labels import COLOURS, lay_out

from utils.notebook import overview
from utils.notebook.available_data import find_data, mixed_fields, open_data
from utils.simulator.plan import Settings


@pytest.fixture(scope="module")
def ids(atlas):
    return pd.read_csv(atlas / "train.csv", dtype=str)["Id"].tolist()


def test_without_data_an_atlas_is_simulated_once(tmp_path, capsys):
    small = Settings(6, 3, size=32)
    data = find_data(tmp_path / "input", small)
    out = capsys.readouterr().out
    assert "a small simulated atlas" in out and "6 labelled samples, 3 test samples" in out
    assert data.folder == tmp_path / "input/explore" and not data.real and len(data.train) == 6 and len(data.test) == 3
    before = (data.folder / "atlas.json").stat().st_mtime_ns
    assert find_data(tmp_path / "input", small).train == data.train
    assert (data.folder / "atlas.json").stat().st_mtime_ns == before


def test_the_competition_comes_before_the_demo_and_that_before_a_new_atlas(tmp_path, atlas, ids, capsys):
    shutil.copytree(atlas, tmp_path / "demo")
    data = find_data(tmp_path)
    assert not data.real and data.folder == tmp_path / "demo" and len(data.train) == 48
    assert "the simulated atlas of bash run.sh" in capsys.readouterr().out
    shutil.copy(atlas / "train.csv", tmp_path)
    assert not find_data(tmp_path).real, "labels alone are no data to look at"
    data = find_data(lay_out(tmp_path, atlas, ids[:3]))
    assert data.real and sorted(data.train) == sorted(ids[:3]) and len(data.test) == 16
    assert capsys.readouterr().out.splitlines()[-1] == "the competition's files: 3 labelled samples, 16 test samples"
    assert not (tmp_path / "explore").exists()


def test_incomplete_samples_are_left_out_and_reported(tmp_path, atlas, ids, capsys):
    root = lay_out(tmp_path, atlas, ids[:5], test=False, more=ids[5:9])
    (root / f"train/{ids[1]}_yellow.png").unlink()
    write_images(root / "train", ["stranger"])
    data = find_data(root)
    assert sorted(data.train) == sorted({*ids[:5]} - {ids[1]}) and data.test == {} and len(data.labels) == 9
    assert data.with_images()["Id"].tolist() == [id_ for id_ in data.labels["Id"] if id_ in data.train]
    assert capsys.readouterr().out.strip() == (
        f"the competition's files: 9 labelled samples, 0 test samples; 4 labelled samples with all four images; "
        f"1 sample left out for a missing channel ({ids[1]} has no yellow); 1 sample of train/ without a label"
    )


def test_samples_are_drawn_by_seed_and_damaged_ones_left_out(own_atlas, ids):
    data = open_data(own_atlas, "")
    some = data.sample("train", 10)
    assert len(some) == 10 and data.sample("train", 10) == some != data.sample("train", 10, seed=1)
    for id_, paths in some.items():
        assert [path.name for path in paths] == [f"{id_}_{colour}.png" for colour in COLOURS]
    assert sorted(data.sample("train", 1000)) == sorted(ids)
    victim = data.train[ids[0]]["blue"]
    victim.write_bytes(victim.read_bytes()[:-20])
    assert sorted(data.sample("train", 1000)) == sorted(ids[1:])


def test_half_of_the_fields_are_real_if_the_data_are(atlas):
    simulated, real = (mixed_fields(open_data(atlas, "", flag), count=3, size=48) for flag in (False, True))
    assert [source for source, _ in simulated] == ["simulated"] * 3
    assert sorted(source for source, _ in real) == ["real"] * 3 + ["simulated"] * 3
    assert all(image.shape == (48, 48, 4) for _, image in simulated + real)
    means = overview.channel_means(list(open_data(atlas, "", True).sample("train", 3).values()))
    found = np.array([image.mean(axis=(0, 1)) / 255 for source, image in real if source == "real"])
    assert np.sort(found[:, 0]) == pytest.approx(np.sort(means[:, 0]), abs=0.01), "64² reduced to 48² keeps its mean"

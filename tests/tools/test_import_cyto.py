"""The Cyto Challenge in its authors' form: npz samples and lists of labels."""

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

from utils.data.image_files import find_files
from utils.data.images import load_sample, parse_channels

CLASSES = ["Nucleus", "Cytosol, Vesicles", "Actin filaments, Nucleus", "Golgi apparatus"]
NUMBERS = ["10", "2 12", "0 10", "4"]


def sample(number):
    return np.random.default_rng(number).integers(0, 256, (48 + 16 * (number % 2), 48 + 16 * (number % 2), 4), np.uint8)


@pytest.fixture
def published(tmp_path):
    """A folder npzs/ of twelve samples, two lists of their labels."""
    folder = tmp_path / "npzs"
    folder.mkdir()
    lines = []
    for number in range(12):
        save = np.savez_compressed if number % 3 else np.savez
        save(folder / f"s{number}.npz", sample=sample(number))
        lines.append(f"s{number}, {CLASSES[number % 4]}\n")
    (tmp_path / "labels_train.txt").write_text("".join(lines[:9]))
    (tmp_path / "labels_val.txt").write_text("".join(lines[9:]))
    return tmp_path


def call(published):
    lists = [word for name in ("train", "val") for word in ("--labels", published / f"labels_{name}.txt")]
    return ["utils.tools.import_cyto", published / "npzs", *lists, "--to", published / "cyto"]


def test_samples_are_converted_and_train_gapnet(published):
    assert "12 of 12 samples, 0 left out" in succeed(*call(published)).out
    cyto = published / "cyto"
    table = pd.read_csv(cyto / "train.csv", dtype=str)
    assert table["Id"].tolist() == [f"s{number}" for number in range(12)]
    assert table["Target"].tolist() == NUMBERS * 3
    files = find_files([cyto / "train"], table["Id"], parse_channels("bgry"))
    for number, paths in enumerate(files):
        np.testing.assert_array_equal(load_sample(paths), sample(number))
    common = ["--classes", "cyto", "--images", cyto / "train"]
    split = cyto / "split.csv"
    options = ["--labels", cyto / "train.csv", "--split", "8:1:1", "--hash-distance", -1, "-o", split]
    succeed("make_folds", *common, *options)
    options = [
        "--folds",
        split,
        "--runs",
        published / "runs",
        "--size",
        32,
        "--epochs",
        1,
        "--batch-size",
        4,
        "--workers",
        0,
    ]
    succeed("train", "--recipe", "gapnet_pl", "--fold", 0, *common, *options)
    assert (published / "runs/gapnet_pl/fold0/oof.csv").is_file()


def test_the_order_of_channels_can_be_given(published):
    succeed(*call(published), "--channels", "rgby")
    files = find_files([published / "cyto/train"], ["s0"], parse_channels("rgby"))
    np.testing.assert_array_equal(load_sample(files[0]), sample(0))
    for wrong in ("rgb", "rgbyy", "rgb+y/3"):
        refuse(*call(published), "--channels", wrong, says=["channels", wrong])


def test_corrupt_samples_are_listed_and_left_out(published):
    npzs, good = published / "npzs", sample(0)
    (npzs / "s0.npz").write_bytes((npzs / "s0.npz").read_bytes()[:-3000])
    np.savez(npzs / "s1.npz", image=good)
    np.savez(npzs / "s2.npz", sample=good.astype(np.float32))
    np.savez(npzs / "s3.npz", sample=good[..., :3])
    np.savez(npzs / "s4.npz", sample=np.array([{}], object))
    good[..., 2] = 7
    np.savez(npzs / "s5.npz", sample=good)
    (npzs / "s6.npz").unlink()
    np.savez(npzs / "s7.npz", sample=good[:8])
    assert "4 of 12 samples, 8 left out" in succeed(*call(published)).out
    dropped = pd.read_csv(published / "cyto/train_dropped.csv", dtype=str)
    assert dropped["Id"].tolist() == [f"s{number}" for number in range(8)]
    says = ["", "sample.npy", "float32", "48x48x3", "", "red has one value", "cannot be read", "too few"]
    assert all(part in why and "npz" in why for part, why in zip(says, dropped["why"]))
    assert pd.read_csv(published / "cyto/train.csv")["Id"].tolist() == ["s8", "s9", "s10", "s11"]
    assert {path.name.split("_")[0] for path in (published / "cyto/train").iterdir()} == {"s8", "s9", "s10", "s11"}


def test_the_same_command_goes_on(published):
    succeed(*call(published))
    images = published / "cyto/train"
    times = {path.name: path.stat().st_mtime_ns for path in images.iterdir()}
    (images / "s3_red.png").unlink()
    cut = images / "s4_blue.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    assert "12 samples, 10 converted already" in succeed(*call(published)).out
    changed = {path.name.split("_")[0] for path in images.iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert changed == {"s3", "s4"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x, Nucleus, Nucleoplasm", ["line 10", "Nucleoplasm", "Golgi apparatus"]),
        ("s1, Nucleus", ["line 10", "a second time", "s1"]),
        ("../x, Nucleus", ["line 10", "../x"]),
    ],
)
def test_a_bad_list_is_refused_before_anything_is_written(line, says, published):
    with open(published / "labels_train.txt", "a") as file:
        file.write(f"{line}\n")
    refuse(*call(published), says=["labels_train.txt", *says])
    assert not (published / "cyto").exists()


def test_without_usable_samples_or_lists_nothing_is_written(published):
    (published / "labels_val.txt").write_bytes(b"\xff\xfe\x00")
    refuse(*call(published), says=["labels_val.txt", "UTF-8"])
    (published / "labels_val.txt").write_text("\n")
    for path in (published / "npzs").iterdir():
        path.write_bytes(b"")
    refuse(*call(published), says=["no sample can be used", "s0.npz"])
    assert not (published / "cyto/train.csv").exists()

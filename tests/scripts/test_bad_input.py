"""Bad input ends in one sentence and exit code 2, before anything is written."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, kit, refuse, succeed, train_options, write_images, write_labels
from PIL import Image

from utils.data.image_files import check_crop
from utils.data.tables import read_table
from utils.engine import checkpoint
from utils.errors import InputError
from utils.opencv import cv2
from utils.runs.predictions import read_predictions, write_predictions

ENSEMBLE = "ensemble {0} --thresholds {thresholds} --sample {atlas}/sample_submission.csv -o {tmp}/s.csv"


@pytest.fixture
def refused(atlas, folds, run, predictions, thresholds, tmp_path):
    """A function that refuses a command line, `says` in its message. {atlas}, {tmp} and so on stand for paths, {0} for
    a value."""
    paths = {
        "atlas": atlas,
        "folds": folds,
        "run": run,
        "predictions": predictions,
        "thresholds": thresholds,
        "tmp": tmp_path,
    }

    def check(command, *says, values=(), **more):
        script, *words = command.split()
        return refuse(script, *(word.format(*values, **paths | more) for word in words), says=says)

    return check


def first_id(atlas, split="train"):
    return pd.read_csv(atlas / ("train.csv" if split == "train" else "solution.csv"), dtype=str)["Id"].iloc[0]


def damage(kind, atlas, split):
    """Damage one sample of a split; returns what the message must name."""
    id_ = first_id(atlas, split)
    path = atlas / split / f"{id_}_blue.png"
    data = path.read_bytes()
    if kind == "missing channel":
        path.unlink()
        return path.stem
    if kind == "truncated":
        path.write_bytes(data[:-30])
    if kind == "damaged inside":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes(40) + data[middle + 40 :])
    if kind == "not an image":
        path.write_text("not an image")
    if kind == "empty file":
        path.write_bytes(b"")
    if kind == "unequal size":
        cv2.imwrite(str(path), np.zeros((20, 30), np.uint8))
    if kind == "no image":
        for channel in ("red", "green", "blue", "yellow"):
            (atlas / split / f"{id_}_{channel}.png").unlink()
        return id_
    return path.name


DAMAGES = ["missing channel", "truncated", "damaged inside", "not an image", "empty file", "unequal size", "no image"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_images(own_atlas, folds, tmp_path, refused, kind):
    named = damage(kind, own_atlas, "train")
    folding = "make_folds --labels {own}/train.csv --images {own}/train --folds 3 --hash-channels rgby -o {tmp}/f.csv"
    refused(folding, named, own=own_atlas)
    for options in ({}, {"workers": 1}, {"normalise": "image"}):
        refuse("train", *train_options(own_atlas, folds, tmp_path / "runs", **options), says=named)
    assert not list(tmp_path.glob("f*.csv")) and not list(tmp_path.glob("runs/**/*")), "also if only reading tells"
    named = damage(kind, own_atlas, "test")
    predict = "predict {run} --images {own}/test --ids {own}/solution.csv -o {tmp}/p.csv --workers 0"
    refused(predict, named, own=own_atlas)
    assert not (tmp_path / "p.csv").exists()


def test_many_bad_files_are_counted_and_the_first_few_named(own_atlas, folds, tmp_path):
    victims = sorted((own_atlas / "train").glob("*_green.png"))[:9]
    command = train_options(own_atlas, folds, tmp_path)
    for path in victims:
        path.unlink()
    message = refuse("train", *command, says=["9 channel files missing", "and 6 more"])
    assert sum(path.stem in message for path in victims) == 3
    for path in victims:
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    refuse("train", *command, says="9 unusable image files")


def test_images_without_a_row(own_atlas, tmp_path):
    write_images(own_atlas / "train", ["stranger"], size=64)
    labels = ["--labels", own_atlas / "train.csv", "--images", own_atlas / "train"]
    command = [*labels, "--folds", 3, "-o", tmp_path / "f.csv"]
    refuse("make_folds", *command, says=["1 Id with images", "stranger"])
    assert not (tmp_path / "f.csv").exists()
    assert kit("make_folds", *command, "--allow-unlabelled").code == 0


GOOD = "Id,Target\na,0\nb,1 2\nc,\nd,27\n"
TABLES = {
    "empty": ("", "is empty"),
    "only a header": ("Id,Target\n", "no rows"),
    "wrong columns": ("name,label\na,0\n", ["Id and Target", "name, label"]),
    "duplicate Ids": (GOOD + "a,3\n", ["1 Id more than once", "a"]),
    "class out of range": ("Id,Target\na,0\nb,28\n", ["1 row", "row 3", "'28'", "0 to 27"]),
    "negative class": ("Id,Target\na,-1\nb,0\n", ["row 2", "'-1'"]),
    "class is a word": ("Id,Target\na,Nucleoli\nb,0\n", "row 2"),
    "class twice": ("Id,Target\na,5 5\nb,0\n", "row 2"),
    "a number no int can hold": ("Id,Target\na,99999999999999999999\nb,0\n", "row 2"),
    "many bad rows": ("Id,Target\n" + "".join(f"i{n},99\n" for n in range(50)), ["50 rows", "row 2", "and 47 more"]),
    "empty Id": ("Id,Target\n,0\nb,1\n", "row 2"),
    "Id that leaves the folder": ("Id,Target\n../../etc/x,0\nb,1\n", "row 2"),
    "a field too many in every row": ("Id,Target\na,0,1\nb,1,2\n", ["2 rows with more or fewer", "row 2 (3)"]),
    "last row cut short": (GOOD + "e", ["1 row with more or fewer", "row 6 (1)"]),
    "blank line inside": ("Id,Target\na,0\n\nb,1\n", "row 3 (0)"),
    "two columns of one name": ("Id,Target,Target\na,0,1\n", "same name"),
    "a class of 5,000 digits": ("Id,Target\na," + "9" * 5000 + "\nb,1\n", "row 2"),
    "a cell without end": ('Id,Target\n"a,0\nb,1\n', "not a CSV"),
    "ragged": ("Id,Target\na,0\nb,1,2,3,4\n", "row 3 (5)"),
    "binary": (b"\x89PNG\r\n\x1a\n\xff\xfe\x00\x01", "t.csv"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_label_tables(tmp_path, kind):
    content, says = TABLES[kind]
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    command = ["--labels", tmp_path / "t.csv", "--folds", 2, "--hash-distance", -1, "-o", tmp_path / "out" / "f.csv"]
    refuse("make_folds", *command, says=["t.csv", *([says] if isinstance(says, str) else says)])
    assert not (tmp_path / "out").exists()


def test_missing_files(refused, tmp_path, atlas, folds):
    refused("make_folds --labels {tmp}/no.csv", "no.csv does not exist")
    refused("make_folds --labels {atlas}/train.csv --images {tmp}/no -o {tmp}/f.csv", "no is not a folder")
    refuse("train", *train_options(atlas, tmp_path / "no.csv", tmp_path), says="no.csv does not exist")
    refuse("train", *train_options(atlas, folds, tmp_path, weights=tmp_path / "no.pt"), says="no.pt does not exist")
    refused("predict {tmp}/no --images {atlas}/test -o {tmp}/p.csv", "holds no best.safetensors")
    refused("threshold {tmp}/no.csv --labels {atlas}/train.csv -o {tmp}/t.json", "no.csv does not exist")
    refused("threshold {tmp} -o {tmp}/t.json", "has no oof.csv")
    refused("ensemble {tmp}/no.csv --thresholds 0.5 -o {tmp}/s.csv", "no.csv does not exist")
    assert not list(tmp_path.iterdir())


def test_folds(refused, tmp_path, atlas, folds):
    make_folds = "make_folds --labels {atlas}/train.csv -o {tmp}/f.csv "
    refused(make_folds + "--folds 1", "--folds 1")
    refused(make_folds + "--folds 500", "48 rows")
    refused(make_folds + "--external x.csv", "NAME=CSV")
    refused(make_folds + "--external x={atlas}/train.csv", "48 Ids more than once")
    refuse("train", *train_options(atlas, folds, tmp_path, fold=3), says=["no fold 3", "0, 1, 2"])
    refuse("train", *train_options(atlas, atlas / "train.csv", tmp_path), says="lacks the column fold")
    table = pd.read_csv(folds, dtype=str, keep_default_na=False)
    table.assign(fold=["x", "-3", "1.5", *table["fold"][3:]]).to_csv(tmp_path / "bad.csv", index=False)
    refuse("train", *train_options(atlas, tmp_path / "bad.csv", tmp_path), says=["3 rows whose fold", "row 2 ('x')"])


OPTIONS = [
    ("channels", "xyz", "channels 'xyz'"),
    ("loss", "1:nonsense", "loss schedule"),
    ("name", "a/b", "--name"),
    ("device", "cuda:7", "device"),
    ("amp", "fp16", "--amp fp16"),
    ("weights", "imagenet", "no ImageNet weights for gapnet_pl"),
    ("classes", "no.csv", "no.csv"),
    ("size", 8193, "out of range; give a number from 16 to 8192"),
    ("size", 15, "out of range; give a number from 16 to 8192"),
    ("epochs", 2**31, "out of range; give a number from 1 to 2147483647"),
    ("epochs", 0, "out of range; give 1 or more"),
    ("batch-size", 0, "out of range; give a number from 1 to 1048576"),
    ("batch-size", 2**21, "out of range; give a number from 1 to 1048576"),
    ("lr", -1, "out of range; give 0 or more"),
    ("lr", "nan", "out of range; give a number from 0 to 2147483647"),
    ("lr", 1e12, "out of range; give a number from 0 to 2147483647"),
    ("fold", 100_000, "out of range; give a number from 0 to 99999"),
    ("ema", 2, "out of range; give 0 or more, less than 1"),
    ("ema", -1, "out of range; give 0 or more, less than 1"),
    ("seed", -1, "--seed -1"),
    ("limit", -3, "--limit -3"),
]


@pytest.mark.parametrize("option, value, says", OPTIONS)
def test_impossible_options_of_train(atlas, folds, tmp_path, option, value, says):
    message = refuse("train", *train_options(atlas, folds, tmp_path / "runs", **{option: value}), says=says)
    assert "out of range" not in says or f"--{option} {value}" in message
    assert not (tmp_path / "runs").exists()


def test_a_crop_larger_than_the_images(atlas, folds, tmp_path):
    command = train_options(atlas, folds, tmp_path, fit="crop", size=100)
    refuse("train", *command, says=["48 images smaller", "64x64", "--size 64"])


@pytest.mark.parametrize("rows", ["1,a\n2,b\n", "0,a\n0,b\n", "0,a\nx,b\n", "0,a\n1,a\n", "0,Id\n1,a\n", None])
def test_class_lists(refused, tmp_path, rows):
    (tmp_path / "classes.csv").write_text(f"class,name\n{rows}" if rows else "a,b\n1,2\n")
    refused("make_folds --labels {atlas}/train.csv --classes {tmp}/classes.csv -o {tmp}/f.csv", "classes.csv")


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_checkpoints(refused, run, tmp_path, monkeypatch):
    path = tmp_path / "x.pt"

    def check(says):
        refused("predict {tmp}/x.pt --images {atlas}/test -o {tmp}/p.csv --workers 0", "x.pt", says)
        assert not (tmp_path / "p.csv").exists()

    path.write_text("hello")
    check("not a checkpoint")
    path.write_bytes((run / "fold0/last.pt").read_bytes()[:5000])
    check("not a checkpoint")
    torch.save({"weights": torch.zeros(3)}, path)
    check("not a checkpoint written by train.py")
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    path.write_bytes(pickle.dumps({"model": Evil()}))
    check("not a checkpoint")
    torch.save({"config": Evil(), "model": {}, "epoch": 1, "score": 1.0}, path)
    check("not a checkpoint")
    assert not (tmp_path / "evil").exists(), "nothing in a checkpoint is executed"
    state = checkpoint.load(run / "fold0/best.safetensors")
    config = state["config"].to_dict()

    def save(**changed):
        torch.save(state | {"config": config | changed}, path)

    save(model="se_resnext50_32x4d")
    check("do not fit the network")
    save(class_names=["a", "b"])
    check("do not fit the network")
    for mean, says in ((None, "lacks the mean and std"), (5, "list of numbers"), ([0.1], "lacks the mean and std")):
        save(mean=mean)
        check(says)
    torch.save(state | {"config": {"model": "gapnet_pl"}}, path)
    check("lacks class_names")
    save(class_names=["other", *config["class_names"][1:]])
    refused("predict {run}/fold0 {tmp}/x.pt --images {atlas}/test -o {tmp}/p.csv", "x.pt", "class_names")
    state["model"]["head.bias"][3] = float("nan")
    save()
    refused("predict {tmp}/x.pt --images {atlas}/test -o {tmp}/p.csv --workers 0", "no number", ".png")
    assert not (tmp_path / "p.csv").exists()


def test_a_checkpoint_that_train_did_not_make_is_not_overwritten(run, atlas, folds, tmp_path):
    path = tmp_path / "mini/fold0/best.pt"
    path.parent.mkdir(parents=True)
    state = checkpoint.load(run / "fold0/best.safetensors")
    torch.save(state | {"config": {"model": "gapnet_pl"}}, path)
    before = path.read_bytes()
    says = ["best.pt: its config lacks class_names", "--overwrite"]
    refuse("train", *train_options(atlas, folds, tmp_path), says=says)
    assert path.read_bytes() == before


def test_predictions_that_do_not_fit(refused, predictions, tmp_path):
    table = read_predictions(predictions)
    pd.DataFrame({"Id": [*table.index[2:], "x1", "x2", "x3"]}).to_csv(tmp_path / "sample.csv", index=False)
    other_sample = ENSEMBLE.replace("{atlas}/sample_submission.csv", "{tmp}/sample.csv")
    refused(other_sample, "3 Ids missing: x1, x2, x3", "2 Ids too many", values=[predictions])
    fewer = table.iloc[:, :-1]
    write_predictions(tmp_path / "fewer.csv", table.index, fewer.to_numpy(), fewer.columns)
    two = ENSEMBLE.replace("{0}", "{predictions} {tmp}/fewer.csv")
    refused(two, "fewer.csv has other classes", "Rods & rings")
    refused(ENSEMBLE, "other classes than the predictions", "Rods & rings", values=[tmp_path / "fewer.csv"])
    write_predictions(tmp_path / "twice.csv", [*table.index[:-1], table.index[0]], table.to_numpy(), table.columns)
    refused(ENSEMBLE, "twice.csv", "more than once", values=[tmp_path / "twice.csv"])
    lines = predictions.read_text().splitlines()
    for value in ("1.5", "-0.1", "nan", "", "high", "inf"):
        id_, first, _, *rest = lines[3].split(",")
        wrong = [*lines[:3], ",".join([id_, first, value, *rest]), *lines[4:]]
        (tmp_path / "wrong.csv").write_text("\n".join(wrong) + "\n")
        says = ["wrong.csv: 1 value", "row 4, Nuclear membrane", value or "''"]
        refused(ENSEMBLE, *says, values=[tmp_path / "wrong.csv"])
    wrong = [",".join([line.split(",")[0], *["7"] * 28]) for line in lines[1:6]]
    (tmp_path / "wrong.csv").write_text("\n".join([lines[0], *wrong, *lines[6:]]) + "\n")
    message = refused(ENSEMBLE, "140 values", "and 137 more", values=[tmp_path / "wrong.csv"])
    assert message.count("'7'") == 3 and not (tmp_path / "s.csv").exists()


THRESHOLDS = """
nonsense
{}
[1, 2]
{"classes": 3, "thresholds": 4}
{"classes": ["a"], "thresholds": [0.5]}
{"classes": null
"""


def test_thresholds_files(refused, thresholds, tmp_path):
    command = ENSEMBLE.replace("{0}", "{predictions}").replace("{thresholds}", "{0}")
    for content in THRESHOLDS.split("\n"):
        (tmp_path / "t.json").write_text(content)
        refused(command, "t.json", values=[tmp_path / "t.json"])
    content = json.loads(thresholds.read_text())
    for value in (1.5, "0.5", None, float("nan")):
        (tmp_path / "t.json").write_text(json.dumps(content | {"thresholds": [value] * 28}))
        refused(command, "from 0 to 1", values=[tmp_path / "t.json"])
    refused(command, "from 0 to 1", values=["2"])


def test_labels_that_do_not_fit_the_predictions(refused, predictions, run, tmp_path):
    threshold, out = "threshold {predictions} ", "-o {tmp}/t.json "
    refused(threshold + out + "--labels {atlas}/train.csv", "train.csv lacks 16 Ids", "and 13 more")
    refused(threshold + out, "--labels")
    shutil.copy(predictions, tmp_path / "copy.csv")
    labels = "--labels {atlas}/solution.csv "
    refused(threshold + "{tmp}/copy.csv " + labels + out, "16 Ids in more than one")
    refused(threshold + "{predictions} " + labels + out, "given twice")
    refused(threshold + labels, "-o thresholds.json")
    refused(threshold + labels + out + "--classes cyto", "other classes than expected")
    shutil.copytree(run / "fold0", tmp_path / "fold0")
    (tmp_path / "fold0/config.json").write_text("{")
    refused("threshold {tmp}/fold0 " + out, "config.json")
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("place", ["/proc/nowhere/x", "file/x"])
def test_output_that_cannot_be_written(refused, atlas, folds, tmp_path, place):
    (tmp_path / "file").write_text("a file, not a folder")
    out = tmp_path / place  # an absolute place stays what it is
    refused("make_folds --labels {atlas}/train.csv -o {0}", "cannot write", values=[out])
    refuse("train", *train_options(atlas, folds, out), says="cannot write")
    refused("predict {run} --images {atlas}/test -o {0}", "cannot write", values=[out])
    refused("threshold {run} -o {0}", "cannot write", values=[out])
    ensemble = ENSEMBLE.replace("{0}", "{predictions}").replace("{tmp}/s.csv", "{0}")
    refused(ensemble, "cannot write", values=[out])
    refused(ensemble, "cannot write", values=[tmp_path / ("x" * 300)])
    refused(ensemble, "is a folder", values=[tmp_path])


def test_images_to_predict(refused, run, own_atlas, tmp_path):
    command = "predict {run} --images {own}/test -o {tmp}/p.csv --workers 0"
    (tmp_path / "empty").mkdir()
    refused("predict {run} --images {tmp}/empty -o {tmp}/p.csv", "no <Id>_<colour>.png files")
    refused(
        "predict {run} --images {atlas}/test --images {own}/test -o {tmp}/p.csv",
        "16 Ids also in another",
        own=own_atlas,
    )
    refused("predict {run} {run}/fold0 --images {atlas}/test -o {tmp}/p.csv", "fold0", "named twice")
    path = own_atlas / "test" / f"{first_id(own_atlas, 'test')}_red.png"
    path.with_name("._" + path.name).write_bytes(b"what macOS leaves")
    succeed("predict", run, "--images", own_atlas / "test", "-o", tmp_path / "p.csv", "--workers", 0)
    cv2.imwrite(str(path.with_suffix(".tif")), np.zeros((64, 64), np.uint8))
    refused(command, "in two files", path.stem, own=own_atlas)
    page = Image.fromarray(np.zeros((64, 64), np.uint8))
    page.save(path.with_suffix(".tif"), save_all=True, append_images=[page])
    path.unlink()
    refused(command, path.stem, "2 images", own=own_atlas)
    Image.fromarray(np.zeros((64, 64), np.float32)).save(path.with_suffix(".tif"))
    refused(command, path.stem, "32-bit", own=own_atlas)


def test_a_real_process_ends_with_code_2_and_no_traceback(tmp_path):
    words = [sys.executable, ROOT / "make_folds.py", "--labels", "no.csv"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_tables_of_these_tests_are_accepted(tmp_path):
    write_labels(tmp_path / "t.csv", {f"i{n}": str(n % 28) for n in range(56)})
    succeed("make_folds", "--labels", tmp_path / "t.csv", "--folds", 2, "-o", tmp_path / "f.csv")


def test_images_that_all_look_alike_do_not_make_one_group(tmp_path):
    write_images(tmp_path / "images", ["a"], size=32)
    ids = ["a", *(f"b{n}" for n in range(59))]
    for id_ in ids[1:]:
        for channel in ("red", "green", "blue", "yellow"):
            shutil.copy(tmp_path / "images" / f"a_{channel}.png", tmp_path / "images" / f"{id_}_{channel}.png")
    labels = write_labels(tmp_path / "t.csv", {id_: "0" for id_ in ids})
    command = ["--labels", labels, "--images", tmp_path / "images", "-o", tmp_path / "f.csv"]
    refuse("make_folds", *command, "--folds", 5, says=["60 of 60 images", "--hash-distance"])
    refuse("make_folds", *command, "--folds", 2, says=["1 group", "cannot fill 2 folds"])


def test_the_advice_is_possible(refused, tmp_path):
    write_labels(tmp_path / "one.csv", {"a": "0"})
    refused("make_folds --labels {tmp}/one.csv --folds 5 -o {tmp}/f.csv", "cannot fill 5 folds; give more rows")
    (tmp_path / "t.csv").write_text("Id\na,b\n")
    with pytest.raises(InputError, match="has 1 column, but 1 row with more or fewer"):
        read_table(tmp_path / "t.csv", ["Id"])
    with pytest.raises(InputError, match="give larger images, or train with --fit resize$"):
        check_crop([(tmp_path / "a_red.png",)], np.array([[8, 8]]), 32)


COMMANDS = """
make_folds train predict threshold ensemble utils.simulator.__main__ utils.simulator.sheets
utils.kaggle.fetch utils.kaggle.submit utils.kaggle.upload utils.tools.augment_sheet
utils.tools.baseline utils.tools.benchmark.__main__ utils.tools.compare utils.tools.confusion
utils.tools.find_duplicates utils.tools.evaluate utils.tools.judge_simulator utils.tools.plot
utils.tools.realism utils.tools.score utils.tools.class_priors utils.tools.import_weights
utils.tools.find_images utils.tools.judge_unlike utils.tools.neighbours
"""


@pytest.mark.parametrize("command", COMMANDS.split())
def test_help_fits_80_columns(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = succeed(command, "--help").out
    assert out and not [line for line in out.splitlines() if len(line) > 79]

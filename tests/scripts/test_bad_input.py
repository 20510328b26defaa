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
from conftest import ROOT, kit, refuse, submission_of, succeed, train_options, write_images, write_labels
from PIL import Image

from utils.data.images import check_crop
from utils.data.labels import read_table
from utils.errors import InputError
from utils.opencv import cv2
from utils.runs.predictions import read_predictions, write_predictions


def first_id(atlas, split="train"):
    return pd.read_csv(atlas / ("train.csv" if split == "train" else "solution.csv"), dtype=str)["Id"].iloc[0]


def damage(kind, atlas, split):
    """Damage one sample of a split; returns what the message must name."""
    path = atlas / split / f"{first_id(atlas, split)}_blue.png"
    if kind == "missing channel":
        path.unlink()
        return path.stem
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    if kind == "damaged inside":
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
        path.write_bytes(bytes(data))
    if kind == "not an image":
        path.write_text("not an image")
    if kind == "empty file":
        path.write_bytes(b"")
    if kind == "unequal size":
        cv2.imwrite(str(path), np.zeros((20, 30), np.uint8))
    if kind == "no image":
        for channel in ("red", "green", "blue", "yellow"):
            (atlas / split / f"{first_id(atlas, split)}_{channel}.png").unlink()
        return first_id(atlas, split)
    return path.name


DAMAGES = ["missing channel", "truncated", "damaged inside", "not an image", "empty file", "unequal size", "no image"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_images(own_atlas, folds, run, tmp_path, kind):
    named = damage(kind, own_atlas, "train")
    hashed = [
        "--labels",
        own_atlas / "train.csv",
        "--images",
        own_atlas / "train",
        "--folds",
        3,
        "-o",
        tmp_path / "f.csv",
    ]
    refuse("make_folds", *hashed, "--hash-channels", "rgby", says=named)
    refuse("train", *train_options(own_atlas, folds, tmp_path / "runs"), says=named)
    refuse("train", *train_options(own_atlas, folds, tmp_path / "runs", workers=1), says=named)
    refuse("train", *train_options(own_atlas, folds, tmp_path / "runs", normalise="image"), says=named)
    assert not list(tmp_path.glob("f*.csv")) and not list(tmp_path.glob("runs/**/*")), "also where only reading tells"
    named = damage(kind, own_atlas, "test")
    refuse("predict", run, "--images", own_atlas / "test", "--ids", own_atlas / "solution.csv", "-o", tmp_path / "p.csv",
           "--workers", 0, says=named)  # fmt: skip
    assert not (tmp_path / "p.csv").exists()


def test_many_bad_files_are_counted_and_the_first_few_named(own_atlas, folds, tmp_path):
    victims = sorted((own_atlas / "train").glob("*_green.png"))[:9]
    for path in victims:
        path.unlink()
    message = refuse(
        "train", *train_options(own_atlas, folds, tmp_path), says=["9 channel files missing", "and 6 more"]
    )
    assert sum(path.stem in message for path in victims) == 3
    for path in victims:
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    refuse("train", *train_options(own_atlas, folds, tmp_path), says="9 unusable image files")


def test_images_without_a_row(own_atlas, tmp_path):
    write_images(own_atlas / "train", ["stranger"], size=64)
    command = [
        "--labels",
        own_atlas / "train.csv",
        "--images",
        own_atlas / "train",
        "--folds",
        3,
        "-o",
        tmp_path / "f.csv",
    ]
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
    refuse("make_folds", "--labels", tmp_path / "t.csv", "--folds", 2, "--hash-distance", -1, "-o", tmp_path / "out" / "f.csv",
           says=["t.csv", *([says] if isinstance(says, str) else says)])  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_missing_files(tmp_path, run, atlas, folds):
    refuse("make_folds", "--labels", tmp_path / "no.csv", says="no.csv does not exist")
    refuse(
        "make_folds",
        "--labels",
        atlas / "train.csv",
        "--images",
        tmp_path / "no",
        "-o",
        tmp_path / "f.csv",
        says="no is not a folder",
    )
    refuse("train", *train_options(atlas, tmp_path / "no.csv", tmp_path), says="no.csv does not exist")
    refuse("train", *train_options(atlas, folds, tmp_path, weights=tmp_path / "no.pt"), says="no.pt does not exist")
    refuse("predict", tmp_path / "no", "--images", atlas / "test", "-o", tmp_path / "p.csv", says="holds no best.pt")
    refuse(
        "threshold",
        tmp_path / "no.csv",
        "--labels",
        atlas / "train.csv",
        "-o",
        tmp_path / "t.json",
        says="no.csv does not exist",
    )
    refuse("threshold", tmp_path, "-o", tmp_path / "t.json", says="holds no oof.csv")
    refuse(
        "ensemble", tmp_path / "no.csv", "--thresholds", "0.5", "-o", tmp_path / "s.csv", says="no.csv does not exist"
    )
    assert not list(tmp_path.iterdir())


def test_folds(tmp_path, atlas, folds):
    refuse("make_folds", "--labels", atlas / "train.csv", "--folds", 1, "-o", tmp_path / "f.csv", says="--folds 1")
    refuse("make_folds", "--labels", atlas / "train.csv", "--folds", 500, "-o", tmp_path / "f.csv", says="48 rows")
    refuse(
        "make_folds", "--labels", atlas / "train.csv", "--external", "x.csv", "-o", tmp_path / "f.csv", says="NAME=CSV"
    )
    refuse("make_folds", "--labels", atlas / "train.csv", "--external", f"x={atlas / 'train.csv'}", "-o", tmp_path / "f.csv",
           says="48 Ids more than once")  # fmt: skip
    refuse("train", *train_options(atlas, folds, tmp_path, fold=3), says=["no fold 3", "0, 1, 2"])
    refuse("train", *train_options(atlas, atlas / "train.csv", tmp_path), says="lacks the column fold")
    table = pd.read_csv(folds, dtype=str, keep_default_na=False)
    table.assign(fold=["x", "-3", "1.5", *table["fold"][3:]]).to_csv(tmp_path / "bad.csv", index=False)
    refuse("train", *train_options(atlas, tmp_path / "bad.csv", tmp_path), says=["3 rows whose fold", "row 2 ('x')"])


@pytest.mark.parametrize(
    "option, value, says",
    [("size", 4, "--size"), ("epochs", 0, "--epochs"), ("batch-size", 0, "--batch-size"), ("lr", -1, "--lr"), ("lr", "nan", "--lr"),
     ("loss", "1:nonsense", "loss schedule"), ("channels", "xyz", "channels 'xyz'"), ("name", "a/b", "--name"), ("seed", -1, "--seed"),
     ("device", "cuda:7", "device"), ("amp", "fp16", "--amp fp16"), ("weights", "imagenet", "no ImageNet weights for gapnet_pl"),
     ("classes", "no.csv", "no.csv"), ("limit", -3, "--limit")],
)  # fmt: skip
def test_impossible_options_of_train(atlas, folds, tmp_path, option, value, says):
    refuse("train", *train_options(atlas, folds, tmp_path / "runs", **{option: value}), says=says)
    assert not (tmp_path / "runs").exists()


def test_a_crop_larger_than_the_images(atlas, folds, tmp_path):
    refuse(
        "train",
        *train_options(atlas, folds, tmp_path, fit="crop", size=100),
        says=["48 images smaller", "64x64", "--size 64"],
    )


@pytest.mark.parametrize(
    "content",
    [
        "class,name\n1,a\n2,b\n",
        "class,name\n0,a\n0,b\n",
        "class,name\n0,a\nx,b\n",
        "class,name\n0,a\n1,a\n",
        "class,name\n0,Id\n1,a\n",
        "a,b\n1,2\n",
        "",
    ],
)
def test_class_lists(tmp_path, atlas, content):
    (tmp_path / "classes.csv").write_text(content)
    refuse(
        "make_folds",
        "--labels",
        atlas / "train.csv",
        "--classes",
        tmp_path / "classes.csv",
        "-o",
        tmp_path / "f.csv",
        says="classes.csv",
    )


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_checkpoints(run, atlas, tmp_path, monkeypatch):
    def predict(says):
        refuse(
            "predict",
            tmp_path / "x.pt",
            "--images",
            atlas / "test",
            "-o",
            tmp_path / "p.csv",
            "--workers",
            0,
            says=["x.pt", says],
        )
        assert not (tmp_path / "p.csv").exists()

    (tmp_path / "x.pt").write_text("hello")
    predict("not a checkpoint")
    (tmp_path / "x.pt").write_bytes((run / "fold0/best.pt").read_bytes()[:5000])
    predict("not a checkpoint")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "x.pt")
    predict("not a checkpoint written by train.py")
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"model": Evil()}))
    predict("not a checkpoint")
    torch.save({"config": Evil(), "model": {}, "epoch": 1, "score": 1.0}, tmp_path / "x.pt")
    predict("not a checkpoint")
    assert not (tmp_path / "evil").exists(), "nothing in a checkpoint is executed"
    state = torch.load(run / "fold0/best.pt", weights_only=True)
    torch.save(state | {"config": state["config"] | {"model": "se_resnext50_32x4d"}}, tmp_path / "x.pt")
    predict("do not fit the network")
    torch.save(state | {"config": state["config"] | {"class_names": ["a", "b"]}}, tmp_path / "x.pt")
    predict("do not fit the network")
    for mean in (None, 5, [0.1]):
        torch.save(state | {"config": state["config"] | {"mean": mean}}, tmp_path / "x.pt")
        predict("lacks the mean and std")
    torch.save(state | {"config": {"model": "gapnet_pl"}}, tmp_path / "x.pt")
    predict("lacks class_names")


def test_folds_of_different_class_lists_are_not_averaged(run, atlas, tmp_path):
    state = torch.load(run / "fold0/best.pt", weights_only=True)
    names = ["other", *state["config"]["class_names"][1:]]
    torch.save(state | {"config": state["config"] | {"class_names": names}}, tmp_path / "x.pt")
    refuse(
        "predict",
        run / "fold0",
        tmp_path / "x.pt",
        "--images",
        atlas / "test",
        "-o",
        tmp_path / "p.csv",
        says=["x.pt", "class_names"],
    )


def test_predictions_that_do_not_fit(predictions, thresholds, atlas, tmp_path):
    def ensemble(says, *files, sample=atlas / "sample_submission.csv", cuts=thresholds):
        refuse("ensemble", *files, "--thresholds", cuts, "--sample", sample, "-o", tmp_path / "s.csv", says=says)
        assert not (tmp_path / "s.csv").exists()

    table = read_predictions(predictions)
    pd.DataFrame({"Id": [*table.index[2:], "x1", "x2", "x3"]}).to_csv(tmp_path / "sample.csv", index=False)
    ensemble(["3 Ids missing: x1, x2, x3", "2 Ids too many"], predictions, sample=tmp_path / "sample.csv")
    fewer = table.iloc[:, :-1]
    write_predictions(tmp_path / "fewer.csv", table.index, fewer.to_numpy(), fewer.columns)
    ensemble(["fewer.csv has other classes", "Rods & rings"], predictions, tmp_path / "fewer.csv")
    ensemble(["other classes than the predictions", "Rods & rings"], tmp_path / "fewer.csv")
    write_predictions(tmp_path / "twice.csv", [*table.index[:-1], table.index[0]], table.to_numpy(), table.columns)
    ensemble(["twice.csv", "more than once"], tmp_path / "twice.csv")
    for value, shown in (
        ("1.5", "1.5"),
        ("-0.1", "-0.1"),
        ("nan", "nan"),
        ("", "''"),
        ("high", "high"),
        ("inf", "inf"),
    ):
        text = predictions.read_text().splitlines()
        cells = text[3].split(",")
        text[3] = ",".join([cells[0], cells[1], value, *cells[3:]])
        (tmp_path / "wrong.csv").write_text("\n".join(text) + "\n")
        ensemble(["wrong.csv: 1 value", "row 4, Nuclear membrane", shown], tmp_path / "wrong.csv")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1, 2]",
        '{"classes": 3, "thresholds": 4}',
        '{"classes": ["a"], "thresholds": [0.5]}',
        "nonsense",
        '{"classes": null',
    ],
)
def test_thresholds_files(predictions, atlas, tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    refuse("ensemble", *submission_of(predictions, tmp_path / "t.json", atlas, tmp_path / "s.csv"), says="t.json")


def test_thresholds_that_are_no_probabilities(predictions, thresholds, atlas, tmp_path):
    content = json.loads(thresholds.read_text())
    for value in (1.5, "0.5", None, float("nan")):
        (tmp_path / "t.json").write_text(json.dumps(content | {"thresholds": [value] * 28}))
        refuse(
            "ensemble", *submission_of(predictions, tmp_path / "t.json", atlas, tmp_path / "s.csv"), says="from 0 to 1"
        )
    refuse("ensemble", *submission_of(predictions, "2", atlas, tmp_path / "s.csv"), says="from 0 to 1")


def test_labels_that_do_not_fit_the_predictions(predictions, atlas, run, tmp_path):
    refuse(
        "threshold",
        predictions,
        "--labels",
        atlas / "train.csv",
        "-o",
        tmp_path / "t.json",
        says=["train.csv lacks 16 Ids", "and 13 more"],
    )
    refuse("threshold", predictions, "-o", tmp_path / "t.json", says="--labels")
    shutil.copy(predictions, tmp_path / "copy.csv")
    twice = ["--labels", atlas / "solution.csv", "-o", tmp_path / "t.json"]
    refuse("threshold", predictions, tmp_path / "copy.csv", *twice, says="16 Ids in more than one")
    refuse("threshold", predictions, predictions, *twice, says="given twice")
    refuse("threshold", predictions, "--labels", atlas / "solution.csv", says="-o thresholds.json")
    refuse(
        "threshold",
        predictions,
        "--labels",
        atlas / "solution.csv",
        "--classes",
        "cyto",
        "-o",
        tmp_path / "t.json",
        says="other classes than expected",
    )
    shutil.copytree(run / "fold0", tmp_path / "fold0")
    (tmp_path / "fold0/config.json").write_text("{")
    refuse("threshold", tmp_path / "fold0", "-o", tmp_path / "t.json", says="config.json")
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("place", ["/proc/nowhere/x", "file/x"])
def test_output_that_cannot_be_written(atlas, folds, run, predictions, thresholds, tmp_path, place):
    (tmp_path / "file").write_text("a file, not a folder")
    out = tmp_path / place  # an absolute place stays what it is
    refuse("make_folds", "--labels", atlas / "train.csv", "-o", out, says="cannot write")
    refuse("train", *train_options(atlas, folds, out), says="cannot write")
    refuse("predict", run, "--images", atlas / "test", "-o", out, says="cannot write")
    refuse("threshold", run, "-o", out, says="cannot write")
    refuse("ensemble", *submission_of(predictions, thresholds, atlas, out), says="cannot write")
    refuse("ensemble", *submission_of(predictions, thresholds, atlas, tmp_path), says="is a folder")


def test_predict_on_a_folder_without_images(run, tmp_path):
    refuse("predict", run, "--images", tmp_path, "-o", tmp_path / "p.csv", says="no <Id>_<colour>.png files")


def test_an_id_in_two_image_folders(run, atlas, tmp_path):
    shutil.copytree(atlas / "test", tmp_path / "again")
    refuse(
        "predict",
        run,
        "--images",
        atlas / "test",
        "--images",
        tmp_path / "again",
        "-o",
        tmp_path / "p.csv",
        says="16 Ids also in another",
    )


def test_a_channel_in_two_files(run, own_atlas, tmp_path):
    name = f"{first_id(own_atlas, 'test')}_red"
    cv2.imwrite(str(own_atlas / "test" / f"{name}.tif"), np.zeros((64, 64), np.uint8))
    refuse("predict", run, "--images", own_atlas / "test", "-o", tmp_path / "p.csv", says=["in two files", name])


def test_a_real_process_ends_with_code_2_and_no_traceback(tmp_path):
    for script in ("make_folds.py", "train.py", "predict.py", "threshold.py", "ensemble.py"):
        words = {"train.py": ["--fold", "0", "--folds", "no.csv"], "predict.py": ["no"], "threshold.py": ["no.csv"],
                 "ensemble.py": ["no.csv", "--thresholds", "0.5"], "make_folds.py": ["--labels", "no.csv"]}[script]  # fmt: skip
        done = subprocess.run([sys.executable, ROOT / script, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_usable_labels_helper_is_not_fooled(tmp_path):
    """The writer of the other tests' tables makes tables that are accepted."""
    write_labels(tmp_path / "t.csv", {f"i{n}": str(n % 28) for n in range(56)})
    assert kit("make_folds", "--labels", tmp_path / "t.csv", "--folds", 2, "-o", tmp_path / "f.csv").code == 0


def test_a_fold_named_twice(run, atlas, tmp_path):
    twice = [run, run / "fold0", "--images", atlas / "test", "-o", tmp_path / "p.csv"]
    refuse("predict", *twice, says=["fold0", "named twice"])


def test_a_network_that_gives_no_numbers(run, atlas, tmp_path):
    state = torch.load(run / "fold0/best.pt", weights_only=True)
    state["model"]["head.bias"][3] = float("nan")
    torch.save(state, tmp_path / "x.pt")
    command = [tmp_path / "x.pt", "--images", atlas / "test", "-o", tmp_path / "p.csv", "--workers", 0]
    refuse("predict", *command, says=["no number", ".png"])
    assert not (tmp_path / "p.csv").exists()


def test_a_checkpoint_that_train_did_not_make_is_not_overwritten(run, atlas, folds, tmp_path):
    (tmp_path / "mini/fold0").mkdir(parents=True)
    state = torch.load(run / "fold0/best.pt", weights_only=True)
    torch.save(state | {"config": {"model": "gapnet_pl"}}, tmp_path / "mini/fold0/best.pt")
    before = (tmp_path / "mini/fold0/best.pt").read_bytes()
    refuse("train", *train_options(atlas, folds, tmp_path), says=["best.pt was not made by train.py", "--overwrite"])
    assert (tmp_path / "mini/fold0/best.pt").read_bytes() == before


def test_odd_images_are_refused_or_passed_over(run, own_atlas, tmp_path):
    path = own_atlas / "test" / f"{first_id(own_atlas, 'test')}_red.png"
    path.with_name("._" + path.name).write_bytes(b"what macOS leaves")
    command = [run, "--images", own_atlas / "test", "-o", tmp_path / "p.csv", "--workers", 0]
    assert kit("predict", *command).code == 0
    page = Image.fromarray(np.zeros((64, 64), np.uint8))
    page.save(path.with_suffix(".tif"), save_all=True, append_images=[page])
    path.unlink()
    refuse("predict", *command, says=[path.stem, "2 images"])
    Image.fromarray(np.zeros((64, 64), np.float32)).save(path.with_suffix(".tif"))
    refuse("predict", *command, says=[path.stem, "32-bit"])


def test_special_files_and_long_names_are_not_written_to(predictions, thresholds, atlas, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    sample = ["--thresholds", thresholds, "--sample", atlas / "sample_submission.csv"]
    refuse("ensemble", predictions, *sample, "-o", tmp_path / "pipe", says="no regular file")
    refuse("ensemble", predictions, *sample, "-o", tmp_path / ("x" * 300), says="cannot write")


def test_pictures_that_all_look_alike_do_not_make_one_group(tmp_path):
    write_images(tmp_path / "images", ["a"], size=32)
    ids = ["a", *(f"b{n}" for n in range(59))]
    for id_ in ids[1:]:
        for channel in ("red", "green", "blue", "yellow"):
            shutil.copy(tmp_path / "images" / f"a_{channel}.png", tmp_path / "images" / f"{id_}_{channel}.png")
    labels = write_labels(tmp_path / "t.csv", {id_: "0" for id_ in ids})
    command = ["--labels", labels, "--images", tmp_path / "images", "-o", tmp_path / "f.csv"]
    refuse("make_folds", *command, "--folds", 5, says=["60 of 60 images", "--hash-distance"])
    refuse("make_folds", *command, "--folds", 2, says=["1 group", "cannot fill 2 folds"])


def test_the_values_named_and_the_rest_add_up_to_the_count(predictions, thresholds, atlas, tmp_path):
    lines = predictions.read_text().splitlines()
    wrong = [",".join([line.split(",")[0], *["7"] * 28]) for line in lines[1:6]]
    (tmp_path / "p.csv").write_text("\n".join([lines[0], *wrong, *lines[6:]]) + "\n")
    command = submission_of(tmp_path / "p.csv", thresholds, atlas, tmp_path / "s.csv")
    message = refuse("ensemble", *command, says=["140 values", "and 137 more"])
    assert message.count("'7'") == 3


@pytest.mark.parametrize(
    "option, value, allowed",
    [
        ("lr", 1e12, "a number from 0 to 2147483647"), ("lr", "nan", "a number from 0 to 2147483647"), ("lr", -1, "0 or more"),
        ("epochs", 2**31, "a number from 1 to 2147483647"), ("size", 8193, "a number from 16 to 8192"),
        ("size", 15, "a number from 16 to 8192"), ("batch-size", 2**21, "a number from 1 to 1048576"),
        ("fold", 100_000, "a number from 0 to 99999"), ("ema", 2, "0 or more, less than 1"), ("ema", -1, "0 or more, less than 1"),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_answered_with_the_range(atlas, folds, tmp_path, option, value, allowed):
    words = train_options(atlas, folds, tmp_path / "runs", **{option: value})
    refuse("train", *words, says=[f"--{option} {value}", f"is out of range; give {allowed}"])


def test_what_is_advised_is_possible(tmp_path):
    one = write_labels(tmp_path / "one.csv", {"a": "0"})
    refuse(
        "make_folds",
        "--labels",
        one,
        "--folds",
        5,
        "-o",
        tmp_path / "f.csv",
        says="cannot fill 5 folds; give more rows",
    )
    (tmp_path / "t.csv").write_text("Id\na,b\n")
    with pytest.raises(InputError, match="has 1 column, but 1 row with more or fewer"):
        read_table(tmp_path / "t.csv", ["Id"])
    files = [(tmp_path / "a_red.png",)]
    with pytest.raises(InputError, match="give larger images, or train with --fit resize$"):
        check_crop(files, np.array([[8, 8]]), 32)


COMMANDS = [
    "make_folds", "train", "predict", "threshold", "ensemble", "utils.tools.augment_sheet", "utils.tools.baseline",
    "utils.tools.benchmark.__main__", "utils.tools.compare", "utils.tools.confusion", "utils.tools.find_duplicates", "utils.tools.evaluate",
    "utils.tools.judge_simulator", "utils.kaggle.fetch", "utils.kaggle.submit", "utils.kaggle.upload", "utils.tools.plot", "utils.tools.realism",
    "utils.tools.score", "utils.tools.class_priors", "utils.simulator.__main__", "utils.tools.import_weights", "utils.simulator.sheets",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = succeed(command, "--help").out
    assert out and not [line for line in out.splitlines() if len(line) > 79]

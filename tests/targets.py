"""What there is to damage: one small file of each kind the scripts read, and the commands that read it.

`make` leaves a folder with pictures of noise, tables, a trained run and all that follows from it. `KINDS` names for each kind
the file in it, its mutators, and commands; in these `{name}` stands for a path in the folder, `{out}` for a folder to write to.
"""

import shutil
from collections import namedtuple
from pathlib import Path

import mutators
import numpy as np
from conftest import kit, write_images, write_labels

from utils import models
from utils.data import cache
from utils.engine import checkpoint
from utils.engine.weights import GAPNET_AUTHORS
from utils.opencv import cv2

Kind = namedtuple("Kind", "file structure commands")
CLASSES = ("Nucleus", "Golgi", "Cytosol", "Vesicles")
HASH_OFF = "--hash-distance -1"

EVALUATE = (
    "utils.tools.evaluate {run}/fold0/oof.csv --labels {labels} --classes {classes} --thresholds 0.5 -o {out}/e.json"
)
FOLDS = f"make_folds --labels {{labels}} --classes {{classes}} --folds 2 {HASH_OFF} -o {{out}}/f.csv"
PREDICT = "predict {run}/fold0 --images {test} --tta 1 --workers 0 --no-cache -o {out}/p.csv"
NAMED = f"{PREDICT} --names {{out}}/n.csv --sheet {{out}}/s.html --thresholds {{thresholds}}"
PACKED = "predict {run}/fold0 --images {test} --tta 1 --workers 0 --cache {cache} -o {out}/p.csv"
ENSEMBLE = "ensemble {predictions} --thresholds {thresholds} --sample {sample} -o {out}/s.csv"
MATCHED = f"{ENSEMBLE} --match-calls"
THRESHOLD = "threshold {run}/fold0 --repeats 1 --method fixed -o {out}/t.json"
COMPARE = "utils.tools.compare {run}/fold0 {run}/fold1 -o {out}"
PLOTS = "utils.tools.plot {run}/fold0 -o {out}"
TRAIN = ("train --recipe gapnet_pl --model convnet --classes {classes} --folds {folds} --fold 0 --images {train} --size 32 --fit resize "
         "--normalise dataset --augment d4 --epochs 2 --batch-size 8 --optimiser adam --lr 0.001 --workers 0 --amp off "
         "--no-cache --runs {out} --name mini")  # fmt: skip
START = f"{TRAIN} --limit 2 --epochs 1 --weights {{start}}"
FROM_FOLDS = f"{TRAIN} --limit 2 --epochs 1"
PICTURES = "predict {run}/fold0 --images {pictures} --tta 1 --workers 0 --no-cache -o {out}/p.csv"
HASHED = "make_folds --labels {few} --classes {classes} --images {pictures} --folds 2 --drop-corrupt -o {out}/f.csv"
KINDS = {
    "labels": Kind("labels.csv", mutators.table, [FOLDS, EVALUATE]),
    "folds": Kind("folds.csv", mutators.table, [FROM_FOLDS, "predict {run}/fold0 --images {train} --ids {folds} --fold 0 --tta 1 "
                  "--workers 0 --no-cache -o {out}/p.csv", "utils.tools.evaluate {run}/fold0/oof.csv --labels {folds} --classes {classes} "
                  "--thresholds 0.5 -o {out}/e.json"]),
    "classes": Kind("classes.csv", mutators.table, [FOLDS, EVALUATE]),
    "predictions": Kind("predictions.csv", mutators.table, [ENSEMBLE, MATCHED]),
    "sample": Kind("sample.csv", mutators.table, [ENSEMBLE, "predict {run}/fold0 --images {test} --ids {sample} --tta 1 --workers 0 "
                   "--no-cache -o {out}/p.csv"]),
    "twins": Kind("twins.csv", mutators.table, [f"{ENSEMBLE} --twins {{twins}} --use-leak {{labels}}"]),
    "shares": Kind("shares.csv", mutators.table, ["threshold {run}/fold0 --repeats 1 --shares {shares} -o {out}/t.json"]),
    "rows": Kind("run/fold0/rows.csv", mutators.table, [COMPARE, "utils.tools.evaluate {predictions} --labels {solution} "
                 "--classes {classes} --thresholds 0.5 --unseen-by {run} -o {out}/e.json"]),
    "oof": Kind("run/fold0/oof.csv", mutators.table, [COMPARE, EVALUATE, THRESHOLD]),
    "log": Kind("run/fold0/log.csv", mutators.table, [COMPARE, COMPARE, THRESHOLD, PLOTS]),
    "steps": Kind("run/fold0/steps.csv", mutators.table, [PLOTS]),
    "thresholds": Kind("thresholds.json", mutators.tree, [ENSEMBLE, MATCHED, EVALUATE.replace("0.5", "{thresholds}"), NAMED]),
    "config": Kind("run/fold0/config.json", mutators.tree, [COMPARE, THRESHOLD, PREDICT]),
    "statistics": Kind("run/fold0/image_statistics.json", mutators.tree, [PREDICT]),
    "npy": Kind("run/fold0/validation/epoch001.npy", mutators.array, [THRESHOLD, THRESHOLD, THRESHOLD, PLOTS]),
    "npz": Kind("authors.npz", mutators.arrays, ["utils.tools.import_weights {authors} -o {out}"]),
    "images": Kind("images.csv", mutators.table, [PICTURES]),
    "png": Kind("png/a_green.png", mutators.png, [PICTURES, HASHED]),
    "tiff": Kind("tif/a_green.tif", mutators.tiff, [PICTURES, HASHED]),
    "jpeg": Kind("jpg/a_green.jpg", mutators.jpeg, [PICTURES, HASHED]),
    "checkpoint": Kind("start.pt", mutators.state, [START, PREDICT.replace("{run}/fold0", "{start}")]),
    "safetensors": Kind("run/fold0/best.safetensors", mutators.tensors,
                        [PREDICT, START.replace("{start}", "{run}/fold0/best.safetensors")]),
    "resume": Kind("resume/mini/fold0/last.pt", mutators.state, [TRAIN.replace("{out}", "{resume}")]),
    "index": Kind("cache", mutators.lines, [f"{PACKED} --images {{train}}"]),
    "data": Kind("cache", mutators.damage, [f"{PACKED} --images {{train}}"]),
}  # fmt: skip
PACKED_KINDS = ("index", "data")
PATHS = {
    "labels": "labels.csv", "folds": "folds.csv", "classes": "classes.csv", "predictions": "predictions.csv", "sample": "sample.csv",
    "twins": "twins.csv", "shares": "shares.csv", "solution": "solution.csv", "few": "few.csv", "thresholds": "thresholds.json",
    "run": "run", "train": "train", "test": "test", "cache": "cache", "authors": "authors.npz", "start": "start.pt",
    "resume": "resume",
}  # fmt: skip


def words(command, folder, kind):
    """The words of a command for the files in `folder`."""
    places = {name: str(folder / path) for name, path in PATHS.items()}
    places |= {"out": str(folder / "out"), "pictures": str(folder / Path(KINDS[kind].file).parts[0])}
    return [word.format(**places) for word in command.split()]


def victim(folder, kind, random):
    """The file in `folder` that is to be damaged."""
    if kind not in PACKED_KINDS:
        return folder / KINDS[kind].file
    return random.choice(sorted((folder / "cache").glob("*.index" if kind == "index" else "*.bin")))


def make(folder):
    """Fill `folder`."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    train, test = ([f"{letter}{number:02}" for number in range(count)] for letter, count in (("i", 24), ("t", 4)))
    write_images(folder / "train", train, size=32)
    for path in (folder / "train").iterdir():
        assert cv2.imwrite(
            str(path), cv2.blur(cv2.imread(str(path), 0), (9, 9)) // 16 * 16
        )  # so that zstd has something to do
    write_images(folder / "test", test, size=32, seed=1)
    for ending in ("png", "tif", "jpg"):
        write_images(folder / ending, ["a", "b"], size=24, ending=ending, seed=2)
    names = [f"{name}/{id_}_" for name, id_ in (("png", "a"), ("tif", "b"))]
    cells = [",".join(f"{name}{colour}.{name[:3]}#page=1" for colour in ("red", "green", "blue", "yellow")) for name in names]
    (folder / "images.csv").write_text("Id,red,green,blue,yellow\n" + "".join(f"x{n},{row}\n" for n, row in enumerate(cells)))
    smooth = cv2.resize(np.arange(64, dtype=np.uint8).reshape(8, 8), (24, 24))
    assert cv2.imwrite(str(folder / "tif/a_green.tif"), smooth)
    write_labels(folder / "labels.csv", {id_: f"{n % 4}" if n % 3 else f"{n % 3} 3" for n, id_ in enumerate(train)})
    write_labels(folder / "solution.csv", {id_: f"{n % 4}" for n, id_ in enumerate(test)})
    write_labels(folder / "few.csv", {"a": "0 1", "b": "2 3"})
    (folder / "classes.csv").write_text("class,name\n" + "".join(f"{n},{name}\n" for n, name in enumerate(CLASSES)))
    (folder / "sample.csv").write_text("Id,Predicted\n" + "".join(f"{id_},0\n" for id_ in test))
    (folder / "twins.csv").write_text("Id,twin,bits\nt00,t01,3\nt02,i00,5.5\nt03,i01,0\n")
    (folder / "shares.csv").write_text(
        "class,share\n" + "".join(f"{name},0.{n + 1}\n" for n, name in enumerate(CLASSES))
    )
    _run(FOLDS.replace("{out}/f.csv", "{folds}"), folder)
    for fold in (0, 1):
        _run(TRAIN.replace("--fold 0", f"--fold {fold}").replace("{out}", "{resume}"), folder)
    (folder / "resume/mini").rename(folder / "run")
    _prepare_resume(folder)
    _run(PREDICT.replace("{out}/p.csv", "{predictions}"), folder)
    _run(THRESHOLD.replace("{out}/t.json", "{thresholds}"), folder)
    best = checkpoint.load(folder / "run/fold0/best.safetensors")
    torch.save(best | {"config": best["config"].to_dict()}, folder / "start.pt")  # as runs of older versions hold
    _write_authors(folder / "authors.npz")
    shutil.rmtree(folder / "out", ignore_errors=True)


def _run(command, folder):
    script, *arguments = words(command, folder, "labels")
    result = kit(script, *arguments)
    assert result.code == 0, (script, result.err)


def _prepare_resume(folder):
    """A run that was stopped after its first epoch."""
    import torch

    shutil.copytree(folder / "run/fold0", folder / "resume/mini/fold0")
    path = folder / "resume/mini/fold0/last.pt"
    torch.save(torch.load(path, weights_only=True) | {"finished": False}, path)


def _write_authors(path):
    """GapNet-PL in the layout of its authors."""
    rng, names = np.random.default_rng(0), {}
    state = models.build("gapnet_pl", len(GAPNET_AUTHORS.class_names), 4).state_dict()
    labels = [f"{kind}-{i + 1}/{part}_{tail}" for kind, count, tail in (("ConvLayer", 8, "conv"), ("FC", 3, "dense"))
              for i in range(count) for part in "Wb"]  # fmt: skip
    for label, tensor in zip(labels, state.values(), strict=True):
        shape = tensor.shape if tensor.ndim < 2 else (*tensor.shape[2:], *tensor.shape[1::-1])
        names[label] = rng.normal(0, 0.1, shape).astype(np.float32)
    np.savez(path, **names)


def pack(folder):
    """Pack the test pictures uncompressed, the training pictures with zstd; in place, since a packed copy knows where its pictures
    lie and when they were written."""
    real = cache.choose_codec
    try:
        for part, codec in (("test", "raw"), ("train", "zstd")):
            cache.choose_codec = lambda *_, codec=codec: codec
            _run(PACKED.replace("{test}", f"{{{part}}}"), folder)
    finally:
        cache.choose_codec = real
    shutil.rmtree(folder / "out")
    shutil.copytree(folder / "cache", folder / "whole")

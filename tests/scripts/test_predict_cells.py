"""predict.py --cells: a score per cell and class, from label images."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import refuse, succeed, succeed_together, write_images
from scipy.special import logit

from utils import models
from utils.data.masks import cell_table, write_mask
from utils.engine import checkpoint, inference
from utils.engine.recipes import RECIPES
from utils.files import write_json
from utils.opencv import cv2
from utils.runs.config import RunConfig
from utils.runs.predictions import read_predictions

IDS = ("b", "a", "c")
CLASSES = ["Golgi", "Rods/rings", "Nuclei, all"]
NAMES = ["Id", "cell", "left", "top", "width", "height", "area", "edge"]


def save_fold(folder, seed=0, model="timm:test_resnet", classes=CLASSES, **more):
    """A run's fold of random weights, those of the last layer enlarged so that cells differ."""
    torch.manual_seed(seed)
    options = RECIPES["best"] | {"model": model, "size": 64, "tta": 1, "class_names": classes, "amp": "off"} | more
    config = RunConfig(**({"planes": 4} | options), fold=seed)
    network = models.build(model, len(classes), config.planes, 64, config.head)
    network.get_submodule(network.head_layers[0]).weight.data.mul_(20)
    checkpoint.save_weights(folder / "best.safetensors", network.state_dict(), epoch=0, score=None)
    write_json(folder / "config.json", config.to_dict())
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Images of 64², cells that cover them, and two folds."""
    folder = tmp_path_factory.mktemp("cells")
    write_images(folder / "images", IDS, size=64)
    for number, id_ in enumerate(IDS):
        coarse = np.random.default_rng(number).permutation(np.arange(1, 17)).reshape(4, 4)
        write_mask(folder / f"masks/{id_}.png", np.kron(coarse, np.ones((16, 16), int)) * 300)
    for seed in (0, 1):
        save_fold(folder / f"run/fold{seed}", seed)
    return folder


def options(folders, out, *more):
    words = ["--images", folders / "images", "--masks", folders / "masks", "--workers", 0]
    return [*words, "-o", out / "p.csv", "--cells", out / "cells.csv", *more]


def read(path):
    return pd.read_csv(path, dtype={"Id": str})


def test_the_cells_of_an_image_share_its_logit(folders, tmp_path):
    """Of one network and one view, the mean of the cells' logits is the image's; rows and boxes are those of the label images."""
    words = options(folders, tmp_path, "--cell-score", "logit")
    out = succeed("predict", folders / "run/fold0", *words).out
    assert f"48 cells of 3 images -> {tmp_path / 'cells.csv'}" in out
    table, images = read(tmp_path / "cells.csv"), read_predictions(tmp_path / "p.csv")
    assert table.columns.tolist() == NAMES + CLASSES and table["Id"].unique().tolist() == sorted(IDS)
    for id_, own in table.groupby("Id"):
        expected = cell_table(cv2.imread(str(folders / f"masks/{id_}.png"), -1))
        assert own[NAMES[1:]].to_numpy().tolist() == expected.to_numpy().tolist()
        assert logit(own[CLASSES]).mean().to_numpy() == pytest.approx(logit(images.loc[id_]).to_numpy(), abs=1e-4)
        assert own[CLASSES].std().min() > 1e-4


def test_predictions_stay_and_folds_views_and_batches_are_averaged(folders, tmp_path):
    """The logits of two networks are averaged, each over the same views, for any batch."""
    logits = []
    for name, run, more in (("0", "run/fold0", []), ("1", "run/fold1", []), ("both", "run", ["--batch-size", 1])):
        (tmp_path / name).mkdir()
        words = options(folders, tmp_path / name, "--tta", 4, "--cell-score", "logit", *more)
        succeed("predict", folders / run, *words)
        logits.append(logit(read(tmp_path / name / "cells.csv")[CLASSES].to_numpy()))
    assert logits[2] == pytest.approx((logits[0] + logits[1]) / 2, abs=1e-4)
    words = ["--images", folders / "images", "--tta", 4, "--workers", 0, "-o", tmp_path / "plain.csv"]
    succeed("predict", folders / "run", *words)
    plain, beside = (read_predictions(tmp_path / name).to_numpy() for name in ("plain.csv", "both/p.csv"))
    assert beside == pytest.approx(plain, abs=1e-6)


def test_the_map_score_gives_the_best_cell_the_probability_of_its_image(folders, tmp_path):
    succeed("predict", folders / "run", *options(folders, tmp_path, "--tta", 8, "--cell-score", "map"))
    table, images = read(tmp_path / "cells.csv"), read_predictions(tmp_path / "p.csv")
    assert table.groupby("Id")[CLASSES].max().to_numpy() == pytest.approx(images.loc[sorted(IDS)].to_numpy(), rel=1e-6)


def test_by_default_cells_with_protein_get_the_probabilities_of_the_image(folders, tmp_path):
    """Of any network; the third quarter of the image is black in green. Predictions stay as they are, to the byte."""
    save_fold(tmp_path / "gap", model="gapnet_pl")
    write_images(tmp_path / "images", ["a"], size=64)
    green = cv2.imread(str(tmp_path / "images/a_green.png"), -1).clip(40)
    green[32:, :32] = 0
    cv2.imwrite(str(tmp_path / "images/a_green.png"), green)
    write_mask(tmp_path / "masks/a.png", np.kron([[1, 2], [3, 4]], np.ones((32, 32), int)))
    words = ["--images", tmp_path / "images", "--workers", 0]
    cells = ["--masks", tmp_path / "masks", "--cells", tmp_path / "cells.csv"]
    succeed("predict", tmp_path / "gap", *words, "-o", tmp_path / "plain.csv")
    succeed("predict", tmp_path / "gap", *words, *cells, "-o", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
    own = read_predictions(tmp_path / "p.csv").to_numpy()
    expected = own * np.array([[1], [1], [0], [1]])
    assert read(tmp_path / "cells.csv")[CLASSES].to_numpy() == pytest.approx(expected, rel=1e-6)
    succeed("predict", tmp_path / "gap", *words, *cells, "--cell-score", "image", "-o", tmp_path / "p.csv")
    assert read(tmp_path / "cells.csv")[CLASSES].to_numpy() == pytest.approx(np.tile(own, (4, 1)), rel=1e-6)


def test_order_of_ids_and_images_without_a_cell(folders, tmp_path):
    masks = tmp_path / "masks"
    for number, id_ in enumerate(IDS):
        write_mask(masks / f"{id_}.png", np.full((64, 64), int(number == 2)))
    pd.DataFrame({"Id": ["c", "a", "b"]}).to_csv(tmp_path / "ids.csv", index=False)
    words = [*options(folders, tmp_path, "--ids", tmp_path / "ids.csv"), "--masks", masks]
    assert "1 cell of 3 images" in succeed("predict", folders / "run/fold0", *words).out
    table = read(tmp_path / "cells.csv")
    assert table[NAMES].to_numpy().tolist() == [["c", 1, 0, 0, 64, 64, 4096, 1]]
    write_mask(masks / "c.png", np.zeros((64, 64), int))
    assert "0 cells of 3 images" in succeed("predict", folders / "run/fold0", *words).out
    assert read(tmp_path / "cells.csv").columns.tolist() == NAMES + CLASSES and not len(read(tmp_path / "cells.csv"))


def test_tiles_of_large_images(folders, tmp_path):
    """Four tiles side by side: each cell lies in one, whose logit its cells share."""
    save_fold(tmp_path / "crops", fit="crop", normalise="none")
    write_images(tmp_path / "images", ["x"], size=128)
    write_mask(tmp_path / "masks/x.png", np.kron(np.arange(1, 17).reshape(4, 4), np.ones((32, 32), int)))
    words = ["--images", tmp_path / "images", "--masks", tmp_path / "masks", "--workers", 0, "--cell-score", "logit"]
    succeed("predict", tmp_path / "crops", *words, "-o", tmp_path / "p.csv", "--cells", tmp_path / "c.csv")
    logits = logit(read(tmp_path / "c.csv")[CLASSES].to_numpy()).reshape(4, 4, 3)
    (tmp_path / "tiles").mkdir()
    for number, (y, x) in enumerate([(0, 0), (0, 64), (64, 0), (64, 64)]):
        for channel in ("red", "green", "blue", "yellow"):
            plane = cv2.imread(str(tmp_path / f"images/x_{channel}.png"), -1)
            cv2.imwrite(str(tmp_path / f"tiles/{number}_{channel}.png"), plane[y : y + 64, x : x + 64])
    succeed("predict", tmp_path / "crops", "--images", tmp_path / "tiles", "--workers", 0, "-o", tmp_path / "t.csv")
    of_tiles = logits.reshape(2, 2, 2, 2, 3).mean((1, 3)).reshape(4, 3)
    assert of_tiles == pytest.approx(logit(read_predictions(tmp_path / "t.csv").to_numpy()), abs=1e-4)


def test_rescaled_images_with_mirrored_borders(folders, tmp_path):
    """Half as large, an image fills the middle of what the network sees: as if that were given, with its cells in the middle."""
    save_fold(tmp_path / "run", input_pixel_size=1.0)
    whole = tmp_path / "whole"
    for id_ in IDS:
        for channel in ("red", "green", "blue", "yellow"):
            plane = cv2.imread(str(folders / f"images/{id_}_{channel}.png"), -1)
            small = cv2.resize(plane, (32, 32), interpolation=cv2.INTER_AREA)
            (whole / "images").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(whole / f"images/{id_}_{channel}.png"), np.pad(small, 16, mode="symmetric"))
        write_mask(whole / f"masks/{id_}.png", np.pad(cv2.imread(str(folders / f"masks/{id_}.png"), -1)[::2, ::2], 16))
    found = []
    for name, place, more in (("half", folders, ["--pixel-size", 0.5]), ("plain", whole, ["--pixel-size", 0])):
        (tmp_path / name).mkdir()
        words = options(place, tmp_path / name, "--cell-score", "logit", *more)
        succeed("predict", tmp_path / "run", *words)
        found.append(read(tmp_path / name / "cells.csv"))
    assert found[0]["width"].tolist() == (2 * found[1]["width"]).tolist()
    half, plain = (logit(table[CLASSES].to_numpy()) for table in found)
    assert half == pytest.approx(plain, abs=0.03 * plain.std(axis=0).min())
    assert (plain.reshape(3, 16, 3).std(axis=1) > 0.1 * plain.std(axis=0)).all()


def test_without_masks_cells_are_segmented_and_their_label_images_written(atlas, folders, tmp_path):
    """Read again they give the same table, from any channels of the network."""
    save_fold(tmp_path / "run", channels="green", planes=1)
    words = ["--images", atlas / "test", "--workers", 2, "-o", tmp_path / "p.csv"]
    out = succeed("predict", tmp_path / "run", *words, "--cells", tmp_path / "cells.csv").out
    assert f"-> {tmp_path / 'cells.csv'}, {tmp_path / 'cells_masks'}" in out
    words += ["--masks", tmp_path / "cells_masks", "--cells", tmp_path / "again.csv"]
    succeed("predict", tmp_path / "run", *words)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "cells.csv").read_bytes()
    assert len(read(tmp_path / "cells.csv")) > 32 and len(list((tmp_path / "cells_masks").iterdir())) == 16


@pytest.mark.slow
def test_several_processes_write_the_same(folders, tmp_path):
    for name, call in (("one", succeed), ("two", succeed_together)):
        (tmp_path / name).mkdir()
        call("predict", folders / "run", *options(folders, tmp_path / name))
    one, two = (read(tmp_path / name / "cells.csv") for name in ("one", "two"))
    assert one[NAMES].equals(two[NAMES]) and one[CLASSES].to_numpy() == pytest.approx(two[CLASSES].to_numpy(), abs=1e-6)


@pytest.fixture
def refused(folders, tmp_path, monkeypatch):
    """A function that calls predict.py, which must refuse before it predicts and writes nothing."""
    monkeypatch.setattr(inference, "predict", None)
    out = tmp_path / "out"
    out.mkdir()

    def call(*more, says, run="run", words=None):
        refuse("predict", folders / run, *(options(folders, out) if words is None else words), *more, says=says)
        assert not any(out.iterdir())

    return call


def test_wrong_label_images_are_refused_before_anything_is_predicted(refused, folders, tmp_path):
    masks = tmp_path / "masks"
    for id_ in ("a", "b"):
        write_mask(masks / f"{id_}.png", np.ones((64, 64), int))
    refused("--masks", masks, says=["lacks the label images of 1 image: c.png", "add them"])
    write_mask(masks / "c.png", np.ones((32, 64), int))
    refused("--masks", masks, says=["c.png has 64x32 pixels, its image 64x64", "of the same size"])
    (masks / "c.png").write_bytes(b"no image")
    refused("--masks", masks, says="c.png")
    refused("--masks", tmp_path / "nowhere", says="lacks the label images of 3 images")


def test_a_colour_image_is_no_label_image(folders, tmp_path):
    masks = tmp_path / "masks"
    for id_ in ("a", "b"):
        write_mask(masks / f"{id_}.png", np.ones((64, 64), int))
    cv2.imwrite(str(masks / "c.png"), np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    refuse("predict", folders / "run", *options(folders, tmp_path), "--masks", masks, says="c.png is a colour image")
    assert not (tmp_path / "p.csv").exists() and not (tmp_path / "cells.csv").exists()


def test_what_cells_need_is_told(refused, folders, tmp_path):
    refused("--crops", 4, says="leave out --crops")
    table = ["--images", folders / "images", "--masks", folders / "masks", "-o", tmp_path / "out/p.csv"]
    refused(words=table, says="add --cells cells.csv")
    write_images(tmp_path / "green", ["x"], ["green", "red"], size=64)
    save_fold(folders / "green", channels="green", planes=1)
    words = ["--images", tmp_path / "green", "-o", tmp_path / "out/p.csv", "--cells", tmp_path / "out/c.csv"]
    refused(run="green", words=words, says=["blue and in red or yellow, which 1 image lack", "--masks"])
    refused("--benchmark", says="leave out --names, --sheet, --embed and --cells")
    refused("--cells", tmp_path / "out/p.csv", says="given for two outputs")
    save_fold(folders / "gap", model="gapnet_pl")
    refused(
        "--cell-score", "map", run="gap", says=["a logit of gapnet_pl is not the mean of a map", "--head attention"]
    )
    save_fold(folders / "blue", channels="rby", planes=3)
    refused(run="blue", says="a network that sees green, not rby")
    save_fold(folders / "named", classes=["a", "area"])
    refused(run="named", says="two columns the name area")

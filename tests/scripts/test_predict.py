"""predict.py: TTA views, folds, tiles, ids."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import refuse, succeed, train_options, write_images
from import_graph import imported_by
from layouts import MAPPING, imagej_stack, read_folder
from torchrun import together

from utils import models
from utils.data.dataset import Normaliser, Samples
from utils.data.image_files import find_files
from utils.data.images import parse_channels
from utils.data.loader import make_loader
from utils.engine import checkpoint, inference, trained_networks
from utils.engine.recipes import RECIPES
from utils.engine.weights import GAPNET_AUTHORS
from utils.errors import InputError
from utils.files import write_json
from utils.opencv import cv2
from utils.runs.config import RunConfig
from utils.runs.predictions import read_predictions

CPU = torch.device("cpu")


class Invariant(torch.nn.Module):
    """Its output does not change when the image is flipped or turned."""

    def forward(self, images):
        return images.mean((2, 3)) - images.amax((2, 3))


class Corner(torch.nn.Module):
    """Its output is the logit of the top left pixel: each TTA view shows another corner."""

    def forward(self, images):
        return torch.logit(images[:, :, 0, 0])


def probabilities_of(network, folder, ids, tta, size=12, fit="resize", reduce="mean", spec="rgby", crops=1, batch=2):
    channels = parse_channels(spec)
    samples = Samples(find_files([folder], ids, channels), channels, size, fit, "none", crops=crops)
    loader = make_loader(samples, batch, 0, CPU)
    networks = network if isinstance(network, list) else [network]
    normalisers = [Normaliser(None, "none", None, None, CPU)] * len(networks)
    views = {"tta": tta, "reduce": reduce, "reduce_tiles": "mean" if fit == "crop" else reduce}
    return inference.predict(networks, normalisers, loader, CPU, **views, chunk=3)[1]


@pytest.mark.parametrize("tta", [4, 8])
def test_tta_views_of_an_invariant_network_change_nothing(tmp_path, tta):
    write_images(tmp_path, ["a", "b", "c"], size=12)
    plain = probabilities_of(Invariant(), tmp_path, ["a", "b", "c"], 1)
    assert probabilities_of(Invariant(), tmp_path, ["a", "b", "c"], tta) == pytest.approx(plain, abs=1e-6)


def test_four_tta_views_are_identity_left_right_up_down_and_both(tmp_path):
    corners = np.full((12, 12), 100, np.uint8)
    corners[0, 0], corners[0, -1], corners[-1, 0], corners[-1, -1] = 51, 102, 153, 204  # .2 .4 .6 .8
    cv2.imwrite(str(tmp_path / "a_green.png"), corners)
    assert probabilities_of(Corner(), tmp_path, ["a"], 1, spec="green")[0, 0] == pytest.approx(0.2)
    assert probabilities_of(Corner(), tmp_path, ["a"], 4, spec="green")[0, 0] == pytest.approx(0.5)
    assert probabilities_of(Corner(), tmp_path, ["a"], 4, reduce="max", spec="green")[0, 0] == pytest.approx(0.8)
    image = torch.arange(6.0).view(1, 1, 2, 3)
    flips = [view[0, 0].tolist() for view in inference.tta_views(image, 4)]
    plain = np.arange(6).reshape(2, 3)
    assert flips == [plain.tolist(), np.fliplr(plain).tolist(), np.flipud(plain).tolist(), plain[::-1, ::-1].tolist()]


def test_eight_tta_views_are_all_turns_and_flips():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    got = {view.numpy().tobytes() for view in inference.tta_views(image, 8)}
    plain = image.numpy()[0, 0]
    assert got == {np.rot90(turn, k).copy().tobytes() for k in range(4) for turn in (plain, plain[::-1])}


def test_tiles_of_one_image_are_averaged(tmp_path):
    pixels = np.zeros((24, 24), np.uint8)
    pixels[0, 0], pixels[0, 12], pixels[12, 0], pixels[12, 12] = 51, 102, 153, 204
    cv2.imwrite(str(tmp_path / "a_green.png"), pixels)
    cv2.imwrite(str(tmp_path / "b_green.png"), np.full((12, 12), 51, np.uint8))
    got = probabilities_of(Corner(), tmp_path, ["a", "b"], 1, fit="crop", spec="green")
    assert got[:, 0] == pytest.approx([0.5, 0.2])


class Opposite(Corner):
    """One minus the probability of the corner."""

    def forward(self, images):
        return -super().forward(images)


@pytest.mark.parametrize("crops", [4, 5])
@pytest.mark.parametrize("tta", [1, 4])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_crops_are_combined_as_tta_views_are(tmp_path, crops, tta, reduce):
    """Of an image of 18², crops of 12² as the file has them; each network alone, and for any batches."""
    write_images(tmp_path, ["a", "b", "c"], ["green"], size=18)
    combine = np.mean if reduce == "mean" else np.max
    expected = []
    for id_ in "abc":
        image = cv2.imread(str(tmp_path / f"{id_}_green.png"), -1) / 255
        places = [(0, 0), (0, 6), (6, 0), (6, 6), (3, 3)][:crops]
        seen = [image[y + down, x + right] for y, x in places for down in (0, 11) for right in (0, 11)][:: 4 // tta]
        expected.append((combine(seen) + combine(1 - np.array(seen))) / 2)
    for batch in (1, 3):
        options = {"fit": "zoom", "reduce": reduce, "spec": "green", "crops": crops, "batch": batch}
        got = probabilities_of([Corner(), Opposite()], tmp_path, ["a", "b", "c"], tta, **options)
        assert got[:, 0] == pytest.approx(expected, abs=1e-5)
    if reduce == "max":
        assert min(expected) > 0.5


def test_one_crop_is_the_whole_image_to_the_bit(tmp_path):
    write_images(tmp_path, ["a", "b"], size=18)
    whole = [probabilities_of(Invariant(), tmp_path, ["a", "b"], 4, fit=fit) for fit in ("resize", "zoom")]
    assert np.array_equal(*whole)


def test_crops_through_the_script_do_not_depend_on_the_batch(run, atlas, tmp_path):
    found = []
    for number, batch in enumerate((3, 16)):
        words = ["--images", atlas / "test", "--workers", 0, "--crops", 4, "--batch-size", batch]
        out = succeed("predict", run / "fold0", *words, "-o", tmp_path / f"{number}.csv").out
        assert "1 TTA view of 4 crops each" in out
        found.append(read_predictions(tmp_path / f"{number}.csv").to_numpy())
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_folds_are_averaged_each_with_its_own_weights(run, atlas, predictions, tmp_path):
    parts = []
    for fold in (0, 1):
        words = ["--images", atlas / "test", "-o", tmp_path / f"{fold}.csv", "--workers", 0]
        succeed("predict", run / f"fold{fold}", *words)
        parts.append(read_predictions(tmp_path / f"{fold}.csv"))
    assert not np.allclose(parts[0], parts[1])
    assert read_predictions(predictions).to_numpy() == pytest.approx((parts[0] + parts[1]).to_numpy() / 2, abs=1e-6)


def test_ids_decide_which_and_in_which_order(run, atlas, predictions, tmp_path):
    wanted = pd.read_csv(atlas / "sample_submission.csv", dtype=str)["Id"].sample(7, random_state=0).tolist()
    pd.DataFrame({"Id": wanted}).to_csv(tmp_path / "ids.csv", index=False)
    words = ["--images", atlas / "test", "--ids", tmp_path / "ids.csv", "-o", tmp_path / "p.csv", "--workers", 2]
    succeed("predict", run, *words)
    got = read_predictions(tmp_path / "p.csv")
    assert got.index.tolist() == wanted
    assert got.to_numpy() == pytest.approx(read_predictions(predictions).loc[wanted].to_numpy(), abs=1e-6)


def test_a_table_of_images_is_trained_on_and_predicted_as_their_folder(run, atlas, folds, predictions, tmp_path):
    """Half of the test images in stacks of four pages, the others in the folder."""
    images = read_folder(atlas / "test", 8)
    (tmp_path / "stacks").mkdir()
    imagej_stack(tmp_path / "stacks", images)
    succeed("utils.tools.find_images", tmp_path / "stacks", "-o", tmp_path / "images.csv", *MAPPING)
    shutil.copytree(atlas / "test", tmp_path / "test", ignore=lambda _, names: [n for n in names if n[:36] in images])
    out = ["--workers", 0, "--cache", tmp_path / "cache", "-o", tmp_path / "p.csv"]
    succeed("predict", run, "--images", tmp_path / "images.csv", "--images", tmp_path / "test", *out)
    assert (tmp_path / "p.csv").read_bytes() == predictions.read_bytes()

    succeed("utils.tools.find_images", atlas / "train", "-o", tmp_path / "train.csv")
    folder = {"labels": atlas / "train.csv", "folds": 3, "seed": 0}
    words = [word for name, value in folder.items() for word in (f"--{name}", value)]
    for images, table in ((atlas / "train", "a.csv"), (tmp_path / "train.csv", "b.csv")):
        succeed("make_folds", *words, "--images", images, "--drop-corrupt", "-o", tmp_path / table)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    succeed("train", *train_options(atlas, folds, tmp_path / "runs", images=tmp_path / "train.csv"))
    weights = [
        checkpoint.load_network(place / "fold0/best.safetensors", CPU)[0].state_dict()
        for place in (run, tmp_path / "runs/mini")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_published_recipe_predicts_large_images_by_four_corners(tmp_path):
    """A network and config as utils.tools.import_weights writes them, at a quarter of the size, against patches cut by hand."""
    torch.manual_seed(0)
    network = models.build("gapnet_pl", 13, 4).eval()
    checkpoint.save_weights(tmp_path / "run/best.safetensors", network.state_dict(), epoch=0, score=None)
    write_json(tmp_path / "run/config.json", replace(GAPNET_AUTHORS, size=256).to_dict())
    write_images(tmp_path / "images", ["a"], size=512)
    words = ["--images", tmp_path / "images", "--tta", 1, "-o", tmp_path / "p.csv", "--workers", 0]
    succeed("predict", tmp_path / "run", *words)
    planes = [
        cv2.imread(str(tmp_path / "images" / f"a_{c}.png"), -1).astype(np.float64)
        for c in ("blue", "green", "red", "yellow")
    ]
    image = torch.tensor(np.stack([(plane - plane.mean()) / plane.std() for plane in planes]), dtype=torch.float32)
    patches = torch.stack([image[:, y : y + 256, x : x + 256] for y in (0, 256) for x in (0, 256)])
    with torch.inference_mode():
        expected = torch.sigmoid(network(patches)).mean(0).numpy()
    assert read_predictions(tmp_path / "p.csv").to_numpy()[0] == pytest.approx(expected, abs=1e-5)
    refuse("predict", tmp_path / "run", *words, "--crops", 4, says="leave out --crops")


def test_folds_that_look_at_images_differently_are_not_averaged(run, atlas, folds, tmp_path):
    succeed("train", *train_options(atlas, folds, tmp_path, channels="rgby", epochs=1))
    words = [run / "fold0", tmp_path / "mini/fold0", "--images", atlas / "test", "-o", tmp_path / "p.csv"]
    refuse("predict", *words, says="another channels")


def test_predict_does_not_import_augmentation():
    """Neither directly nor by way of another module."""
    found, queue = set(), {"predict"}
    while queue:
        found |= queue
        queue = set().union(*map(imported_by, queue)) - found
    assert "utils.data.dataset" in found and not {"utils.data.augment", "utils.data.transforms"} & found


def test_only_the_rows_of_one_fold_are_predicted(run, atlas, folds, tmp_path):
    """By the network that has not seen them: the out-of-fold predictions again."""
    command = ["--images", atlas / "train", "--ids", folds, "--workers", 0, "--tta", 1, "-o", tmp_path / "p.csv"]
    succeed("predict", run / "fold1", *command, "--fold", 1)
    oof = read_predictions(run / "fold1/oof.csv")
    got = read_predictions(tmp_path / "p.csv")
    assert got.index.tolist() == oof.index.tolist() and got.to_numpy() == pytest.approx(oof.to_numpy(), abs=1e-6)
    refuse("predict", run, *command, "--fold", 1, says="fold 0's network was trained on rows of fold 1")
    refuse("predict", run, *command, "--fold", -2, says="no row of fold -2")
    refuse("predict", run, "--images", atlas / "train", "--fold", 1, "-o", tmp_path / "q.csv", says="add --ids")


def test_benchmark_shows_the_stages_of_table_three(run, atlas, tmp_path, monkeypatch):
    command = ["predict", run / "fold0", "--images", atlas / "test", "--benchmark"]
    out = succeed(*command, "--tta", 1, "-o", tmp_path / "speed.csv").out
    rows = [line.split() for line in out.splitlines() if line.startswith("4x")]
    assert [row[:3] for row in rows] == [["4x64x64", "png", "1"], ["4x32x32", "npy", "1"], ["4x32x32", "npy", "64"]]
    for row in rows:
        decode, transfer, network, total, speed = map(float, row[3:])
        assert total == pytest.approx(decode + transfer + network, abs=2e-4) and network > 0
        assert speed * total == pytest.approx(1, abs=max(0.06, 1e-4 * speed))
    table = pd.read_csv(tmp_path / "speed.csv")
    assert [f"{images} {batch}".split() for images, batch in zip(table["images"], table["batch"])] == [
        r[:3] for r in rows
    ]
    assert table["all"].tolist() == pytest.approx([float(row[6]) for row in rows], abs=1e-4)
    (tmp_path / "speed.csv").unlink()
    monkeypatch.chdir(tmp_path)
    refuse(*command, "--tta-reduce", "max", says="--tta-reduce")
    refuse("predict", run, *command[2:], says="one network")
    assert not any(tmp_path.iterdir())


def named(folder, thresholds, *more):
    """Options for a table of names, a page of three images and embeddings."""
    words = ["-o", folder / "p.csv", "--names", folder / "names.csv", "--sheet", folder / "page.html"]
    return [*words, "--sheet-limit", 3, "--thresholds", thresholds, "--workers", 0, *more]


def test_names_are_those_of_ensemble_and_change_no_prediction(run, atlas, predictions, thresholds, tmp_path):
    out = succeed("predict", run, "--images", atlas / "test", *named(tmp_path, thresholds)).out
    assert "3 images -> " in out and (tmp_path / "p.csv").read_bytes() == predictions.read_bytes()
    page = (tmp_path / "page.html").read_text()
    assert page.count("<article>") == 3 and page.count("<img ") == 9 and "The first 3 of 16 images" in page
    words = ["--thresholds", thresholds, "--format", "names", "-o", tmp_path / "other.csv"]
    succeed("ensemble", predictions, *words)
    unlike = ["unlike_training", "reason"]
    assert pd.read_csv(tmp_path / "names.csv").drop(columns=unlike).equals(pd.read_csv(tmp_path / "other.csv"))
    table, content = pd.read_csv(tmp_path / "names.csv"), json.loads(thresholds.read_text())
    probabilities = read_predictions(predictions)
    called = probabilities.to_numpy() >= content["thresholds"]
    assert table["location"].count() == called.sum() > 0 and set(table["Id"]) == set(probabilities.index)
    for row in table.dropna(subset="location").itertuples():
        number = content["classes"].index(row.location)
        assert (
            row.probability == probabilities.loc[row.Id].iloc[number] >= row.threshold == content["thresholds"][number]
        )
        f1, positives = (content["per_class"][key][number] for key in ("f1_cross_fitted", "positives"))
        assert row.held_out_f1 == f1 if positives else np.isnan(row.held_out_f1)


def test_fields_of_a_well_are_combined(run, atlas, predictions, thresholds, tmp_path):
    probabilities = read_predictions(predictions)
    wells = pd.Series([f"A{number // 4}" for number in range(16)], probabilities.index, name="well")
    wells.to_csv(tmp_path / "images.csv")
    words = ["--images", atlas / "test", "--ids", tmp_path / "images.csv", "--combine", "well"]
    out = succeed("predict", run, *words, *named(tmp_path, thresholds)).out
    table = pd.read_csv(tmp_path / "names.csv")
    assert f"{table['location'].count()} locations -> " in out
    means = probabilities.groupby(wells).mean()
    limits = json.loads(thresholds.read_text())["thresholds"]
    expected = {
        (well, name) for well in means.index for name, limit in zip(means, limits) if means.loc[well, name] >= limit
    }
    assert set(table[["well", "location"]].dropna().itertuples(index=False, name=None)) == expected
    assert (table["fields"] == 4).all() and set(table["well"]) == set(wells)
    assert (table["unlike_training"] > 0).all() and "reason" not in table


def test_two_processes_write_the_same_names_page_and_embeddings(run, atlas, thresholds, tmp_path):
    """Of crops, and each image's embedding in its own row."""
    found = []
    for name, call in (("one", succeed), ("two", together)):
        words = named(tmp_path / name, thresholds, "--crops", 4, "--embed", tmp_path / name / "e.npz", "--amp", "off")
        call("predict", run / "fold0", "--images", atlas / "test", *words)
        with np.load(tmp_path / name / "e.npz") as file:
            found.append(file["X"])
            assert file["Id"].tolist() == read_predictions(tmp_path / name / "p.csv").index.tolist()
    assert found[0].shape == (16, 256) and found[0] == pytest.approx(found[1], abs=1e-5)
    for name in ("p.csv", "names.csv"):
        one, two = (pd.read_csv(tmp_path / folder / name) for folder in ("one", "two"))
        pd.testing.assert_frame_equal(one, two, atol=1e-6)
    assert len(set(found[0][:, 0])) == 16


def test_images_without_yellow_are_predicted_and_every_result_says_so(run, atlas, thresholds, tmp_path):
    """As images with a black channel are, in crops too; those that have yellow, as if they had not."""
    for folder in ("lacking", "black"):
        shutil.copytree(atlas / "test", tmp_path / folder)
        for path in (tmp_path / folder).glob("*_yellow.png"):
            path.unlink() if folder == "lacking" else cv2.imwrite(str(path), np.zeros((64, 64), np.uint8))
    refuse("predict", run, "--images", tmp_path / "lacking", says=["16 channel files missing", "--without yellow"])
    found = {}
    for name, words in {"lacking": ["yellow"], "black": [], "whole": ["yellow"]}.items():
        images = atlas / "test" if name == "whole" else tmp_path / name
        words = [*named(tmp_path / f"of_{name}", thresholds, "--crops", 4), *(["--without", *words] if words else [])]
        words += ["--embed", tmp_path / f"of_{name}/e.npz", "--amp", "off", "--cache", tmp_path / "cache"]
        out = succeed("predict", run / "fold0", "--images", images, *words).out
        assert ("without yellow, black in every image" in out) == (name != "black")
        found[name] = read_predictions(tmp_path / f"of_{name}/p.csv")
    assert found["lacking"].equals(found["whole"]) and not found["black"].empty
    assert found["lacking"].to_numpy() == pytest.approx(found["black"].to_numpy(), abs=1e-5)
    table = pd.read_csv(tmp_path / "of_lacking/names.csv")
    assert (table.pop("without") == "yellow").all()
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "of_black/names.csv")[[*table]], atol=1e-5)
    assert "without the yellow channel" in (tmp_path / "of_lacking/page.html").read_text()
    assert "without the" not in (tmp_path / "of_black/page.html").read_text()
    one, other = (np.load(tmp_path / f"of_{name}/e.npz") for name in ("lacking", "black"))
    assert one["without"] == "yellow" and other["without"] == ""
    assert one["X"] == pytest.approx(other["X"], abs=1e-4)


def test_rescaled_images_give_the_results_of_those_they_show(run, atlas, thresholds, tmp_path):
    """Images of the size in training to the bit, four joined to one the mean of the four, with maps of where the network looks."""
    ids = pd.read_csv(atlas / "sample_submission.csv")["Id"].tolist()[:4]
    for folder in ("four", "joined"):
        (tmp_path / folder).mkdir()
    for colour in ("red", "green", "blue", "yellow"):
        four = [cv2.imread(str(atlas / f"test/{id_}_{colour}.png"), -1) for id_ in ids]
        for id_, image in zip(ids, four, strict=True):
            cv2.imwrite(str(tmp_path / f"four/{id_}_{colour}.png"), image)
        cv2.imwrite(str(tmp_path / f"joined/a_{colour}.png"), np.vstack([np.hstack(four[:2]), np.hstack(four[2:])]))
    found = {}
    for name, folder, words in (("plain", "four", []), ("same", "four", [2.56]), ("joined", "joined", [2.56])):
        words = [*named(tmp_path / name, thresholds), *(["--pixel-size", *words] if words else []), "--amp", "off"]
        out = succeed("predict", run, "--images", tmp_path / folder, *words, "--cache", tmp_path / "cache").out
        assert ("the network sees 163.8 µm" in out) == (name != "plain")
        found[name] = read_predictions(tmp_path / name / "p.csv")
    assert found["plain"].equals(found["same"])
    assert (tmp_path / "plain/page.html").read_bytes() == (tmp_path / "same/page.html").read_bytes()
    assert found["joined"].loc["a"].to_numpy() == pytest.approx(found["plain"].mean().to_numpy(), abs=1e-5)
    words = ["--images", tmp_path / "four", "--crops", 4, "--pixel-size", 1]
    refuse("predict", run, *words, says="--crops and --pixel-size exclude each other")


def test_a_run_records_the_pixel_size_of_its_input(atlas, folds, tmp_path):
    words = ["--pixel-size", 1, "--size", 32, "--epochs", 1]
    succeed("train", *train_options(atlas, folds, tmp_path), *words)
    config = json.loads((tmp_path / "mini/fold0/config.json").read_text())
    assert config["pixel_size"] == 1 and config["input_pixel_size"] == 2  # images of 64²
    out = succeed(
        "predict", tmp_path / "mini", "--images", atlas / "test", "--pixel-size", 4, "-o", tmp_path / "p.csv"
    ).out
    assert "images of 4 µm a pixel, rescaled 2 times: the network sees 64 µm at 2 µm a pixel\n" in out


def test_a_channel_that_the_network_does_not_use_cannot_be_left_out():
    config = RunConfig(**RECIPES["gapnet_pl"] | {"channels": "rgb", "name": "three"}, class_names=["a"])
    assert trained_networks.without_channels(config, ["red"]).channels == "rgb-r"
    with pytest.raises(
        InputError, match=r"network of three does not use yellow \(channels rgb\); leave out --without yellow"
    ):
        trained_networks.without_channels(config, ["red", "yellow"])


def test_wells_without_red_and_yellow_are_combined(run, atlas, thresholds, tmp_path):
    ids = pd.read_csv(atlas / "sample_submission.csv")[["Id"]].assign(well="A1")
    ids.to_csv(tmp_path / "ids.csv", index=False)
    words = ["--images", atlas / "test", "--ids", tmp_path / "ids.csv", "--combine", "well"]
    succeed("predict", run, *words, "--without", "yellow", "--without", "red, yellow", *named(tmp_path, thresholds))
    assert (pd.read_csv(tmp_path / "names.csv")["without"] == "red,yellow").all()
    assert "without the red and yellow channels" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "words, says",
    [
        (["--without", "blue"], "give red, yellow or red,yellow"),
        (["--without", "yellow,"], "give red, yellow or red,yellow"),
        (["--names", "n.csv"], ["has no thresholds.json", "run python threshold.py"]),
        (["--names", "n.csv", "--combine", "well"], "as --ids or --images"),
        (["--thresholds", "0.5"], "add --names"),
        (["--embed", "e.npz"], "one network, not 2"),
        (["--embed", "e.csv"], "should end in .h5ad or .npz"),
        (["--sheet", "s.html", "--benchmark"], "leave out --names, --sheet"),
        (["--sheet", "s.html", "--sheet-limit", 0], "--sheet-limit 0"),
        (["--names", "n.csv", "--sheet", "n.csv"], "two outputs"),
    ],
)
def test_what_names_and_embeddings_lack_is_told_before_anything_is_predicted(
    words, says, run, atlas, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inference, "predict", None)
    refuse("predict", run, "--images", atlas / "test", *words, says=says)
    assert not any(tmp_path.iterdir())

"""The truth of single cells: masks lie on the drawn cells, and the table lists what each of them shows."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from utils.data.images import load_sample
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES
from utils.data.masks import cell_table, read_mask, write_mask
from utils.opencv import cv2
from utils.simulator.cell_types import CELL_TYPES
from utils.simulator.sample import draw_with_cells

KINDS = {kind.name: kind for kind in CELL_TYPES}
MEASURES = ["cell", "left", "top", "width", "height", "area", "edge"]


def draw(classes, index=11, size=256, kind=None, ambiguity=0.0, copies=None):
    """-> the image, the labels, the table, and the strengths as a DataFrame."""
    what = 4, "train", index, classes, size, copies, ambiguity, 16, KINDS.get(kind)
    image, cells = draw_with_cells(*what)
    labels, table, strengths = cells.at(size)
    return image.astype(np.float64), labels, table, pd.DataFrame(strengths, table.index)


def mean_in(plane, labels, table):
    return np.array([plane[labels == cell].mean() for cell in table["cell"]])


@pytest.mark.parametrize("kind", ("U-2 OS", "A-431", "SH-SY5Y", "K-562"))
@pytest.mark.parametrize("copies", (None, 5))
def test_masks_cover_the_drawn_bodies(kind, copies):
    image, labels, table, _ = draw((25,), kind=kind, copies=copies)
    body = image[..., 0] + image[..., 3]
    bright, dark = body > 0.2 * np.quantile(body, 0.99), np.quantile(body[labels == 0], 0.9)
    assert (labels[bright] > 0).mean() > 0.94  # the rest is debris
    assert body[labels == 0].mean() < 0.1 * body[labels > 0].mean()
    assert (body[labels > 0] < dark).mean() < 0.2  # no wider than the cells
    assert (mean_in(body, labels, table) > 2 * body[labels == 0].mean()).all()


def test_strengths_follow_the_light_in_the_mask():
    ranks, present, light = [], [], []
    for index in range(4):
        image, labels, table, strengths = draw((25,), index, kind="HaCaT")  # no cells over others
        ranks.append(spearmanr(strengths[25], mean_in(image[..., 1], labels, table))[0])
        image, labels, table, strengths = draw((0,), index, kind="HaCaT", ambiguity=1.0)
        whole = ((table["edge"] == 0) & (table["mitotic"] == 0)).to_numpy()
        green = mean_in(image[..., 1], labels, table)
        present.append(strengths[0][whole] > 0)
        light.append((green / green.max())[whole])
    assert min(ranks) > 0.8
    assert np.sum(~np.concatenate(present)) > 5  # cells without the protein
    assert roc_auc_score(np.concatenate(present), np.concatenate(light)) > 0.95


def test_only_special_cells_show_special_compartments():
    for index in range(3):
        image, labels, table, strengths = draw((16,), index, kind="U-2 OS")
        daughters = np.flatnonzero(strengths[16])
        assert len(daughters) in (1, 2, 4) and len(daughters) < len(table) / 2  # 1: the other is out of view
        y, x = np.unravel_index(image[..., 1].argmax(), labels.shape)
        near = labels[max(0, y - 25) : y + 25, max(0, x - 25) : x + 25]  # within 16 micrometres
        assert set(table["cell"].iloc[daughters]) & set(near.ravel())
    _, _, table, strengths = draw((17, 0, 25), 2)
    assert table["mitotic"].any() and ((strengths[17] > 0) == table["mitotic"]).all()
    assert (strengths.loc[table["mitotic"] == 1, 0] == 0).all()  # nuclei dissolve
    assert (strengths.loc[table["mitotic"] == 1, 25] > 0).all()
    shown, lengths = [], []
    for index in range(1, 4):
        image, labels, table, strengths = draw((22,), index, 512, kind="HEL")
        bright = cv2.GaussianBlur(image[..., 1], (0, 0), 1)
        bright = bright > 0.3 * np.quantile(bright, 0.999)
        shown += (strengths[22] > 0).tolist()
        lengths += [bright[labels == cell].sum() for cell in table["cell"]]
    assert 0.1 < np.mean(shown) < 0.9 and roc_auc_score(shown, lengths) > 0.85


def test_a_nuclear_protein_is_shown_where_the_nucleus_is_in_view():
    for index in (1, 2, 3):
        image, labels, table, strengths = draw((0,), index, 512)
        dark = (strengths[0] == 0) & (table["mitotic"] == 0)
        blue = mean_in(image[..., 2], labels, table)
        assert (table["edge"][dark] == 1).all()
        assert blue[dark].max(initial=0) < 0.1 * np.median(blue[~dark])


def test_traces_are_listed_below_what_is_labelled():
    traces = []
    for index in range(8):
        _, _, _, strengths = draw((24,), index, 32, ambiguity=1.0)
        traces.append(strengths.drop(columns=24).max(axis=1) / strengths[24].where(strengths[24] > 0))
    traces = pd.concat(traces)
    assert traces.max() < 0.25 / 0.38 and (traces > 0).sum() > 10 and (traces == 0).sum() > 10


def test_masks_of_all_sizes_agree():
    _, large, table, strengths = draw((25, 2), size=512)
    for size in (64, 256):
        _, small, same, others = draw((25, 2), size=size)
        places = ((np.arange(size) + 0.5) * 512 / size).astype(int)
        reduced = large[np.ix_(places, places)]
        assert len(same) == len(table) and same["mitotic"].equals(table["mitotic"])
        assert (strengths.to_numpy() == pytest.approx(others.to_numpy(), abs=1e-6)) and (strengths > 0).any(axis=None)
        for cell, area in zip(table["cell"], table["area"]):
            a, b = reduced == cell, small == cell
            least = 0.85 if size == 256 else 0.6
            assert area < 3000 or (a & b).sum() > least * (a | b).sum()


def make(folder, *more, **options):
    options = {"train": 6, "test": 2, "size": 48, "seed": 5, "power": 0.7, "workers": 1} | options
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return succeed("utils.simulator.__main__", "--out", folder, *words, *more)


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def truth_of(folder):
    return pd.read_csv(folder / "cells_truth.csv", dtype={"Id": str})


@pytest.fixture(scope="module")
def with_cells(tmp_path_factory):
    out = tmp_path_factory.mktemp("atlas") / "a"
    assert "cells_truth.csv" in make(out, "--cells", external=2, duplicates=0.5, corrupt=0.5).out
    return out


def test_every_image_has_a_mask_which_its_rows_describe(with_cells):
    truth = pd.read_csv(with_cells / "truth.csv", keep_default_na=False)
    table = truth_of(with_cells)
    assert list(table.columns) == ["Id", *MEASURES, "mitotic", *HPA_CLASSES]
    assert sorted(truth["Id"]) == sorted(set(table["Id"])) and set(truth["corrupt"]) - {""}
    assert table[["Id", "cell"]].equals(table[["Id", "cell"]].sort_values(["Id", "cell"], ignore_index=True))
    assert {path.stem for path in (with_cells / "masks").iterdir()} == set(truth["Id"])
    for id_, rows in table.groupby("Id"):
        measured = cell_table(read_mask(with_cells / "masks" / f"{id_}.png", (48, 48)))
        assert measured["cell"].tolist() == list(range(1, len(rows) + 1))
        assert (measured[MEASURES].to_numpy() == rows[MEASURES].to_numpy()).all()


def test_images_are_the_same_without_cells_which_can_be_added(with_cells, tmp_path):
    options = {"external": 2, "duplicates": 0.5, "corrupt": 0.5}
    wanted, out = contents(with_cells), tmp_path / "a"
    make(out, **options)
    before = contents(out)
    assert before.keys() == {name for name in wanted if not name.startswith(("masks", "cells_truth"))}
    assert all(wanted[name] == data for name, data in before.items() if name != "atlas.json")
    written = {path: path.stat().st_mtime_ns for path in (out / "train").iterdir()}
    assert "drawn now: 10" in make(out, "--cells", workers=2, **options).out
    assert contents(out) == wanted
    assert written == {path: path.stat().st_mtime_ns for path in written}
    assert "complete already" in make(out, **options).out  # it keeps its cells
    assert contents(out) == wanted


def test_interrupted_cells_are_completed(tmp_path):
    out = tmp_path / "a"
    make(out, "--cells")
    wanted = contents(out)
    masks = sorted((out / "masks").iterdir())
    for path in (*masks[:3], out / "cells_truth.csv", sorted((out / "train").iterdir())[-1]):
        path.unlink()
    (out / "masks/.x.png.part").write_text("what a crash left")
    note = json.loads((out / "atlas.json").read_text())
    assert note["cells"] is True
    (out / "atlas.json").write_text(json.dumps(note | {"state": "unfinished"}))
    make(out)
    assert contents(out) == wanted


def test_cells_of_chosen_ids(tmp_path):
    whole, part = tmp_path / "all", tmp_path / "some"
    make(whole, "--cells")
    chosen = truth_of(whole)["Id"].unique()[[1, 4]]
    pd.DataFrame({"Id": chosen}).to_csv(tmp_path / "ids.csv", index=False)
    make(part, "--cells", ids=tmp_path / "ids.csv")
    assert {path.stem for path in (part / "masks").iterdir()} == set(chosen) == set(truth_of(part)["Id"])
    make(part)
    assert contents(part) == contents(whole)


def test_the_cyto_form_has_masks_of_its_sizes_and_the_strongest_of_merged_classes(tmp_path):
    out = tmp_path / "a"
    make(out, "--cells", form="cyto", train=8, size=64, power=0.3)
    table, truth = truth_of(out), pd.read_csv(out / "truth.csv", dtype=str).set_index("Id")
    assert list(table.columns[9:]) == list(CYTO_CLASSES)
    sides = set()
    for id_, rows in table.groupby("Id"):
        split, shows = truth.loc[id_, ["split", "Shows"]]
        shape = load_sample([out / split / f"{id_}_red.tif"]).shape[:2]
        sides.add(read_mask(out / "masks" / f"{id_}.png", shape).shape[0])
        seen = rows[[CYTO_CLASSES[int(number)] for number in shows.split()]]
        assert (seen.max() > 0).any() and rows[list(CYTO_CLASSES)].max(axis=None) <= 1.5
    assert len(sides) > 1


def test_masks_of_another_origin_are_refused(tmp_path):
    out = tmp_path / "a"
    make(out, train=1, test=0)
    (out / "masks").mkdir()
    path = out / "masks" / f"{pd.read_csv(out / 'train.csv')['Id'][0]}.png"
    write_mask(path, np.ones((48, 48), int))
    call = ["utils.simulator.__main__", "--train", 1, "--test", 0, "--size", 48, "--seed", 5, "--power", 0.7, "--cells"]
    before = contents(out)
    refuse(*call, "--out", out, says=[path.name, "delete it"])
    assert contents(out) == before
    path.unlink()
    make(out, "--cells", train=1, test=0)
    other = tmp_path / "b"
    (other / "masks").mkdir(parents=True)
    refuse(*call, "--out", other, says="did not write")

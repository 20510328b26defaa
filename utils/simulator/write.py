"""Writes a simulated atlas: images (like Kaggle's PNGs or the Cyto Challenge's TIFFs), tables, and atlas.json with its
settings and state."""

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.data.images import CHANNELS
from utils.data.labels import CYTO_CLASSES
from utils.errors import InputError, plural
from utils.files import check_writable, whole_file, write_csv, write_json
from utils.opencv import cv2
from utils.parallel import closing, in_processes
from utils.safe_load import read_json
from utils.simulator.cell_truth import CELL_TABLE, MASKS, write_cell_table, write_cells
from utils.simulator.plan import DAMAGE, FORM, SPLITS, plan_image, random_stream, written
from utils.simulator.sample import draw_with_cells

TABLES = ("train.csv", "sample_submission.csv", "solution.csv")
GENERATOR = 2  # increase it if images change, so that no atlas is completed by another generator
CYTO_SIDES = (
    (27 / 32, 1, 3 / 2),
    (0.25, 0.5, 0.25),
)  # factors of --size (1728, 2048 and 3072 for 2048), and their frequencies
RGB, EIGHT_BIT = 0.1, 0.15  # fractions of TIFFs stored as RGB, and with 8 bits
PLANES = {"red": (2,), "green": (1,), "blue": (0,), "yellow": (1, 2)}  # of an RGB file, in OpenCV's order
DAMAGES = ("truncated", "empty", "no image", "other size")


def write_atlas(out, settings, workers=1, ids=None, cells=False):
    """Write the atlas of `settings` to the folder `out`, or its missing files after an interruption: -> number of
    images drawn. ids: draw only these images; the tables list all. cells: add the truth of single cells, of the images
    drawn so far; an atlas that has it keeps it. Raises InputError for files or ids of another atlas."""
    out = Path(out)
    note = {"generator": GENERATOR, **asdict(settings)}
    complete, has_cells = _open_atlas(out, note)
    cells, complete = cells or has_cells, complete and (has_cells or not cells)
    note["cells"] = cells
    plans = [plan_image(settings, split, i) for split in SPLITS for i in range(getattr(settings, split))]
    jobs = _missing(out, plans if ids is None else _chosen(plans, ids), settings, cells)
    if not jobs and complete:
        return 0
    if cells:
        _list_cells(out, plans, settings)  # refuses masks of another origin before anything is drawn
    write_json(out / "atlas.json", {"state": "unfinished", **note})
    bar = tqdm(total=len(jobs), unit="img", disable=None)
    with (
        bar,
        closing(in_processes(partial(write_image, out, settings, cells), jobs, workers, "drawing process")) as done,
    ):
        for _ in done:
            bar.update()
    _write_tables(out, plans, settings)
    if cells:
        _list_cells(out, plans, settings)
    if not _missing(out, plans, settings, cells):
        write_json(out / "atlas.json", {"state": "complete", **note})
    return len(jobs)


def _open_atlas(out, wanted):
    """Return whether `out` holds the complete atlas, and whether it has cells. Raises InputError for other data. wanted:
    the settings in atlas.json."""
    path, fix = out / "atlas.json", f"choose another --out or delete {out}"
    if not path.exists():
        if any((out / name).exists() for name in (*SPLITS, *TABLES, MASKS, CELL_TABLE)):
            raise InputError(f"{out} holds data that utils.simulator did not write; choose another --out")
        found = {"state": "new", **wanted}
    else:
        found = read_json(path, "the settings of an atlas", fix)
    if not isinstance(found, dict) or not found.keys() >= wanted.keys():
        raise InputError(f"{path} does not contain the settings of an atlas; {fix}")
    state, has_cells = found.pop("state", None), found.pop("cells", False) is True
    if other := [f"{name} {value}" for name, value in found.items() if value != wanted.get(name)]:
        raise InputError(f"{out} holds an atlas of other settings ({', '.join(other)}); {fix}")
    check_writable(path)
    return state == "complete", has_cells


def _chosen(plans, ids):
    known = {plan.id: plan for plan in plans}
    if unknown := [one for one in ids if one not in known]:
        raise InputError(f"{plural(len(unknown), 'id')} not in this atlas, the first {unknown[0]}; check --ids")
    return [known[one] for one in dict.fromkeys(ids)]


def _missing(out, plans, settings, cells):
    """List the plans without all four files or, with `cells`, their mask, and remove a crash's partial files."""
    found = {}
    for folder in (*SPLITS, MASKS):
        found[folder] = set(os.listdir(out / folder)) if (out / folder).is_dir() else set()
        for name in found[folder]:
            if name.startswith(".") and name.endswith(".part"):
                (out / folder / name).unlink()

    def is_whole(plan):
        has_mask = not cells or f"{plan.id}.png" in found[MASKS]
        return has_mask and found[plan.split].issuperset(_file_names(plan, settings))

    return [plan for plan in plans if not is_whole(plan)]


def _write_tables(out, plans, settings):
    """Write the user's label files, and truth.csv with the classes that the images really show."""
    originals = {plan.index: plan.id for plan in plans if plan.split == "train"}
    truth = pd.DataFrame(
        {
            "Id": [plan.id for plan in plans],
            "split": [plan.split for plan in plans],
            "Shows": [target(plan.shows, settings) for plan in plans],
            "Target": [target(plan.label, settings) for plan in plans],
            "Copies": [originals.get(plan.copies, "") for plan in plans],
            "corrupt": [damage(plan, settings)[0] for plan in plans],
        }
    )
    tables = {split: truth[truth["split"] == split].sort_values("Id") for split in SPLITS}
    for split, name in (("train", "train"), ("external", "external"), ("test", "solution")):
        if split != "external" or settings.external:
            write_csv(out / f"{name}.csv", tables[split][["Id", "Target"]])
    write_csv(out / "sample_submission.csv", tables["test"][["Id"]].assign(Predicted="0"))
    write_csv(out / "truth.csv", pd.concat(tables.values()))
    if settings.form == "cyto":
        write_csv(out / "classes.csv", pd.DataFrame(enumerate(CYTO_CLASSES), columns=["class", "name"]))


def _list_cells(out, plans, settings):
    masks = set(os.listdir(out / MASKS)) if (out / MASKS).is_dir() else ()
    write_cell_table(out, [plan.id for plan in plans if f"{plan.id}.png" in masks], settings.form)


def target(classes, settings):
    """Format a label: ``'0 25'``; in the Cyto form with the numbers of its 13 classes."""
    return " ".join(map(str, sorted(written(classes, settings.form))))


def damage(plan, settings):
    """Choose an image's damage: -> (one of DAMAGES, or '' for none; number of the damaged channel)."""
    rng = random_stream(settings.seed, plan.split, plan.index, DAMAGE)
    fault, channel = str(rng.choice(DAMAGES)), int(rng.integers(len(CHANNELS)))
    return fault if rng.random() < settings.corrupt else "", channel


def _file_names(plan, settings):
    """List the names of an image's four files, in the order of `CHANNELS`."""
    end = "tif" if settings.form == "cyto" else "jpg" if plan.split == "external" else "png"
    return [f"{plan.id}_{channel}.{end}" for channel in CHANNELS.values()]


def write_image(out, settings, cells, plan):
    """Draw one image and write those of its four files, and with `cells` of its mask, that are missing, each
    atomically."""
    rng = random_stream(settings.seed, plan.split, plan.index, FORM)
    size, bits, rgb = settings.size, 8, False
    if settings.form == "cyto":
        factors, frequencies = CYTO_SIDES
        size = round(size * rng.choice(factors, p=frequencies))
        bits = 8 if rng.random() < EIGHT_BIT else 16
        rgb = rng.random() < RGB
    ambiguity = settings.ambiguity
    what = settings.seed, plan.split, plan.index, plan.shows, size, plan.copies, ambiguity, bits
    image, found = draw_with_cells(*what)
    fault, damaged = damage(plan, settings)
    for number, (channel, name) in enumerate(zip(CHANNELS.values(), _file_names(plan, settings))):
        plane = np.ascontiguousarray(image[..., number])
        data = _encode(plane, Path(name).suffix, PLANES[channel] if rgb else (), fault if number == damaged else "")
        if not (path := out / plan.split / name).exists():
            with whole_file(path, "wb") as file:
                file.write(data)
    if cells and not (path := out / MASKS / f"{plan.id}.png").exists():
        write_cells(path, found, size, settings.form)


def _encode(plane, ending, in_rgb, fault):
    """Encode one file. in_rgb: the planes of a colour image that store it; empty: a grey image."""
    if fault == "other size":
        plane = cv2.resize(plane, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    if in_rgb:
        colour = np.zeros((*plane.shape, 3), plane.dtype)
        colour[..., in_rgb] = plane[..., None]
        plane = colour
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if ending == ".jpg" else []
    data = cv2.imencode(ending, plane, options)[1].tobytes()
    damaged = {"truncated": data[: len(data) // 2], "empty": b"", "no image": b"<html>404 Not Found</html>"}
    return damaged.get(fault, data)

"""Make a fake atlas: pictures of cells with known labels, laid out on disk like Kaggle's Human Protein Atlas data.

    python -m utils.simulate --out input/demo --train 1000 --test 300 --size 128 --seed 0

writes train/<Id>_{red,green,blue,yellow}.png, test/…, train.csv, sample_submission.csv and solution.csv, the true
labels of the test set, which training must never see. Labels have the frequencies and co-occurrence of the 31,072 real
ones. Each picture follows from (seed, split, index) alone, so any part of an atlas can be made again by itself.
"""

import argparse
import json
import multiprocessing
import os
import signal
import time
import uuid
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.cells import draw_references, grow_scene, lay_out
from utils.compartments import draw_protein
from utils.errors import InputError, plural, run_script
from utils.files import check_writable, whole_file, write_csv, write_json
from utils.images import CHANNELS
from utils.labels import HPA_CLASSES

SPLITS = ("train", "test")
TABLES = ("train.csv", "sample_submission.csv", "solution.csv")
GENERATOR = 1  # raise it when a change makes other pictures: an atlas then is not completed by another generator
LABEL, NAME, SCENE, VIEW = range(4)  # independent random streams of one image
BRIDGE, SPINDLE, JUNCTIONS = 16, 17, 22  # classes that need a scene of their own
DRAWN_SIZE = 256  # smaller pictures are drawn at least this large, then reduced
GAIN = {"train": (0.58, 0.48, 0.47, 0.76), "test": (0.43, 0.45, 0.36, 0.56)}  # the real test set is darker


def random_stream(seed, split, index, purpose):
    """The generator of all random numbers that serve one `purpose` in one image."""
    return np.random.default_rng(np.random.SeedSequence((seed, SPLITS.index(split), index, purpose)))


def draw_sample(seed, split, index, target, size, copy_of=None):
    """Draw one image.

    `target` is a string of class numbers such as ``'0 25'``, `size` the side in pixels, `copy_of` the index of the
    image of the same split whose scene is shown again, moved and exposed otherwise. The same image at another size is
    the same scene at another magnification. Returns (size, size, 4) uint8, 0..255: red, green, blue, yellow.
    """
    classes = [int(word) for word in target.split()]
    rng = random_stream(seed, split, index if copy_of is None else copy_of, SCENE)
    view_rng = random_stream(seed, split, index, VIEW)
    shift = (0, 0) if copy_of is None else view_rng.uniform(-0.05, 0.05, 2)
    scene = grow_scene(rng, SPINDLE in classes, BRIDGE in classes, JUNCTIONS in classes)
    view = lay_out(scene, rng, size * -(-DRAWN_SIZE // size), shift)
    red, blue, yellow = draw_references(view, rng)
    green = draw_protein(view, rng, classes)
    return _photograph(view_rng, np.stack([red, green, blue, yellow], -1), size, GAIN[split])


def _photograph(rng, light, size, gain):
    """What the camera records of `light` (S, S, 4) float32: (size, size, 4) uint8."""
    drawn = len(light)
    light = cv2.GaussianBlur(light, (0, 0), 0.0018 * drawn)
    light = cv2.resize(light, (size, size), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(light, (32, 32), interpolation=cv2.INTER_AREA)
    light += 0.06 * cv2.resize(cv2.GaussianBlur(coarse, (0, 0), 1), (size, size))  # out of focus
    exposure = np.array(gain) * np.exp(rng.normal(0, (0.4, 0.5, 0.35, 0.4)))
    corners = rng.uniform(0, 0.012, (2, 2, 4)).astype(np.float32)
    recorded = light * exposure.astype(np.float32) + cv2.resize(corners, (size, size))
    shot, read = rng.uniform(0.001, 0.004), rng.uniform(0.002, 0.006)
    noise = rng.standard_normal(recorded.shape, np.float32) * np.sqrt(shot * np.maximum(recorded, 0) + read**2)
    return np.rint(255 * np.clip(recorded + noise - 0.012, 0, 1)).astype(np.uint8)


@lru_cache
def _label_sets():
    """The real label sets and how many images have each: (577 strings, (577,) int64)."""
    frame = pd.read_csv(Path(__file__).with_name("label_sets.csv"), dtype={"Target": str})
    return frame["Target"].tolist(), frame["count"].to_numpy()


def plan_image(seed, split, index, power, duplicates):
    """What image `index` of `split` is: (Id, Target, index of the image it nearly copies or None).

    A label set is drawn in proportion to its real count to the `power`. About a share `duplicates` of the train images
    are near copies.
    """
    rng = random_stream(seed, split, index, LABEL)
    if split == "train" and index > 0 and rng.random() < duplicates:
        original = int(rng.integers(index))
        _, target, earlier = plan_image(seed, split, original, power, duplicates)
        return _image_id(seed, split, index), target, original if earlier is None else earlier
    targets, counts = _label_sets()
    share = np.cumsum((counts / counts.max()) ** power)
    target = targets[np.searchsorted(share, rng.random() * share[-1], side="right")]
    return _image_id(seed, split, index), target, None


def _image_id(seed, split, index):
    return str(uuid.UUID(bytes=random_stream(seed, split, index, NAME).bytes(16), version=4))


def write_atlas(out, train, test, size, seed=0, power=1.0, duplicates=0.02, workers=1):
    """Write an atlas of `train` + `test` images under the folder `out`; what an interrupted call left is used.

    Returns the number of images drawn: 0 when the atlas was complete. Raises InputError for values out of range, and
    when `out` holds files that are not of this atlas.
    """
    out = Path(out)
    settings = dict(train=train, test=test, size=size, seed=seed, power=power, duplicates=duplicates)
    settings["generator"] = GENERATOR
    _check(settings, workers)
    state = _open_atlas(out, settings)
    counts = {"train": train, "test": test}
    plans = {split: [plan_image(seed, split, i, power, duplicates) for i in range(counts[split])] for split in SPLITS}
    jobs = [(split, index, *plan) for split in SPLITS for index, plan in _missing(out / split, plans[split])]
    if state == "complete" and not jobs and all((out / name).is_file() for name in TABLES):
        return 0
    write_json(out / "atlas.json", {"state": "unfinished", **settings})
    bar = tqdm(total=len(jobs), unit="img", disable=None)
    for _ in _each_done(partial(_write_image, out, seed, size), jobs, workers):
        bar.update()
    bar.close()
    _write_tables(out, plans)
    write_json(out / "atlas.json", {"state": "complete", **settings})
    return len(jobs)


def _check(settings, workers):
    if not 32 <= settings["size"] <= 2048:
        raise InputError(f"--size {settings['size']} is out of range; choose 32 to 2048 pixels")
    for name, least in (("train", 1), ("test", 1), ("seed", 0), ("power", 0)):
        if not least <= settings[name] < float("inf"):
            raise InputError(f"--{name} {settings[name]} is out of range; it must be at least {least}")
    if not 0 <= settings["duplicates"] < 1:
        raise InputError(f"--duplicates {settings['duplicates']} is out of range; choose a share from 0 to below 1")
    if workers < 1:
        raise InputError(f"--workers {workers} is out of range; it must be at least 1")


def _open_atlas(out, settings):
    """Prepare the folder. Returns the state of the atlas in it: ``new``, ``unfinished`` or ``complete``."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder with --out")
    note = out / "atlas.json"
    if not note.exists():
        if any((out / name).exists() for name in SPLITS + TABLES):
            raise InputError(f"{out} holds data that utils.simulate did not make; choose another --out")
        check_writable(note)
        return "new"
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        state = found.pop("state")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{note} holds no settings of an atlas; choose another --out or delete {out}") from error
    if found != settings:
        other = ", ".join(f"{name} {value}" for name, value in found.items())
        raise InputError(f"{out} holds an atlas of other settings ({other}); choose another --out or delete it")
    check_writable(note)
    return state


def _missing(folder, plans):
    """The (index, plan) whose four files are not all in `folder`. Sweeps out the parts of files a crash left."""
    folder.mkdir(parents=True, exist_ok=True)
    names = set(os.listdir(folder))
    for name in names:
        if name.startswith(".") and name.endswith(".part"):
            (folder / name).unlink()
    return [(i, plan) for i, plan in enumerate(plans) if not {f"{plan[0]}_{c}.png" for c in CHANNELS.values()} <= names]


def _write_image(out, seed, size, job):
    split, index, image_id, target, copy_of = job
    image = draw_sample(seed, split, index, target, size, copy_of)
    for number, channel in enumerate(CHANNELS.values()):
        _, png = cv2.imencode(".png", np.ascontiguousarray(image[..., number]))
        with whole_file(out / split / f"{image_id}_{channel}.png", "wb") as file:
            file.write(png)


def _each_done(function, jobs, workers):
    """Call `function` on all jobs, yield as they get done; in this process when one worker is enough."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    with multiprocessing.Pool(workers, initializer=_start_worker) as pool:
        yield from pool.imap_unordered(function, jobs, chunksize=4)


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the main process, which then stops the workers


def _write_tables(out, plans):
    tables = {
        split: pd.DataFrame([plan[:2] for plan in plans[split]], columns=["Id", "Target"]).sort_values("Id")
        for split in SPLITS
    }
    write_csv(out / "train.csv", tables["train"])
    write_csv(out / "solution.csv", tables["test"])
    write_csv(out / "sample_submission.csv", pd.DataFrame({"Id": tables["test"]["Id"], "Predicted": "0"}))


def _summary(out, drawn, seconds):
    files = [entry for split in SPLITS for entry in os.scandir(out / split)]
    images = len(files) // len(CHANNELS)
    megabytes = sum(entry.stat().st_size for entry in files) / 1e6
    targets = pd.read_csv(out / "train.csv", dtype=str)["Target"]
    counts = Counter(int(word) for target in targets for word in target.split())
    rarest = sorted(range(len(HPA_CLASSES)), key=lambda number: counts[number])[:5]
    print(f"{out}: {plural(images, 'image')} in {plural(len(files), 'file')}, {megabytes:,.1f} MB")
    print(f"drawn now: {drawn:,} in {seconds:.1f} s, {drawn / seconds:.1f} img/s")
    print("rarest in train: " + ", ".join(f"{number} {HPA_CLASSES[number]} ({counts[number]})" for number in rarest))


def _options():
    parser = argparse.ArgumentParser(
        prog="python -m utils.simulate",
        description="Make a fake Human Protein Atlas with known labels, laid out like Kaggle's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    arg = parser.add_argument
    arg("--out", type=Path, default=Path("input/demo"), help="folder of the atlas")
    arg("--train", type=int, default=1000, help="train images")
    arg("--test", type=int, default=300, help="test images")
    arg("--size", type=int, default=128, help="side of the images in pixels, 32 to 2048")
    arg("--seed", type=int, default=0, help="another seed, another atlas")
    arg("--power", type=float, default=1.0, help="label sets as often as count**power: 1 as in reality, 0 all alike")
    arg("--duplicates", type=float, default=0.02, help="share of train images that nearly copy another")
    arg("--workers", type=int, default=os.cpu_count(), help="processes; the files do not depend on it")
    return parser.parse_args()


def main():
    options = _options()
    start = time.perf_counter()
    drawn = write_atlas(**vars(options))
    if not drawn:
        print(f"{options.out} is complete already, nothing to do")
        return
    _summary(options.out, drawn, time.perf_counter() - start)


if __name__ == "__main__":
    run_script(main)

"""Make a fake atlas: pictures of cells with known labels, laid out on disk like Kaggle's Human Protein Atlas data.

    python -m utils.simulator --out input/demo --train 1000 --test 300 --size 128 --seed 0
    python -m utils.simulator --out input/cyto --form cyto --train 1000 --test 200 --size 512 --corrupt 0.02

writes train/<Id>_{red,green,blue,yellow}.png, test/…, train.csv, sample_submission.csv and solution.csv, the true
labels of the test set, which training must never see; with --external also external/… and external.csv. `--form cyto`
gives the 13 classes of the Cyto Challenge as TIFF files in mixed sizes and depths. Labels have the frequencies and
co-occurrence of the 31,072 real ones. Each picture follows from the settings, its split and its number, so any part of
an atlas can be made again by itself: `--ids FILE.csv` makes the images of its column Id only.
"""

import argparse
import os
import signal
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from utils.data.labels import CYTO_CLASSES, HPA_CLASSES, read_labels
from utils.data.tables import check_ids, read_table
from utils.errors import InputError, plural
from utils.files import check_writable, write_csv, write_json
from utils.parallel import closing, cores, starting
from utils.safe_load import read_json
from utils.simulator import layout
from utils.simulator.plan import SPLITS, Settings, plan_image

TABLES = ("train.csv", "sample_submission.csv", "solution.csv")
GENERATOR = 2  # raise it when a change makes other pictures: an atlas then is not completed by another generator


def write_atlas(out, settings, workers=1, ids=None):
    """Write the atlas of `settings` under the folder `out`; what an interrupted call left is used.

    `ids`: only these images are drawn, the tables are of all. Returns the number of images drawn: 0 when none was
    missing. Raises InputError when `out` holds files that are not of this atlas, and for ids that are not of it.
    """
    out = Path(out)
    if workers < 1:
        raise InputError(f"--workers {workers} is out of range; give 1 or more")
    state = _open_atlas(out, settings)
    splits = [split for split in SPLITS if settings.count(split)]
    plans = [plan_image(settings, split, i) for split in splits for i in range(settings.count(split))]
    wanted = plans if ids is None else _chosen(plans, ids)
    jobs = [plan for split in splits for plan in _missing(out / split, split, wanted, settings)]
    if not jobs and state == "complete":
        return 0
    _note(out, "unfinished", settings)
    bar = tqdm(total=len(jobs), unit="img", disable=None)
    with bar, closing(_each_done(partial(layout.write_image, out, settings), jobs, workers)) as done:
        for _ in done:
            bar.update()
    _write_tables(out, plans, settings)
    if not any(_missing(out / split, split, plans, settings) for split in splits):
        _note(out, "complete", settings)
    return len(jobs)


def _note(out, state, settings):
    write_json(out / "atlas.json", {"state": state, "generator": GENERATOR, **asdict(settings)})


def _open_atlas(out, settings):
    """Prepare the folder. Returns the state of the atlas in it: ``new``, ``unfinished`` or ``complete``."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder with --out")
    note = out / "atlas.json"
    if not note.exists():
        if any((out / name).exists() for name in SPLITS + TABLES):
            raise InputError(f"{out} holds data that utils.simulator.write did not make; choose another --out")
        check_writable(note)
        return "new"
    what, mend = "the settings of an atlas", f"choose another --out or delete {out}"
    found = read_json(note, what, mend)
    if not isinstance(found, dict) or not {"state", "generator"} <= set(found):
        raise InputError(f"{note} is not {what}; {mend}")
    state, generator = found.pop("state"), found.pop("generator")
    if generator != GENERATOR:
        raise InputError(f"{out} was drawn by another version of this kit; choose another --out or delete it")
    if found != asdict(settings):
        other = ", ".join(f"{name} {value}" for name, value in found.items() if value != asdict(settings).get(name))
        raise InputError(f"{out} holds an atlas of other settings ({other}); choose another --out or delete it")
    check_writable(note)
    return state


def _chosen(plans, ids):
    known = {plan.id: plan for plan in plans}
    strangers = [one for one in ids if one not in known]
    if strangers:
        raise InputError(f"{plural(len(strangers), 'id')} not of this atlas, the first is {strangers[0]}; check --ids")
    return [known[one] for one in dict.fromkeys(ids)]


def _missing(folder, split, plans, settings):
    """The plans of `split` whose four files are not all in `folder`. Sweeps out the parts of files a crash left."""
    names = set(os.listdir(folder)) if folder.is_dir() else set()
    for name in names:
        if name.startswith(".") and name.endswith(".part"):
            (folder / name).unlink()
    return [plan for plan in plans if plan.split == split and not set(layout.file_names(plan, settings)) <= names]


def _each_done(function, jobs, workers):
    """Call `function` on all jobs, yield as they get done; in this process when one worker is enough."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    with starting("drawing processes", "--workers 1"):
        pool = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        with starting("drawing processes", "--workers 1"):
            futures = [pool.submit(function, job) for job in jobs]
        for done in as_completed(futures):
            yield done.result()
    except BrokenProcessPool as error:
        raise InputError("a drawing process was killed, perhaps for memory; give fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the main process, which then stops the workers


def _write_tables(out, plans, settings):
    """Labels as a user gets them, and what the pictures really show beside them."""
    originals = {plan.index: plan.id for plan in plans if plan.split == "train"}
    tables = {
        split: pd.DataFrame(
            [
                (
                    plan.id,
                    split,
                    layout.target(plan.shows, settings),
                    layout.target(plan.label, settings),
                    originals.get(plan.copies, ""),
                    layout.damage(plan, settings)[0],
                )
                for plan in plans
                if plan.split == split
            ],
            columns=["Id", "split", "Shows", "Target", "Copies", "corrupt"],
        ).sort_values("Id")
        for split in SPLITS
    }
    for split in ("train", "external"):
        if len(tables[split]):
            write_csv(out / f"{split}.csv", tables[split][["Id", "Target"]])
    write_csv(out / "solution.csv", tables["test"][["Id", "Target"]])
    write_csv(out / "sample_submission.csv", pd.DataFrame({"Id": tables["test"]["Id"], "Predicted": "0"}))
    write_csv(out / "truth.csv", pd.concat([table for table in tables.values() if len(table)]))
    if settings.form == "cyto":
        write_csv(out / "classes.csv", pd.DataFrame(enumerate(CYTO_CLASSES), columns=["class", "name"]))


def _summary(out, settings, drawn, seconds):
    files = [entry for split in SPLITS if (out / split).is_dir() for entry in os.scandir(out / split)]
    megabytes = sum(entry.stat().st_size for entry in files) / 1e6
    names = CYTO_CLASSES if settings.form == "cyto" else HPA_CLASSES
    targets = read_labels(out / "train.csv", names)["Target"]
    counts = Counter(int(word) for target in targets for word in target.split())
    rarest = sorted(range(len(names)), key=lambda number: counts[number])[:5]
    print(f"{out}: {plural(len(files) // 4, 'image')} in {plural(len(files), 'file')}, {megabytes:,.1f} MB")
    print(f"drawn now: {drawn:,} in {seconds:.1f} s, {drawn / seconds:.1f} img/s")
    print("rarest in train: " + ", ".join(f"{number} {names[number]} ({counts[number]})" for number in rarest))


def _options():
    parser = argparse.ArgumentParser(
        prog="python -m utils.simulator",
        description="Make a fake Human Protein Atlas with known labels, laid out like Kaggle's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    arg = parser.add_argument
    arg("--out", type=Path, default=Path("input/demo"), help="folder of the atlas")
    arg("--train", type=int, default=1000, help="train images")
    arg("--test", type=int, default=300, help="test images")
    arg("--external", type=int, default=0, help="images of another laboratory: brighter, and JPEG")
    arg("--size", type=int, default=128, help="side of the images in pixels, 32 to 2048")
    arg("--seed", type=int, default=0, help="another seed, another atlas")
    arg("--power", type=float, default=1.0, help="label sets as often as count**power: 1 as in reality, 0 all alike")
    arg("--duplicates", type=float, default=0.02, help="share of images that nearly copy a train image")
    arg("--label-noise", type=float, default=0.0, help="share of train and external images with a wrong label")
    arg("--ambiguity", type=float, default=0.5, help="0 plain pictures .. 1 faint, mixed, often missing proteins")
    arg("--form", default="kaggle", help="kaggle: 28 classes, 8-bit PNG; cyto: 13 classes, TIFF of mixed sizes")
    arg("--corrupt", type=float, default=0.0, help="share of images with a damaged file")
    arg("--ids", type=Path, help="CSV whose column Id names the only images to draw (default: all)")
    arg(
        "--workers",
        type=int,
        default=cores(),
        help="processes; the files do not depend on it (512²: 0.2 GB each, 2048²: 2 GB)",
    )
    return vars(parser.parse_args())


def _read_ids(path):
    ids = read_table(path, ["Id"], what="a list of ids")["Id"]
    check_ids(path, ids)
    return ids.tolist()


def main():
    options = _options()
    out, workers, ids = (options.pop(name) for name in ("out", "workers", "ids"))
    settings = Settings(**options)
    start = time.perf_counter()
    drawn = write_atlas(out, settings, workers, None if ids is None else _read_ids(ids))
    if not drawn:
        print(f"{out} is complete already, nothing to do" if ids is None else f"{out} has these images already")
        return
    _summary(out, settings, drawn, time.perf_counter() - start)

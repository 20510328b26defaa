"""See what each operation of the augmentation does to an image, and its cost.

    python -m utils.tools.augment_sheet --images input/train -o augment.png
    python -m utils.tools.augment_sheet --images input/train --id SOME_ID --size 512

Of eight draws of each operation the one that changes most is drawn. The table
shows milliseconds of each operation alone on one core, how often it is chosen,
and its share of the whole pipeline's time.
"""

import argparse
import random
import time

import numpy as np

from utils import plots
from utils.cli import check_least, run_script
from utils.data import augment
from utils.data.images import LEAST_SIDE, MOST_SIDE, check_files, find_files, load_sample, parse_channels, scan_folders
from utils.errors import InputError
from utils.files import check_writable

REPEATS = 50


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.tools.augment_sheet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arg = parser.add_argument
    arg("--images", action="append", help="folder of images, may be repeated (default: input/train)")
    arg("--id", help="which sample (default: the first)")
    arg("--channels", default="rgby", help="rgby in any order, rgb, green (default: %(default)s)")
    arg("--size", type=int, default=512, help="pixels it is resized to (default: %(default)s)")
    arg("--seed", type=int, default=0, help="other random choices (default: %(default)s)")
    arg("-o", "--out", default="augment.png", metavar="PNG", help="where to draw (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_least(args, size=(LEAST_SIDE, MOST_SIDE), seed=0)
    check_writable(args.out)
    channels = parse_channels(args.channels)
    folders = args.images or ["input/train"]
    found = scan_folders(folders)
    if not found:
        raise InputError(f"no <Id>_<colour>.png files in {', '.join(folders)}; name the folder with --images")
    files = find_files(folders, [args.id or min(found)], channels, found)
    check_files(files)
    image = load_sample(files[0], args.size)

    groups = augment.chen(channels.names)
    print(f"{'group':20}{'operation':18}{'ms':>6}{'chosen':>9}{'share of the whole':>20}")
    costs = {
        (group, name): cost(transform, image) for group, part in groups.items() for name, transform in part.items()
    }
    chain = augment.build("chen", channels.names)
    whole = milliseconds(lambda seed: chain(image, np.ones(28, np.float32), 1, seed))
    for (group, name), spent in costs.items():
        chance = 1 / len(groups[group])
        print(f"{group:20}{name:18}{spent:>6.2f}{chance:>9.0%}{chance * spent / whole:>20.1%}")
    print(
        f"{'whole pipeline':38}{whole:>6.2f} ms a sample of {len(channels.names)}x{args.size}x{args.size} on one core"
    )
    plots.operations(examples(image, groups, channels.names, args.seed), channels.names, args.out)
    print(f"-> {args.out}")


def cost(transform, image):
    def once(seed):
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        transform(image=image)

    return milliseconds(once)


def milliseconds(function):
    """Median time of `REPEATS` calls with different seeds."""
    times = []
    for seed in range(REPEATS + 3):
        started = time.perf_counter()
        function(seed)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[3:]))


def examples(image, groups, channels, seed):
    """[(title, image)]: the sample, each operation alone, a negative sample, and whole pipelines."""
    pictures = [("as it is", image)]
    for group, part in groups.items():
        for name, transform in part.items():
            pictures.append((name if name == group else f"{group}: {name}", plainest(transform, image, seed)))
    strong = augment.chen(channels, darkest=0.2).get("change references")
    if strong:
        pictures.append(("references: multiply, strong", plainest(strong["multiply"], image, seed)))
    if augment.PROTEIN in channels:
        empty = image.copy()
        empty[..., channels.index(augment.PROTEIN)] = 0
        pictures.append(("negative sample", empty))
    chain = augment.build("chen_strong", channels)
    for number in range(4 + -len(pictures) % 4):
        out, label = chain(image, np.ones(1), 1, seed + number)
        pictures.append(("whole pipeline, strong" + ("" if label.any() else ", negative"), out))
    return pictures


def plainest(transform, image, seed, draws=8):
    """The one of several draws that changes the image most: a typical one can hardly be seen."""
    results = []
    for number in range(draws):
        transform.set_random_state(np.random.default_rng((seed, number)), random.Random(seed * draws + number))
        results.append(transform(image=image)["image"])
    return max(results, key=lambda result: np.abs(result.astype(np.float32) - image).mean())


if __name__ == "__main__":
    run_script(main)

"""Show the effect and the cost of each augmentation operation, of zooming and
of mixing.

    python -m utils.tools.augment_sheet --images input/train -o augment.png
    python -m utils.tools.augment_sheet --images input/train --id SOME_ID \\
        --size 512

The sheet shows each operation's strongest effect of eight random draws. The
table shows each operation's milliseconds on one core, how often it is chosen,
and its fraction of the whole pipeline's time. Images are mixed with the next.
"""

import functools
import random
import time

import numpy as np

from utils.cli import check_least, option_parser, run_script
from utils.data import augment, mixing
from utils.data.crops import random_zoom, size_to_load
from utils.data.image_files import check_files, find_files, scan_folders
from utils.data.images import LEAST_SIDE, MOST_SIDE, load_sample, parse_channels
from utils.device import keep_freed_memory
from utils.errors import InputError
from utils.files import check_writable
from utils.plots.image_sheets import operations

REPEATS = 50


def parse_args():
    parser = option_parser(__doc__, "utils.tools.augment_sheet")
    arg = parser.add_argument
    arg("--images", action="append", help="folder of images or images.csv, may be repeated (default: input/train)")
    arg("--id", help="Id of the sample (default: the first)")
    arg("--channels", default="rgby", help="rgby in any order, rgb, green (default: %(default)s)")
    arg("--size", type=int, default=512, help="pixels that it is resized to (default: %(default)s)")
    arg("--seed", type=int, default=0, help="seed of the random draws (default: %(default)s)")
    arg("-o", "--out", default="augment.png", metavar="PNG", help="figure to write (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    keep_freed_memory()  # as in training
    check_least(args, size=(LEAST_SIDE, MOST_SIDE), seed=0)
    check_writable(args.out)
    channels = parse_channels(args.channels)
    folders = args.images or ["input/train"]
    found = scan_folders(folders)
    if not found:
        raise InputError(f"no <Id>_<colour>.png files in {', '.join(folders)}; name the folder with --images")
    ids, first = sorted(found), args.id or min(found)
    following = ids[(ids.index(first) + 1) % len(ids)] if first in found else first
    files = find_files(folders, [first, following], channels, found)
    check_files(files)
    image, other = (load_sample(paths, args.size) for paths in files)
    large = load_sample(files[0], **size_to_load(args.size, "zoom"))

    print(f"{'group':20}{'operation':20}{'ms':>6}{'chosen':>9}{'fraction of all time':>22}")
    chain, label = augment.build("chen", channels.names), np.ones(28, np.float32)
    whole = milliseconds(lambda seed: chain(image, label, 1, seed))
    groups = augment.chen(channels.names)
    for group, part in groups.items():
        for name, transform in part.items():
            spent = milliseconds(lambda seed, transform=transform: apply(transform, image, seed))
            print(f"{group:20}{name:20}{spent:>6.2f}{1 / len(part):>9.0%}{spent / len(part) / whole:>22.1%}")
    shape = f"{len(channels.names)}x{args.size}x{args.size}"
    print(f"{'whole pipeline':40}{whole:>6.2f} ms per sample of {shape} on one core")
    apart = outside_pipeline(image, large, other, channels.names)
    for name, function in apart.items():
        print(f"{'not in it':20}{name:20}{milliseconds(function):>6.2f}")
    shown = examples(image, groups, channels.names, args.seed)
    shown += [(name, function(args.seed)) for name, function in apart.items()]
    operations(shown, channels.names, args.out)
    print(f"-> {args.out}")


def outside_pipeline(image, large, other, channels):
    """-> {name: function from a seed to an image} of what train.py does to images besides Chen's augmentation. large: the sample as
    --fit zoom loads it. other: the sample to mix it with."""
    gain, label = augment.build("gain", channels), np.zeros(1, np.float32)
    functions = {
        "gain": lambda seed: gain(image, None, 0, seed)[0],
        "zoom": lambda seed: random_zoom(large, len(image), np.random.default_rng(seed)),
    }

    def mixed(name, seed):
        return mixing.Mix(name, 1.0)((image, label), (other, label), np.random.default_rng(seed))[0]

    return functions | {name: functools.partial(mixed, name) for name in ("cutmix", "mixup")}


def apply(transform, image, seed, other=None):
    """Apply a transform with random choices of `seed`. other: the seed of Python's `random`, if it differs."""
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed if other is None else other))
    return transform(image=image)["image"]


def milliseconds(function):
    """Median time of `REPEATS` calls with different seeds."""
    times = []
    for seed in range(REPEATS + 3):
        started = time.process_time()
        function(seed)
        times.append(time.process_time() - started)
    return 1000 * float(np.median(times[3:]))


def examples(image, groups, channels, seed, draws=8):
    """-> [(title, image)]: the sample, each operation alone, a negative sample, and whole pipelines. Of `draws` results
    of an operation, the one that differs most from the image is kept: a typical one is hardly visible."""

    def strongest(transform):
        results = [apply(transform, image, (seed, number), seed * draws + number) for number in range(draws)]
        return max(results, key=lambda result: np.abs(result.astype(np.float32) - image).mean())

    shown = [("original", image)]
    for group, part in groups.items():
        part = {name if name == group else f"{group}: {name}": one for name, one in part.items() if name != "none"}
        shown += [(title, strongest(one)) for title, one in part.items()]
    if strong := augment.chen(channels, darkest=0.2).get("change references"):
        shown.append(("references: multiply, strong", strongest(strong["multiply"])))
    if augment.PROTEIN in channels:
        empty = image.copy()
        empty[..., channels.index(augment.PROTEIN)] = 0
        shown.append(("negative sample", empty))
    chain = augment.build("chen_strong", channels)
    for number in range(4 + -len(shown) % 4):
        out, label = chain(image, np.ones(1), 1, seed + number)
        shown.append(("whole pipeline, strong" + ("" if label.any() else ", negative"), out))
    return shown


if __name__ == "__main__":
    run_script(main)

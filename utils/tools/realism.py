"""Are simulated pictures like real ones? Grey values, power spectra and file
sizes of each channel, side by side.

    python -m utils.tools.realism --real input/train --simulated input/demo/train \\
        -o realism.png

Folders hold <Id>_<red|green|blue|yellow>.png, jpg or tif; samples need not be
complete, one channel is enough. Every plane is brought to --size, 8 bits, and
written as PNG in the same way, so that only what is in the picture counts.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from tqdm import tqdm

from utils import plots
from utils.cli import check_least, run_script
from utils.data.images import CHANNELS, LEAST_SIDE, MOST_SIDE, image_size, load_sample, scan_folder
from utils.errors import InputError, plural
from utils.files import check_writable, first_repeated
from utils.opencv import cv2
from utils.parallel import cores
from utils.simulator.plan import Settings, plan_image
from utils.simulator.sample import draw_sample

SIDES = ("real", "simulated")
BAND = (10, 50, 90)  # percentiles over images: lower edge, line, upper edge


def list_planes(folders):
    """Paths of each channel's planes in all folders, complete samples or not: {channel: [path, …]}."""
    if repeated := first_repeated(folders):
        raise InputError(f"{repeated} is given twice; name each folder once")
    planes, names = {channel: [] for channel in CHANNELS.values()}, set()
    for folder in folders:
        for id_, sample in scan_folder(folder).items():
            for channel, path in sample.items():
                if (id_, channel) in names:
                    raise InputError(f"{folder}: {id_}_{channel} also lies in another folder; keep one of them")
                names.add((id_, channel))
                planes[channel].append(path)
    return planes


def measure(path, size):
    """What one plane is compared by: (histogram (256,) int, power (size // 2,), KB as PNG); None if it is too small."""
    if min(image_size(path)) < size:
        return None
    plane = load_sample([path], size)[..., 0]
    if plane.dtype != np.uint8:
        plane = np.rint(255 * plane).astype(np.uint8)
    kilobytes = len(cv2.imencode(".png", plane)[1]) / 1000
    return np.bincount(plane.ravel(), minlength=256), radial_power(plane), kilobytes


def radial_power(plane):
    """Mean power at 1, 2, … S/2 cycles per image, over all directions: (S, S) -> (S // 2,) float64.

    Mean removed, Hann window (Harris 1978), divided by the plane's variance and the window's energy, so that white
    noise gives 1 at every frequency. A constant plane has no spectrum: NaN.
    """
    values = plane - plane.mean()
    window, cycles = _window_and_cycles(len(plane))
    if not values.any():
        return np.full(len(plane) // 2, np.nan)
    power = np.abs(np.fft.fft2(values * window)) ** 2 / (values.var() * (window**2).sum())
    sums, counts = (np.bincount(cycles.ravel(), weights)[1:] for weights in (power.ravel(), None))
    return (sums / counts)[: len(plane) // 2]


@lru_cache
def _window_and_cycles(size):
    """Periodic Hann window (size, size), and each Fourier coefficient's distance from 0, rounded: (size, size) int."""
    hann = np.hanning(size + 1)[:-1]
    axis = np.fft.fftfreq(size, 1 / size)
    return np.outer(hann, hann), np.rint(np.hypot(axis[:, None], axis)).astype(int)


def measure_all(files, size, limit, label):
    """Measure at most `limit` planes, spread evenly over `files`: -> (dict of arrays by plane, or None; planes skipped)."""
    picked = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(limit, len(files))).astype(int))]
    with ThreadPoolExecutor(cores()) as pool:  # decoding and transforming leave the interpreter lock
        work = pool.map(lambda path: measure(path, size), picked)
        done = list(tqdm(work, desc=label, total=len(picked), unit="img", disable=None, leave=False))
    kept = [values for values in done if values is not None]
    skipped = len(done) - len(kept)
    if not kept:
        return None, skipped
    return dict(zip(("histograms", "powers", "kilobytes"), map(np.stack, zip(*kept)), strict=True)), skipped


def moments(histograms):
    """Mean and std of all pixels pooled (grey values 0 to 1), shares of pixels at 0 and at 255: (N, 256) -> 4 floats."""
    share = histograms.sum(axis=0) / histograms.sum()
    grey = np.arange(256) / 255
    mean = share @ grey
    return mean, np.sqrt(share @ (grey - mean) ** 2), share[0], share[255]


def bands(values):
    """10th, 50th and 90th percentile over planes: (N, K) -> (3, K). Planes without a value (NaN) are left out."""
    values = values[~np.isnan(values).any(axis=1)]
    return np.percentile(values, BAND, axis=0) if len(values) else np.full((3, values.shape[1]), np.nan)


def curve_bands(part):
    """What is drawn of one side of a channel: bands of its histograms (3, 256) and spectra (3, S // 2), and all sizes."""
    histograms = part["histograms"]
    shares = histograms / histograms.sum(axis=1, keepdims=True)
    return bands(shares), bands(part["powers"]), part["kilobytes"]


def spectrum_distance(first, second):
    """Median over 2, 3, … S/2 cycles per image of |log10 median power's difference|: two (N, S // 2) -> float.

    0 where two sets of planes have the same spectrum; 1 where they differ tenfold.
    """
    first, second = (np.log10(np.maximum(bands(powers)[1], 1e-12))[1:] for powers in (first, second))
    return float(np.median(np.abs(first - second)))


def report(measured):
    """Two lines a channel; the spectrum distance stands in the second, – where a side has no spectrum."""
    print(f"{'channel':9}{'':10}{'images':>7}{'mean':>8}{'std':>8}{'at 0':>8}{'at 255':>8}{'KB (10–90 %)':>17}"
          f"{'spectrum':>10}")  # fmt: skip
    for channel, sides in measured.items():
        distance = spectrum_distance(*(part["powers"] for part in sides.values())) if all(sides.values()) else np.nan
        for side, part in sides.items():
            name = f"{channel if side == 'real' else '':9}{side:10}"
            if not part:
                print(f"{name}{0:>7}")
                continue
            mean, std, black, white = moments(part["histograms"])
            low, middle, high = np.percentile(part["kilobytes"], BAND)
            shown = "" if side == "real" else "–" if np.isnan(distance) else f"{distance:.3f}"
            print(f"{name}{len(part['kilobytes']):>7,}{mean:>8.4f}{std:>8.4f}{black:>8.2%}{white:>8.2%}"
                  f"{f'{middle:.0f} ({low:.0f}–{high:.0f})':>17}{shown:>10}".rstrip())  # fmt: skip


def mixed_fields(data, count=16, size=256, seed=0):
    """Fields to be told apart: up to `count` of the competition's, where the Data are real, and as many simulated ones, else `count`
    simulated ones, in random order -> [("real" or "simulated", (size, size, 4))]."""
    real = (
        [("real", load_sample(paths, size)) for paths in data.sample("train", count, seed).values()]
        if data.real
        else []
    )
    settings = Settings(train=1000, test=1, size=size, seed=5)
    plans = [plan_image(settings, "train", index) for index in range(len(real) or count)]
    drawn = [("simulated", draw_sample(settings.seed, "train", plan.index, plan.shows, size)) for plan in plans]
    fields = real + drawn
    return [fields[place] for place in np.random.default_rng(seed).permutation(len(fields))]


def _options():
    parser = argparse.ArgumentParser(prog="python -m utils.tools.realism", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    arg = parser.add_argument
    for side in SIDES:
        arg(f"--{side}", nargs="+", required=True, metavar="FOLDER", help=f"folders of {side} pictures")
    arg("-o", "--out", default="realism.png", metavar="PNG", help="figure to write (default: %(default)s)")
    arg(
        "--size",
        type=int,
        default=512,
        help="pixels all planes are reduced to; smaller are skipped (default: %(default)s)",
    )
    arg(
        "--limit",
        type=int,
        default=200,
        metavar="N",
        help="most planes of a channel from each side (default: %(default)s)",
    )
    return parser.parse_args()


def main():
    options = _options()
    check_least(options, size=(LEAST_SIDE, MOST_SIDE), limit=1)
    check_writable(options.out)
    files = {side: list_planes(getattr(options, side)) for side in SIDES}
    measured, skipped = {channel: {} for channel in CHANNELS.values()}, 0
    for channel, sides in measured.items():
        for side in SIDES:
            sides[side], small = measure_all(files[side][channel], options.size, options.limit, f"{side} {channel}")
            skipped += small
    if skipped:
        print(f"{plural(skipped, 'plane')} smaller than {options.size}² skipped")
    if not any(all(sides.values()) for sides in measured.values()):
        raise InputError(
            f"no channel has real and simulated planes of {options.size}² or more; look at the folders, or lower --size"
        )
    report(measured)
    curves = {
        channel: {side: part and curve_bands(part) for side, part in sides.items()}
        for channel, sides in measured.items()
    }
    plots.realism(curves, options.size, options.out)
    print(f"spectrum: median difference of log10 power; 0: alike -> {options.out}")


if __name__ == "__main__":
    run_script(main)

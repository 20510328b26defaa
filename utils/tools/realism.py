"""Compare grey values, power spectra and file sizes of simulated and real images.

    python -m utils.tools.realism --real input/train \\
        --simulated input/demo/train -o realism.png

Folders hold <Id>_<red|green|blue|yellow>.png, jpg or tif; one channel of a
sample is enough. Every plane is converted to --size, 8 bits and PNG, so that
the original format does not matter.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from tqdm import tqdm

from utils.cli import check_least, option_parser, run_script
from utils.data.image_files import scan_folder
from utils.data.images import CHANNELS, LEAST_SIDE, MOST_SIDE, image_size, load_sample
from utils.errors import InputError, plural
from utils.files import check_writable, first_repeated
from utils.opencv import cv2
from utils.parallel import cores
from utils.plots import dataset_figures

SIDES = ("real", "simulated")
BAND = (10, 50, 90)  # percentiles over images: lower edge, line, upper edge


def main():
    parser = option_parser(__doc__, "utils.tools.realism")
    arg = parser.add_argument
    for side in SIDES:
        arg(f"--{side}", nargs="+", required=True, metavar="IMAGES", help=f"folders of {side} images, or images.csv")
    arg("-o", "--out", default="realism.png", metavar="PNG", help="figure to write (default: %(default)s)")
    arg("--size", type=int, default=512, help="pixels of all planes; smaller planes are skipped (default: %(default)s)")
    arg("--limit", type=int, default=200, metavar="N", help="most planes per channel and side (default: %(default)s)")
    args = parser.parse_args()
    check_least(args, size=(LEAST_SIDE, MOST_SIDE), limit=1)
    check_writable(args.out)
    files = {side: list_planes(getattr(args, side)) for side in SIDES}
    measured, skipped = {channel: {} for channel in CHANNELS.values()}, 0
    for channel, sides in measured.items():
        for side in SIDES:
            sides[side], small = measure_all(files[side][channel], args.size, args.limit, f"{side} {channel}")
            skipped += small
    if skipped:
        print(f"{plural(skipped, 'plane')} smaller than {args.size}² skipped")
    if not any(all(sides.values()) for sides in measured.values()):
        fix = "check the folders, or lower --size"
        raise InputError(f"no channel has real and simulated planes of {args.size}² or more; {fix}")
    print_table(measured)
    curves = {
        name: {side: part and curve_bands(*part) for side, part in both.items()} for name, both in measured.items()
    }
    dataset_figures.realism(curves, args.size, args.out)
    print(f"spectrum: median difference of log10 power, 0 for equal spectra -> {args.out}")


def list_planes(folders):
    """List each channel's planes in all folders, also of incomplete samples: -> {channel: [path, …]}."""
    if repeated := first_repeated(folders):
        raise InputError(f"{repeated} is given twice; name each folder once")
    planes = {channel: {} for channel in CHANNELS.values()}
    for folder in folders:
        for id_, sample in scan_folder(folder).items():
            for channel, path in sample.items():
                if id_ in planes[channel]:
                    raise InputError(f"{folder}: {id_}_{channel} also lies in another folder; keep one of them")
                planes[channel][id_] = path
    return {channel: list(found.values()) for channel, found in planes.items()}


def measure(path, size):
    """Measure one plane: -> histogram (256,) int, power (size // 2,), KB as PNG; None if it is too small."""
    if min(image_size(path)) < size:
        return None
    plane = load_sample([path], size)[..., 0]
    if plane.dtype != np.uint8:
        plane = np.rint(255 * plane).astype(np.uint8)
    kilobytes = len(cv2.imencode(".png", plane)[1]) / 1000
    return np.bincount(plane.ravel(), minlength=256), radial_power(plane), kilobytes


def radial_power(plane):
    """Compute the mean power over directions at 1, 2, … S/2 cycles per image: (S, S) -> (S // 2,) float64.

    Mean removed, Hann window (Harris 1978), divided by the plane's variance and the window's energy, so that white
    noise gives 1 at every frequency. A constant plane gives NaN.
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
    """-> periodic Hann window (size, size), rounded frequency of each Fourier coefficient (size, size) int."""
    hann = np.hanning(size + 1)[:-1]
    axis = np.fft.fftfreq(size, 1 / size)
    return np.outer(hann, hann), np.rint(np.hypot(axis[:, None], axis)).astype(int)


def measure_all(files, size, limit, label):
    """Measure at most `limit` planes, spread evenly over `files`: -> (histograms (N, 256), powers (N, size // 2),
    kilobytes (N,)), or None if N is 0; number of planes skipped."""
    picked = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(limit, len(files))).astype(int))]
    with ThreadPoolExecutor(cores()) as pool:  # decoding and transforming release the interpreter lock
        work = pool.map(lambda path: measure(path, size), picked)
        done = list(tqdm(work, desc=label, total=len(picked), unit="img", disable=None, leave=False))
    kept = [values for values in done if values is not None]
    return tuple(map(np.stack, zip(*kept, strict=True))) if kept else None, len(done) - len(kept)


def moments(histograms):
    """Mean and std over all pixels (grey values 0 to 1), fractions of pixels at 0 and at 255: (N, 256) -> 4 floats."""
    fraction = histograms.sum(axis=0) / histograms.sum()
    grey = np.arange(256) / 255
    mean = fraction @ grey
    return mean, np.sqrt(fraction @ (grey - mean) ** 2), fraction[0], fraction[255]


def bands(values):
    """10th, 50th and 90th percentile over planes, without planes of NaN: (N, K) -> (3, K)."""
    values = values[~np.isnan(values).any(axis=1)]
    return np.percentile(values, BAND, axis=0) if len(values) else np.full((3, values.shape[1]), np.nan)


def curve_bands(histograms, powers, kilobytes):
    """-> bands of histograms (3, 256) and of spectra (3, S // 2), and all sizes, of one side of a channel."""
    return bands(histograms / histograms.sum(axis=1, keepdims=True)), bands(powers), kilobytes


def spectrum_distance(first, second):
    """Median over 2, 3, … S/2 cycles per image of |difference of log10 median power|: two (N, S // 2) -> float. 0 for
    equal spectra, 1 for a tenfold difference."""
    first, second = (np.log10(np.maximum(bands(powers)[1], 1e-12))[1:] for powers in (first, second))
    return float(np.median(np.abs(first - second)))


def print_table(measured):
    """Print two lines per channel; the second has the distance of the spectra, or – if a side has none."""
    moments_header = f"{'mean':>8}{'std':>8}{'at 0':>8}{'at 255':>8}"
    print(f"{'channel':9}{'':10}{'images':>7}{moments_header}{'KB (10–90 %)':>17}{'spectrum':>10}")
    for channel, sides in measured.items():
        for side, part in sides.items():
            name = f"{channel if side == 'real' else '':9}{side:10}"
            if not part:
                print(f"{name}{0:>7}")
                continue
            histograms, powers, kilobytes = part
            mean, std, black, white = moments(histograms)
            low, middle, high = np.percentile(kilobytes, BAND)
            distance = spectrum_distance(sides["real"][1], powers) if all(sides.values()) else np.nan
            shown = "" if side == "real" else "–" if np.isnan(distance) else f"{distance:.3f}"
            numbers = f"{len(kilobytes):>7,}{mean:>8.4f}{std:>8.4f}{black:>8.2%}{white:>8.2%}"
            print(f"{name}{numbers}{f'{middle:.0f} ({low:.0f}–{high:.0f})':>17}{shown:>10}".rstrip())


if __name__ == "__main__":
    run_script(main)

"""Statistics of an image's pixels from which one sees, without a network, how unlike the training images it is, and why."""

import itertools

import numpy as np

from utils.opencv import cv2

COARSE = 64  # pixels: sides of the copy that all but the finest detail is measured on, at most
STEP = 1 / 255  # differences of fewer grey levels than about this do not count
LEAST_AREA = 0.001  # of a nucleus: fraction of the image
LEAST_CONTRAST = 1.5  # of nuclei to the rest of blue
OF_CHANNEL = ("background", "brightness", "contrast", "saturation", "sharpness", "texture")
OF_NUCLEI = ("nuclei", "nuclear size", "nuclear contrast")


def statistic_names(channels):
    """Name the F statistics of the channels, a tuple of names: ``red background``, …, ``nuclei``, …, ``red–green
    correlation``, …; those of nuclei only if there is blue."""
    each = [f"{channel} {name}" for name in OF_CHANNEL for channel in channels]
    pairs = [f"{one}–{other} correlation" for one, other in _pairs(channels)]
    return each + list(OF_NUCLEI) * ("blue" in channels) + pairs


def image_statistics(image, channels):
    """Measure (H, W, channels) pixels, uint8 or float32 in [0, 1]: -> (F,) float32, finite, named by `statistic_names`.

    Correlations are those of each two channels in the coarse copy; all others are in doublings (log2). Of each channel: the
    5 % quantile of its grey values (background), their mean (brightness), the 99 % less the 5 % quantile (contrast), the
    fraction within 2 % of white (saturation), and the variance of the Laplacian over that of the image (Pech-Pacheco et
    al., ICPR 2000; log2 20 for white noise), in full (sharpness) and in the coarse copy (texture). Of nuclei, the parts of
    the coarse blue above Otsu's threshold: number, median area, and grey value over that of the rest.
    """
    white = 255 if image.dtype == np.uint8 else 1
    mean, deviation = _moments(image, white)
    shape = [max(1, min(side, round(COARSE * side / max(image.shape[:2])))) for side in image.shape[1::-1]]
    coarse = cv2.resize(image, shape, interpolation=cv2.INTER_AREA).reshape(*shape[::-1], -1)
    coarse_deviation = _moments(coarse, white)[1]
    planes = np.ascontiguousarray(coarse.reshape(-1, len(mean)).T)
    places = [int(fraction * (planes.shape[1] - 1)) for fraction in (0.05, 0.99)]
    low, high = np.partition(planes, places, axis=1)[:, places].T / white
    saturated = np.array(cv2.mean(cv2.threshold(image, 0.98 * white, 1, cv2.THRESH_BINARY)[1])[: len(mean)])
    values = [low + 4 * STEP, mean + STEP, high - low + STEP, saturated + 0.01]
    values += [_detail(image, deviation, white), _detail(coarse, coarse_deviation, white)]
    if "blue" in channels:
        values.append(_nuclei(planes[channels.index("blue")].reshape(coarse.shape[:2]), white))
    return np.concatenate([np.log2(np.concatenate(values)), _correlations(planes, white)]).astype(np.float32)


def _pairs(items):
    return itertools.combinations(items, 2)


def _moments(image, white):
    return [values.ravel() / white for values in cv2.meanStdDev(image)]


def _detail(image, deviation, white):
    fine = _moments(cv2.Laplacian(image, cv2.CV_16S if white == 255 else cv2.CV_32F), white)[1]
    return (fine**2 + STEP**2 / 4) / (deviation**2 + STEP**2 / 4)


def _nuclei(plane, white):
    smooth = cv2.blur(plane, (3, 3))
    levels = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    nuclei = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1]
    inside, outside = (cv2.mean(plane, mask)[0] / white + 2 * STEP for mask in (nuclei, 255 - nuclei))
    areas = cv2.connectedComponentsWithStats(nuclei, connectivity=4)[2][1:, cv2.CC_STAT_AREA] / plane.size
    areas = areas[(areas > LEAST_AREA) & (inside > LEAST_CONTRAST * outside)]
    return [len(areas) + 1, (np.median(areas) if len(areas) else 0) + LEAST_AREA, inside / outside]


def _correlations(planes, white):
    centred = planes - planes.mean(axis=1, keepdims=True, dtype=np.float32)
    covariance = centred @ centred.T / planes.shape[1]
    deviation = np.sqrt(covariance.diagonal() + (white * STEP / 2) ** 2)
    return [covariance[pair] / (deviation[pair[0]] * deviation[pair[1]]) for pair in _pairs(range(len(planes)))]

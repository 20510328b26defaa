"""Mean average precision of detected cells, as the Open Images challenge and the single-cell competition of 2021 score it.

A detection is a mask with a class and a confidence. From the most confident on, it is right if the true masks of its class
in its image include one with an intersection over union of at least `LEAST_IOU` that no detection before it has taken;
else, as for a second detection of one cell, it is wrong. (TensorFlow's object-detection API asks only the true mask of
highest IoU. That is the same if true masks do not overlap, for then only one can reach half.) Average precision is the area
under precision over recall, each precision raised to the best at this or a higher recall, as in PASCAL VOC since 2010 and
in compute_average_precision of that API. The mean is over the classes that have true cells.
"""

import numpy as np

LEAST_IOU = 0.6


def match_in_order(overlaps):
    """Find the detections of one class and image that are right: (D, T) IoU with the true masks, the most confident
    detection first -> (D,) bool. Each takes the free true mask of highest IoU."""
    right = np.zeros(len(overlaps), bool)
    free = np.ones(overlaps.shape[1], bool)
    for row in np.flatnonzero((overlaps >= LEAST_IOU).any(axis=1)):
        candidates = np.where(free, overlaps[row], -1)
        best = candidates.argmax()
        if candidates[best] >= LEAST_IOU:
            right[row], free[best] = True, False
    return right


def average_precision(right, positives, weights=None):
    """Area under precision over recall of one class; NaN without positives.

    right: (N,) bool, the most confident detection first. positives: the number of true cells. weights: (N,) how often each
    detection counts (default: once).
    """
    if not positives:
        return np.nan
    weights = np.ones(len(right)) if weights is None else weights
    found = np.flatnonzero(right)  # recall rises here, and precision has its maxima
    steps = weights[found]
    precision = np.cumsum(steps) / np.maximum(np.cumsum(weights)[found], 1)
    return float(steps @ np.maximum.accumulate(precision[::-1])[::-1] / positives)


def judge_detections(images, classes, right, positives, draws, seed):
    """-> average precision of each class (C, 3): the value and its 95 % interval, and of their mean (3,).

    images, classes, right: (N,) int, int, bool, of detections, the most confident first. positives: (I, C) true cells of
    each image and class. Intervals are percentiles of `draws` bootstrap samples of images (Efron 1979), the same for all
    classes. A class without true cells has NaN and is not in the mean; nor is it in the mean of a sample without them.
    """
    count = len(positives)
    samples = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    table = np.full((draws + 1, positives.shape[1]), np.nan)
    for number in np.flatnonzero(positives.any(axis=0)):
        own = classes == number
        place, hits, cells = images[own], right[own], positives[:, number]
        for row, often in enumerate([np.ones(count, int), *samples]):
            table[row, number] = average_precision(hits, often @ cells, often[place])
    present = ~np.isnan(table)
    table = np.column_stack([table, np.where(present, table, 0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)])
    with_interval = np.full((table.shape[1], 3), np.nan)
    for number in np.flatnonzero(~np.isnan(table[0])):
        with_interval[number] = table[0, number], *np.nanpercentile(table[1:, number], [2.5, 97.5])
    return with_interval[:-1], with_interval[-1]

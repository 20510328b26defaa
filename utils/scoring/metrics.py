"""F1 for many rare classes, counted exactly.

A prediction is positive where probability >= threshold. F1 = 2 TP / (2 TP + FP + FN), and 0 where that is 0/0, as the
competition scores it. Macro F1 is the mean over classes of one count over all rows, never a mean over batches or folds.
"""

import numpy as np


def f1_per_class(truth, decisions):
    """F1 of each class. `truth`, `decisions`: (N, C) of 0/1 -> (C,) float64 in [0, 1]."""
    truth, decisions = np.asarray(truth, bool), np.asarray(decisions, bool)
    return f1_from_counts((truth & decisions).sum(0), truth.sum(0), decisions.sum(0))


def f1_from_counts(hits, positives, called):
    """F1 from true positives, rows that are positive, rows that were called positive (arrays that broadcast)."""
    total = np.asarray(positives) + called
    return 2 * np.asarray(hits) / np.where(total == 0, 1, total)


def macro_f1(truth, decisions):
    """Mean of `f1_per_class` over all C classes, absent ones counted as 0."""
    return float(f1_per_class(truth, decisions).mean())


def f1_steps(truth, probabilities):
    """F1 of one class at every threshold that changes a decision.

    `truth`: (N,) 0/1, `probabilities`: (N,) -> thresholds (K,) descending, F1 (K,): calling every row with probability
    >= thresholds[k] gives F1[k]. K is the number of different probabilities.
    """
    order, last, steps, _ = levels(probabilities)
    hits = np.cumsum(truth[order], dtype=np.int64)[last]
    return steps, f1_from_counts(hits, int(truth.sum()), last + 1)


def best_thresholds(truth, probabilities):
    """The threshold of highest F1 for each class, exactly: (N, C), (N, C) -> thresholds (C,), F1 (C,).

    The threshold lies halfway down to the next lower probability; of equally good ones the median is taken. A class
    without positives cannot be fitted: its threshold is NaN, its F1 is 0.
    """
    truth = np.ascontiguousarray(np.asarray(truth, bool).T)
    probabilities = np.ascontiguousarray(np.asarray(probabilities, np.float64).T)
    thresholds, scores = np.full(len(truth), np.nan), np.zeros(len(truth))
    for row in np.flatnonzero(truth.any(axis=1)):
        thresholds[row], scores[row] = _best_threshold(truth[row], probabilities[row])
    return thresholds, scores


def _best_threshold(positive, values):
    """Lowering the threshold past a negative only loses, so the best lies at a positive: these alone are looked at."""
    ranked, own = np.sort(values), np.sort(values[positive])
    levels = np.unique(own)
    below = np.searchsorted(ranked, levels)
    f1 = f1_from_counts(len(own) - np.searchsorted(own, levels), len(own), len(ranked) - below)
    best = np.flatnonzero(f1 == f1.max())
    best = best[len(best) // 2]  # of an even number the upper of the middle two
    lower = ranked[below[best] - 1] if below[best] else 0.0
    return (levels[best] + lower) / 2, f1[best]


def best_global_threshold(truth, probabilities):
    """The one threshold for all classes with the highest macro F1, exactly: -> (threshold, macro F1).

    Every class's F1 is a step function of the threshold; the sum of these steps over all N x C probabilities is
    followed in one sorted pass, so no grid is needed.
    """
    truth, probabilities = np.asarray(truth), np.asarray(probabilities, np.float64)
    at, rise = [], []
    for column in range(truth.shape[1]):
        steps, f1 = f1_steps(truth[:, column], probabilities[:, column])
        at.append(steps)
        rise.append(np.diff(f1, prepend=0.0))
    at, rise = np.concatenate(at), np.concatenate(rise)
    order = np.argsort(-at, kind="stable")
    at, total = at[order], np.cumsum(rise[order])
    last = last_of_equals(at)
    best = last[np.argmax(total[last])]
    following = last[last > best]
    lower = at[following[0]] if len(following) else 0.0
    threshold = float(at[best] + lower) / 2
    return threshold, macro_f1(truth, probabilities >= threshold)


def last_of_equals(ranked):
    """Places of the last of each run of equal values in sorted ones: (N,) -> (K,) int."""
    return np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))


def levels(values):
    """What can be told apart by a threshold: (N,) -> order (N,), rows from the highest value on; last (K,), the place there of
    the last row of each different value; these values (K,), falling; the next lower one of each (K,), 0 below the lowest."""
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    last = last_of_equals(ranked)
    return order, last, ranked[last], np.append(ranked[last[1:]], 0.0)


def precision_recall(truth, decisions):
    """(precision, recall) of each class, 0 where undefined: (N, C), (N, C) -> (C,), (C,)."""
    ratios = class_scores(truth, decisions)
    return ratios["precision"], ratios["recall"]


READINGS = {
    "class": "computed for each class, then averaged over classes",
    "sample": "computed for each image, then averaged over images",
    "pooled": "computed once over all labels of all images",
}


def multilabel_scores(truth, decisions):
    """Every figure of Chen's Table II in every reading: (N, C), (N, C) of 0/1 -> dict.

    `correct` of `total` labels (image x class) and their ratio `binary_accuracy`, which is the same in every reading;
    `f1`, `precision`, `recall`, `iou`: dicts over `READINGS`. 0/0 counts as 0.

    The paper prints one number each without saying which reading it is. IoU is at most F1 in one and the same reading, so
    its IoU of .63 cannot belong to its macro F1 of .34; the author's public code sums over samples.
    """
    truth, decisions = np.asarray(truth, bool), np.asarray(decisions, bool)
    result = {"correct": int((truth == decisions).sum()), "total": truth.size}
    result["binary_accuracy"] = result["correct"] / result["total"]
    parts = {reading: _ratios(truth, decisions, axis) for reading, axis in zip(READINGS, (0, 1, None), strict=True)}
    for name in ("f1", "precision", "recall", "iou"):
        result[name] = {reading: float(np.mean(ratios[name])) for reading, ratios in parts.items()}
    return result


def class_scores(truth, decisions):
    """{accuracy, f1, precision, recall, iou: (C,) float64} of each class. Accuracy counts images decided rightly."""
    truth, decisions = np.asarray(truth, bool), np.asarray(decisions, bool)
    return {"accuracy": (truth == decisions).mean(axis=0), **_ratios(truth, decisions, 0)}


def _ratios(truth, decisions, axis):
    hits, called, positives = (part.sum(axis) for part in (truth & decisions, decisions, truth))

    def ratio(over, under):
        return np.divide(over, under, out=np.zeros(np.shape(under)), where=np.asarray(under) > 0)

    return {"f1": f1_from_counts(hits, positives, called), "precision": ratio(hits, called), "recall": ratio(hits, positives),
            "iou": ratio(hits, called + positives - hits)}  # fmt: skip

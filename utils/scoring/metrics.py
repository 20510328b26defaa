"""Exact F1 of many rare classes.

A prediction is positive if probability >= threshold. F1 = 2 TP / (2 TP + FP + FN), and 0 for 0/0, as in the
competition. Macro F1 is the mean over classes of F1 over all rows, never a mean over batches or folds.
"""

import numpy as np


def f1_per_class(truth, decisions):
    """F1 of each class: (N, C), (N, C) of 0/1 -> (C,) float64 in [0, 1]."""
    truth, decisions = np.asarray(truth, bool), np.asarray(decisions, bool)
    return f1_from_counts((truth & decisions).sum(0), truth.sum(0), decisions.sum(0))


def f1_from_counts(tp, positives, predicted):
    """F1 from true positives, positive rows and rows predicted positive (arrays that broadcast)."""
    total = np.asarray(positives) + predicted
    return 2 * np.asarray(tp) / np.where(total == 0, 1, total)


def macro_f1(truth, decisions):
    """Mean of `f1_per_class` over all C classes; absent classes count as 0."""
    return float(f1_per_class(truth, decisions).mean())


def mean_average_precision(truth, probabilities):
    """Macro average precision: (N, C) of 0/1, (N, C) -> the mean over the classes that occur, in [0, 1]; NaN if none does."""
    from sklearn.metrics import average_precision_score  # here, since training does without it

    present = np.asarray(truth).any(axis=0)
    return (
        float(average_precision_score(truth[:, present], probabilities[:, present])) if present.any() else float("nan")
    )


def f1_steps(truth, probabilities):
    """F1 of one class at its K different probabilities: (N,) 0/1, (N,) -> descending thresholds (K,), F1 (K,)."""
    order, last, steps, _ = levels(probabilities)
    tp = np.cumsum(truth[order], dtype=np.int64)[last]
    return steps, f1_from_counts(tp, int(truth.sum()), last + 1)


def best_thresholds(truth, probabilities):
    """Find each class's threshold of highest F1, exactly: (N, C), (N, C) -> thresholds (C,), F1 (C,).

    A threshold lies halfway down to the next lower probability; ties take the median. A class without positives gets
    NaN and F1 0.
    """
    truth = np.ascontiguousarray(np.asarray(truth, bool).T)
    probabilities = np.ascontiguousarray(np.asarray(probabilities, np.float64).T)
    thresholds, scores = np.full(len(truth), np.nan), np.zeros(len(truth))
    for row in np.flatnonzero(truth.any(axis=1)):
        thresholds[row], scores[row] = _best_threshold(truth[row], probabilities[row])
    return thresholds, scores


def _best_threshold(positive, values):
    """Try only the positives' values: lowering the threshold to a negative's value never raises F1."""
    ranked, own = np.sort(values), np.sort(values[positive])
    candidates = np.unique(own)
    below = np.searchsorted(ranked, candidates)
    f1 = f1_from_counts(len(own) - np.searchsorted(own, candidates), len(own), len(ranked) - below)
    best = np.flatnonzero(f1 == f1.max())
    best = best[len(best) // 2]  # upper median
    lower = ranked[below[best] - 1] if below[best] else 0.0
    return (candidates[best] + lower) / 2, f1[best]


def best_global_threshold(truth, probabilities):
    """Find the single threshold of highest macro F1, exactly: -> (threshold, macro F1).

    Each class's F1 is a step function of the threshold; one sorted pass sums these steps.
    """
    truth, probabilities = np.asarray(truth), np.asarray(probabilities, np.float64)
    curves = [f1_steps(positive, values) for positive, values in zip(truth.T, probabilities.T, strict=True)]
    steps = np.concatenate([thresholds for thresholds, _ in curves])
    rise = np.concatenate([np.diff(f1, prepend=0.0) for _, f1 in curves])
    order = np.argsort(-steps, kind="stable")
    steps, total = steps[order], np.cumsum(rise[order])
    last = last_of_equals(steps)
    place = np.argmax(total[last])
    lower = steps[last[place + 1]] if place + 1 < len(last) else 0.0
    threshold = float(steps[last[place]] + lower) / 2
    return threshold, macro_f1(truth, probabilities >= threshold)


def last_of_equals(ranked):
    """-> positions (K,) int of the last of each run of equal values in sorted `ranked` (N,)."""
    return np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))


def levels(values):
    """Sort the K different values of (N,), descending.

    -> order (N,): rows, highest value first; last (K,): position in `order` of the last row of each value; the values
    (K,); the next lower value of each (K,), 0 for the lowest.
    """
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    last = last_of_equals(ranked)
    return order, last, ranked[last], np.append(ranked[last[1:]], 0.0)


def class_scores(truth, decisions):
    """-> {accuracy, f1, precision, recall, iou: (C,) float64} of each class, 0 for 0/0. Accuracy is over images."""
    truth, decisions = np.asarray(truth, bool), np.asarray(decisions, bool)
    return {"accuracy": (truth == decisions).mean(axis=0), **_ratios(truth, decisions, 0)}


def precision_recall(truth, decisions):
    """-> (precision, recall) of each class, as in `class_scores`."""
    scores = class_scores(truth, decisions)
    return scores["precision"], scores["recall"]


READINGS = {
    "class": "computed for each class, then averaged over classes",
    "sample": "computed for each image, then averaged over images",
    "pooled": "computed once over all labels of all images",
}


def multilabel_scores(truth, decisions):
    """Compute Chen's Table II in each way of averaging: (N, C), (N, C) of 0/1 -> dict.

    `correct` of `total` labels (image x class), their ratio `binary_accuracy`; `f1`, `precision`, `recall`, `iou`:
    dicts over `READINGS`. The paper does not name its averages. IoU is at most F1 in the same average, so its IoU of
    .63 does not go with its macro F1 of .34; the author's public code averages over samples.
    """
    truth, decisions = np.asarray(truth, bool), np.asarray(decisions, bool)
    result = {"correct": int((truth == decisions).sum()), "total": truth.size}
    result["binary_accuracy"] = result["correct"] / result["total"]
    parts = {reading: _ratios(truth, decisions, axis) for reading, axis in zip(READINGS, (0, 1, None), strict=True)}
    for name in ("f1", "precision", "recall", "iou"):
        result[name] = {reading: float(np.mean(ratios[name])) for reading, ratios in parts.items()}
    return result


def _ratios(truth, decisions, axis):
    tp, predicted, positives = (part.sum(axis) for part in (truth & decisions, decisions, truth))
    f1 = f1_from_counts(tp, positives, predicted)
    over = {"precision": predicted, "recall": positives, "iou": predicted + positives - tp}
    return {"f1": f1} | {name: np.divide(tp, np.maximum(count, 1)) for name, count in over.items()}

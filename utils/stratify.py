"""Multilabel stratification (Sechidis et al. 2011) by iterative-stratification, for any label matrix."""

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold


def stratified_parts(labels, parts, seed):
    """Deal rows out so that every class is spread evenly: (N, C) 0/1 -> (N,) int, 0 to parts − 1. N >= parts >= 2.

    Rows without a class count as a class of their own; the library would otherwise refuse a table of one class.
    """
    labels = np.asarray(labels, bool)
    labels = np.column_stack([labels, ~labels.any(axis=1)])
    part = np.empty(len(labels), int)
    splitter = MultilabelStratifiedKFold(parts, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(splitter.split(labels, labels)):
        part[held] = number
    return part

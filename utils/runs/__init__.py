"""The files that stages hand to each other: a run's folder and config, predictions, out-of-fold predictions,
thresholds.json."""

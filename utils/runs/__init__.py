"""The files that stages hand to each other: a run's folder and config, predictions, out-of-fold predictions,
thresholds.json.

Imports the foundation, data and scoring, and no torch; nothing here trains, predicts or draws.
"""

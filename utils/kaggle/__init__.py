"""Kaggle: fetching the competition's files, and running the kit without internet.

Programs and the steps of the kernel notebook; no script imports them.
"""

COMPETITION = "human-protein-atlas-image-classification"
TABLES = ("train.csv", "sample_submission.csv")  # that it comes with

"""Kaggle: download the competition's files, upload the kit, and run it there without internet."""

COMPETITION = "human-protein-atlas-image-classification"
TABLES = ("train.csv", "sample_submission.csv")  # of the competition

"""Kaggle: fetching the competition's files, and running the kit where there is no internet."""

COMPETITION = "human-protein-atlas-image-classification"
TABLES = ("train.csv", "sample_submission.csv")  # that it comes with

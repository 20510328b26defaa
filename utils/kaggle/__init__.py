"""Kaggle: fetching the competition's files, and running the kit without internet.

Programs and the steps of the kernel notebook; no script imports them.
"""

COMPETITION = "human-protein-atlas-image-classification"
TABLES = ("train.csv", "sample_submission.csv")  # that it comes with
SIDE = 512  # pixels of its images; train_full_size.7z and test_full_size.7z have larger ones

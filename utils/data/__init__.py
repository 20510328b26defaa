"""From files to batches: tables, labels, images, near-duplicates, augmentation, the cache of decoded pixels, the
DataLoader.

Imports the foundation only; knows nothing of networks, runs or scores.
"""

"""Metrics, calibration, thresholds, ensembles, cross-fitting and stratification, without torch, images or run files."""

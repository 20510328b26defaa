"""How good predictions are and what to decide: metrics, calibration, thresholds, ensembles, cross-fitting, stratification.

NumPy, SciPy and scikit-learn only: no torch, no image, no file of a run.
"""

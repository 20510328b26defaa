"""Helpers of the notebooks: data overview, near-duplicates, labelling form, inspection of runs."""

"""Helpers of the notebooks: data overview, near-duplicates, a labelling form, inspection of runs. No script imports them."""

"""What the notebooks show: which data are available, examples, galleries, a labelling form.

No script imports it.
"""

"""What the notebooks compute and show: available data, galleries, a labelling form, a look into runs. No script imports it."""

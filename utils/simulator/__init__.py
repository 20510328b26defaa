"""The simulated atlas, `python -m utils.simulator`, and how it is drawn: cell types, scenes of cells, their maps in pixels, the four channels, the camera.

All lengths are micrometres on a field of 165 by 165, the size of a field under the Human Protein Atlas' 63x objective.
No script imports it; it knows nothing of networks.
"""

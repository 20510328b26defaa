"""How the simulated atlas is drawn: cell types, scenes of cells, their maps in pixels, the four channels, the camera.

All lengths are micrometres on a field of 165 by 165, the size of a field under the Human Protein Atlas' 63x objective.
"""

"""What trains and predicts: losses, recipes, the trainer, inference, starting weights, checkpoints, resume.

Imports the rooms before it and models; draws nothing and decides nothing about thresholds.
"""

"""What each ingredient of a training recipe brings: paired runs, and a verdict by a rule that is fixed beforehand."""

"""A benchmark of the kit: `subjects` lists what can be measured."""

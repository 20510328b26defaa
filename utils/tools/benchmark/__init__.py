"""Benchmark of the kit; `subjects` defines what is measured."""

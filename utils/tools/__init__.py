"""Programs of their own, python -m utils.tools.NAME: compare, evaluate, benchmark and others.

No script and no other room imports them.
"""

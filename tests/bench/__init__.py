"""Measurements, each beside the plain way of doing the same in the same run. ``python -m tests.bench``."""

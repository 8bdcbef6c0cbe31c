"""Drift reports: what the records tell of the whole fleet, composed, compared and written out. No input or output."""

"""Trueup: a Git store says what each WordPress site should be, a reconcile loop makes it so."""

__version__ = "0.1.0"

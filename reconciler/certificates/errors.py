"""What keeps a certificate from coming."""

from __future__ import annotations


class NotIssued(Exception):
    """In words for a person: what refused, and what to do."""

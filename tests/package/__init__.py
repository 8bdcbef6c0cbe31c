"""The wheel, as somebody who has no checkout gets it."""

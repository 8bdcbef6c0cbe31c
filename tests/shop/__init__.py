"""A shop of our own making takes orders while everything is done to its site that Trueup can do; ``make shop``."""

"""A small trained network and its images, for examples, tests and first steps."""

from ._digits import DigitsNetwork, load_digits_network

__all__ = ["DigitsNetwork", "load_digits_network"]

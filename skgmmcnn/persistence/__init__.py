"""Fitted estimators in files that hold numbers and text, and no code."""

from ._files import load, save

__all__ = ["load", "save"]

"""Saving of fitted estimators in files without code."""

from ._files import load, save

__all__ = ["load", "save"]

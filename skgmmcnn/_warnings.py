"""Warnings that point at the line of the user."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path

import joblib
import sklearn
import torch

# This package, libraries that call it (pipelines, wrappers, hooks), and decorators.
_FILES = (__file__, *(str(module.__file__) for module in (sklearn, joblib, torch)))
_INTERNAL = (*(f"{Path(file).parent}{os.sep}" for file in _FILES), contextlib.__file__)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the first line on the stack that is outside of the package."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INTERNAL):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)

"""Optional dependencies."""

from __future__ import annotations

import importlib
from typing import Any


def need(package: str, purpose: str) -> Any:
    """Import an optional package; the error explains how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {package}: pip install 'skgmmcnn[export]'.") from error

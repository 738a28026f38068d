"""Versions and hardware for bug reports."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

DEPENDENCIES = """joblib matplotlib networkx numpy pillow safetensors scikit-learn scipy threadpoolctl
    torch torchvision tqdm pandas""".split()


def show_versions() -> None:
    """Print the versions of Python, this package and its dependencies, and the hardware that torch uses.

    Include the output in bug reports.  Optional dependencies are listed even if they are not installed.

    Examples
    --------
    >>> from skgmmcnn import show_versions
    >>> show_versions()
    System:
             python: 3...
    Packages:
           skgmmcnn: ...
    Torch:
            threads: ...
    """
    for title, values in _versions().items():
        print(f"{title}:")
        for name, value in values.items():
            print(f"{name:>15}: {value}")


def _versions() -> dict[str, dict[str, object]]:
    from . import __version__

    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {
        "System": {
            "python": sys.version.replace("\n", " "),
            "executable": sys.executable,
            "machine": platform.platform(),
            "processor": platform.processor() or platform.machine(),
        },
        "Packages": {"skgmmcnn": __version__, **{name: _version(name) for name in DEPENDENCIES}},
        "Torch": {
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "CUDA": torch.version.cuda or "not in this build",
            "GPUs": ", ".join(gpus) or "none found",
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

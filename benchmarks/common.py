"""Published networks and images, and measurements in separate processes."""

import importlib.util
import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path


def load_data():
    """Return the module that reads networks and images of the folder SKGMMCNN_DATA."""
    folder = os.environ.get("SKGMMCNN_DATA")
    if not folder:
        sys.exit("Set SKGMMCNN_DATA to the folder of real networks and images.")
    spec = importlib.util.spec_from_file_location("skgmmcnn_data", Path(folder) / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alone(function, *args):
    """Run a function in a new process; return its result and the peak memory in GB."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, function, *args).result()


def _measured(function, *args):
    result = function(*args)
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def timed(function, *args):
    """Return the seconds and the result."""
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result

"""How far the graphs of a network can be trusted, as a table, from the command line."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..features import FeatureExtractor
from ._table import trust_table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table that the arguments ask for.

    Parameters
    ----------
    arguments : sequence of str, default=None
        Those of the command line where None.
    """
    asked = _parser().parse_args(arguments)
    images, test_images = (_images(where) for where in (asked.images, asked.test_images))
    extractor = FeatureExtractor(
        _named(asked.network) if ":" in asked.network else asked.network,
        asked.layers,
        weights=asked.weights,
        preprocess=_preprocessing(asked.preprocess),
        n_jobs=asked.n_jobs,
    ).fit(images)
    maps, test_maps = extractor.transform(images), extractor.transform(test_images)
    if asked.keep:
        maps, test_maps = maps.compute(), test_maps.compute()
    table = trust_table(
        maps,
        test_maps,
        n_components=asked.words,
        objectives=asked.objectives,
        evidence=asked.evidence,
        budget=asked.budget,
        n_images=asked.n_images,
        random_state=asked.random_state,
    )
    text = table.to_rst()
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m skgmmcnn.metrics", description=__doc__)
    add = parser.add_argument
    add("network", help="a torchvision name, or module:function of a function that returns a network")
    add("images", help="to fit words and graph on: a folder, an .npy file, or module:function")
    add("test_images", help="to measure on, likewise; best are images that were not fitted")
    add("--layers", nargs="+", help="names of the layers to model; without, the package chooses")
    add("--weights", help="torchvision weights, as DEFAULT, or the file of a state dict")
    add("--preprocess", default="auto", help='"auto", "none", or module:function of a function of one image')
    add("--words", nargs="+", type=int, default=[50, 100, 200, 500], help="numbers of words of each layer")
    add("--objectives", nargs="+", default=["generative", "discriminative"], help="what words are trained for")
    add("--evidence", choices=["auto", "influence", "counts"], default="auto", help="what the graphs show")
    add("--n-images", type=int, help="measure on so many of the test images, at random; 50 without")
    add("--budget", choices=["default", "full"], default="default")
    add("--keep", action="store_true", help="hold all activations in memory, so that the network runs once over them")
    add("--n-jobs", type=int, help="processes that read images")
    add("--random-state", type=int, default=0)
    add("--output", type=Path, help="file for the table")
    return parser


def _named(name: str) -> Any:
    """Return what ``module:attribute`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _preprocessing(how: str) -> Any:
    return _named(how) if ":" in how else None if how == "none" else how


def _images(where: str) -> Any:
    if where.endswith(".npy"):
        return np.load(where)
    return _named(where)() if ":" in where else where


if __name__ == "__main__":
    main()

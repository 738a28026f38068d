"""Trust reports of several dictionaries side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline

from .._optional import need
from ..dictionary import LayerDictionary
from ..features import FeatureMaps
from ..graph import InferenceGraph
from ._report import TrustReport, trust_report


@dataclass(frozen=True, eq=False)
class TrustTable:
    """Reports of dictionaries of several sizes and objectives, on the same images.

    Made by :func:`trust_table`.

    Parameters
    ----------
    reports : dict of (objective, n_components) to TrustReport
        In the order in which they were made.
    """

    reports: Mapping[tuple[str, int], TrustReport]

    def to_frame(self) -> Any:
        """Return all figures as one table.

        Returns
        -------
        table : pandas.DataFrame
            One row per figure of each report.

        Raises
        ------
        ImportError
            Where pandas is not installed.
        """
        frames = [
            report.to_frame().assign(objective=objective, n_components=n)
            for (objective, n), report in self.reports.items()
        ]
        return need("pandas", "to_frame").concat(frames, ignore_index=True)

    def to_rst(self) -> str:
        """Return the figures as a table in reStructuredText, one row per figure and one column per dictionary.

        Returns
        -------
        text : str
            A ``list-table``.
        """
        found = [
            {(figure.measure, figure.where): figure for figure in report.figures()} for report in self.reports.values()
        ]
        rows = [["measure", "where", "good", *(f"{n}, {objective}" for objective, n in self.reports)]]
        every = {place: figure.good for figures in found for place, figure in figures.items()}
        for place, good in every.items():
            values = [_number(figures[place].value) if place in figures else "" for figures in found]
            rows.append([*place, good, *values])
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in rows:
            lines += [f"   {'*' if not place else ' '} - {cell}".rstrip() for place, cell in enumerate(row)]
        return "\n".join(lines) + "\n"


def trust_table(
    maps: FeatureMaps,
    test_maps: FeatureMaps,
    *,
    n_components: Sequence[int] = (50, 100, 200, 500),
    objectives: Sequence[str] = ("generative", "discriminative"),
    evidence: str = "auto",
    budget: str = "default",
    n_images: int | None = None,
    verbose: int = 1,
    random_state: int | None = None,
) -> TrustTable:
    """Fit dictionaries of several sizes and objectives, and report how far the graphs of each can be trusted.

    On the command line, for networks and images of your own: ``python -m skgmmcnn.metrics --help``.

    Parameters
    ----------
    maps : FeatureMaps
        Of the images to fit words and graph on.
    test_maps : FeatureMaps
        Of the images to measure on.
    n_components : sequence of int, default=(50, 100, 200, 500)
        Numbers of words of each layer.
    objectives : sequence of str, default=("generative", "discriminative")
        What the words are trained for; see :class:`~skgmmcnn.LayerDictionary`.
    evidence : {"auto", "influence", "counts"}, default="auto"
        What the graphs show; see :class:`~skgmmcnn.InferenceGraph`.
    budget : {"default", "full"}, default="default"
        As in :func:`trust_report`.
    n_images : int, default=None
        As in :func:`trust_report`.
    verbose : int, default=1
        Whether to show progress.
    random_state : int or None, default=None
        Seeds words and reports, the same for all.

    Returns
    -------
    table : TrustTable
        The reports.

    Examples
    --------
    >>> from skgmmcnn import FeatureExtractor
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import trust_table
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv3"]).fit(digits.images)
    >>> maps, test_maps = extractor.transform(digits.images), extractor.transform(digits.test_images)
    >>> table = trust_table(maps, test_maps, n_components=[10, 40], objectives=["generative"], verbose=0)
    >>> few, many = table.reports.values()
    >>> few.results["fidelity"].agreement < many.results["fidelity"].agreement
    True
    """
    seed = int(np.random.default_rng(random_state).integers(2**31)) if random_state is None else random_state
    reports = {}
    for objective, n in product(objectives, n_components):
        words = LayerDictionary(n, objective=objective, keep_patches=False, random_state=seed)
        pipe = make_pipeline(words, InferenceGraph(evidence=evidence)).fit(maps)
        reports[objective, n] = trust_report(
            pipe, test_maps, budget=budget, n_images=n_images, verbose=verbose, random_state=seed
        )
    return TrustTable(reports)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.2f}"

"""InferenceGraphPage: inference graphs to look around in, in a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import networkx as nx
import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..dictionary import WordMaps
from ..graph import InferenceGraph, evidence_of
from ._page_data import describe
from ._reading import find_images, run

_N_IMAGES = 8
_MOST_IMAGES = 100


class InferenceGraphPage:
    """Inference graphs as a page for the browser: one file that needs no network.

    Words can be pointed at, tapped, or reached by the keyboard.  The page then shows their typical patches, how often
    they occur in which classes, what they explain and what explains them, and where they are in the image.  A chosen
    word shows only what explains it.  The page switches between images, between the graph of an image and that of its
    class, and between a decision and its contrast with another class.

    Parameters
    ----------
    words : WordMaps
        Words of the images that are shown, and of those that the graphs of classes are about.
    graphs : dict of int to sequence of networkx.DiGraph
        For each image to show, by its number in `words`, its graphs, as made by :class:`~skgmmcnn.InferenceGraph`: of
        this image or of its class.  At most 100 images.
    y : array-like of shape (n,), default=None
        True labels of the images of `words`, as output numbers or class names; shown beside the decisions.
    max_nodes, max_edges : int, default=80, 240
        Most nodes and edges of a graph; of larger ones the page shows the strongest, and says so.

    See Also
    --------
    InferenceGraphDisplay : One graph as a picture for print.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, InferenceGraphPage, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> pipe = make_pipeline(
    ...     FeatureExtractor(digits.network, layers=["conv2", "conv3"]),
    ...     LayerDictionary(30, random_state=0),
    ...     InferenceGraph(),
    ... ).fit(digits.images)
    >>> page = InferenceGraphPage.from_estimator(pipe, digits.test_images, digits.test_labels, images=[3, 7])
    >>> n_bytes = page.save("why.html")  # doctest: +SKIP
    """

    def __init__(
        self,
        words: WordMaps,
        graphs: Mapping[int, Sequence[nx.DiGraph]],
        *,
        y: Sequence[Any] | np.ndarray | None = None,
        max_nodes: int = 80,
        max_edges: int = 240,
    ) -> None:
        self.words = words
        self.graphs = graphs
        self.y = y
        self.max_nodes = max_nodes
        self.max_edges = max_edges

    @classmethod
    def from_estimator(
        cls,
        estimator: InferenceGraph | Pipeline,
        X: Any,
        y: Sequence[Any] | np.ndarray | None = None,
        *,
        images: int | str | Sequence[int | str] | None = None,
        contrast: int | str | bool | Sequence[int | str] = True,
        max_nodes: int = 80,
        max_edges: int = 240,
    ) -> InferenceGraphPage:
        """Explain some images and their classes.

        Parameters
        ----------
        estimator : InferenceGraph or Pipeline
            Fitted; a pipeline ends with an :class:`~skgmmcnn.InferenceGraph`.
        X : WordMaps, or what the pipeline takes
            Words for an InferenceGraph, images for a pipeline.  The graph of a class is about all images of X that the
            network gives this class; there is none of a class with a single image.
        y : array-like of shape (n,), default=None
            True labels of the images of X, as output numbers or class names.
        images : int, str or sequence of these, default=None
            The images of X to explain, by number or file name; None takes the first eight.
        contrast : int, str, bool or sequence of int or str, default=True
            A class, by number or name, with which the decisions are contrasted, or several, among which the page
            lets choose.  True takes the true class of a wrong decision, where y is given; else the runner-up: the
            network's, or under ``evidence="counts"`` that of its words.  False leaves contrasts out.
        max_nodes, max_edges : int, default=80, 240
            Most nodes and edges of a graph; of larger ones the page shows the strongest, and says so.

        Returns
        -------
        page : InferenceGraphPage
            The page, to be saved.
        """
        before, estimator, X = open_pipeline(estimator, X, InferenceGraph)
        chosen = find_images(range(min(_N_IMAGES, len(X))) if images is None else images, X)
        rows = list(dict.fromkeys(chosen.tolist()))
        words = run(before, X)
        labels = words.decisions if y is None else words.spec.encode(y, len(words))
        graphs = {row: [graph] for row, graph in zip(rows, estimator.explain(words[rows]), strict=True)}
        for others in _contrasts(estimator, words, graphs, labels, contrast):
            asked = list(others)
            for row, graph in zip(asked, estimator.explain(words[asked], contrast=list(others.values())), strict=True):
                graphs[row].append(graph)
        of_class = cache(partial(_of_class, estimator, words))
        for row, its in graphs.items():
            together = [of_class(int(words.decisions[row]), graph.graph.get("contrast")) for graph in its]
            its.extend(filter(None, together))
        return cls(words, graphs, y=y, max_nodes=max_nodes, max_edges=max_edges)

    def to_html(self) -> str:
        """Return the page as text.

        Returns
        -------
        page : str
            HTML in ASCII characters alone.  It forbids itself to load anything.
        """
        self._check()
        data = describe(self.words, self.graphs, self.y, max_nodes=self.max_nodes, max_edges=self.max_edges)
        style, script = _read("page.css"), _read("page.js")
        return Template(_read("page.html")).substitute(
            style=style,
            style_hash=_hash(style),
            script=script,
            script_hash=_hash(script),
            data=data.replace("<", "\\u003c"),
        )

    def save(self, path: str | os.PathLike) -> int:
        """Write the page to a file.

        Parameters
        ----------
        path : str or path-like
            The file, as ``"why.html"``; one of this name is replaced.

        Returns
        -------
        n_bytes : int
            Size of the file.
        """
        return Path(path).write_bytes(self.to_html().encode("ascii"))

    def _check(self) -> None:
        if not self.graphs or not all(self.graphs.values()):
            raise ValueError("A page shows at least one image, and of each image at least one graph.")
        if len(self.graphs) > _MOST_IMAGES:
            raise ValueError(
                f"A page shows at most {_MOST_IMAGES} images, not {len(self.graphs)}; choose with images=."
            )
        if self.max_nodes < 2 or self.max_edges < 1:
            raise ValueError(
                f"A graph needs two nodes and an edge; got max_nodes={self.max_nodes}, max_edges={self.max_edges}."
            )
        find_images(self.graphs, self.words)

    def _repr_html_(self) -> str:
        """Return the page in a frame, for notebooks."""
        return (
            '<iframe sandbox="allow-scripts allow-downloads" style="width: 100%; height: 45rem; border: 0" '
            f'srcdoc="{html.escape(self.to_html())}"></iframe>'
        )


def _of_class(estimator: InferenceGraph, words: WordMaps, target: int, contrast: int | None) -> nx.DiGraph | None:
    """Return the graph of all images of a class together; none of a single image."""
    rows = np.flatnonzero(words.decisions == target)
    return estimator.explain_together(words[rows], target, contrast=contrast) if len(rows) > 1 else None


def _contrasts(
    estimator: InferenceGraph,
    words: WordMaps,
    graphs: Mapping[int, Sequence[nx.DiGraph]],
    labels: np.ndarray,
    contrast: int | str | bool | Sequence[int | str],
) -> list[dict[int, int]]:
    """Return the classes with which the decisions for some images are contrasted: by image, one dict a contrast."""
    if contrast is False:
        return []
    counted = any(evidence_of(graph) == "counts" for graph, *_ in graphs.values())
    if contrast is True:
        others = _most_like(estimator, words, list(graphs)) if counted else _runners_up(graphs)
        rounds = [{row: int(other if labels[row] == words.decisions[row] else labels[row]) for row, other in others}]
    else:
        classes = [contrast] if isinstance(contrast, (str, int, np.integer)) else contrast
        rounds = [dict.fromkeys(graphs, words.spec.class_index(each)) for each in classes]
    known = estimator.class_counts_ > 0 if counted else np.ones(words.spec.n_outputs, dtype=bool)
    decided = words.decisions
    kept = (
        {row: other for row, other in others.items() if other != decided[row] and known[decided[row]] and known[other]}
        for others in rounds
    )
    return [others for others in kept if others]


def _runners_up(graphs: Mapping[int, Sequence[nx.DiGraph]]) -> Iterator[tuple[int, int]]:
    for row, (graph, *_) in graphs.items():
        yield row, graph.graph["runner_up"]


def _most_like(estimator: InferenceGraph, words: WordMaps, rows: list[int]) -> Iterator[tuple[int, int]]:
    """Yield images with the class that their words speak for beside the decision, or that where there is none."""
    evidence = estimator.decision_function(words[rows])
    evidence[np.arange(len(rows)), words.decisions[rows]] = -np.inf
    for row, each in zip(rows, evidence, strict=True):
        yield row, each.argmax() if np.isfinite(each.max()) else words.decisions[row]


def _read(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="ascii")


def _hash(text: str) -> str:
    """Return what a Content-Security-Policy calls a script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

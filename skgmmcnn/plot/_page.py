"""Inference graphs as an interactive page for the browser."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
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
from ..graph import InferenceGraph, kind_of
from ._page_data import describe
from ._reading import find_images, run

_N_IMAGES = 8
_MOST_IMAGES = 100


@dataclass(eq=False, repr=False)
class InferenceGraphPage:
    """Inference graphs as a page for the browser: one file that needs no network.

    Words can be pointed at, tapped, or reached by the keyboard.  The page then shows their typical patches, their
    classes, the nodes that they explain and that explain them, and their locations in the image.  Choosing a word hides
    all nodes that do not explain it.  The page switches between images, between the graphs of an image and of its
    class, and between a decision and its contrast with another class.  Of a graph with more than 80 nodes or
    240 edges the page shows the strongest.

    Parameters
    ----------
    words : WordMaps
        Words of the images that are shown, and of the images of their classes.
    graphs : dict of int to sequence of networkx.DiGraph
        Graphs of each image to show and of its class, from :class:`~skgmmcnn.InferenceGraph`, by the number of the
        image in `words`; at most 100 images.
    y : array-like of shape (n,), default=None
        True labels of the images of `words`, as output numbers or class names; shown beside the decisions.

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
    ...     FeatureExtractor(digits.network, ["conv2", "conv3"]), LayerDictionary(30, random_state=0), InferenceGraph()
    ... ).fit(digits.images)
    >>> page = InferenceGraphPage.from_estimator(pipe, digits.test_images, digits.test_labels, images=[3, 7])
    >>> n_bytes = page.save("why.html")  # doctest: +SKIP
    """

    words: WordMaps
    graphs: Mapping[int, Sequence[nx.DiGraph]]
    _: KW_ONLY
    y: Sequence[Any] | np.ndarray | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: InferenceGraph | Pipeline,
        X: Any,
        y: Sequence[Any] | np.ndarray | None = None,
        *,
        images: int | str | Sequence[int | str] | None = None,
        contrast: int | str | bool | Sequence[int | str] = True,
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
        if contrasts := _contrasts(estimator, words, graphs, labels, contrast):
            contrasted, others = map(list, zip(*contrasts, strict=True))
            for row, graph in zip(contrasted, estimator.explain(words[contrasted], contrast=others), strict=True):
                graphs[row].append(graph)
        of_class = cache(partial(_of_class, estimator, words))
        for row, of_row in graphs.items():
            together = [of_class(int(words.decisions[row]), graph.graph.get("contrast")) for graph in of_row]
            of_row.extend(filter(None, together))
        return cls(words, graphs, y=y)

    def to_html(self) -> str:
        """Return the page as text.

        Returns
        -------
        page : str
            HTML in ASCII characters.  Its Content-Security-Policy forbids loading anything.
        """
        if not self.graphs or not all(self.graphs.values()):
            raise ValueError("A page shows at least one image, and of each image at least one graph.")
        if len(self.graphs) > _MOST_IMAGES:
            n_images = len(self.graphs)
            raise ValueError(f"A page shows at most {_MOST_IMAGES} images, not {n_images}; choose with images=.")
        find_images(self.graphs, self.words)
        data = describe(self.words, self.graphs, self.y)
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

    def _repr_html_(self) -> str:
        """Return the page in a frame, for notebooks."""
        return (
            '<iframe sandbox="allow-scripts allow-downloads" style="width: 100%; height: 45rem; border: 0" '
            f'srcdoc="{html.escape(self.to_html())}"></iframe>'
        )


def _of_class(estimator: InferenceGraph, words: WordMaps, target: int, contrast: int | None) -> nx.DiGraph | None:
    """Return the graph of all images of a class; None of a single image."""
    rows = np.flatnonzero(words.decisions == target)
    return estimator.explain_together(words[rows], target, contrast=contrast) if len(rows) > 1 else None


def _contrasts(
    estimator: InferenceGraph,
    words: WordMaps,
    graphs: Mapping[int, Sequence[nx.DiGraph]],
    labels: np.ndarray,
    contrast: int | str | bool | Sequence[int | str],
) -> list[tuple[int, int]]:
    """Return pairs of an image and a class with which the decision for it is contrasted."""
    if contrast is False:
        return []
    rows, decided = list(graphs), words.decisions
    counted = not all(kind_of(graph).uses_network for graph, *_ in graphs.values())
    if contrast is True:
        runners_up: Any = [graph.graph.get("runner_up") for graph, *_ in graphs.values()]
        if counted:
            runners_up = _most_like(estimator, words, rows)
        others = np.where(labels[rows] == decided[rows], runners_up, labels[rows])
        pairs = list(zip(rows, others.tolist(), strict=True))
    else:
        classes = [contrast] if isinstance(contrast, (str, int, np.integer)) else contrast
        pairs = [(row, other) for other in map(words.spec.class_index, classes) for row in rows]
    known = estimator.class_counts_ > 0 if counted else np.ones(words.spec.n_outputs, dtype=bool)
    return [(row, other) for row, other in pairs if other != decided[row] and known[decided[row]] and known[other]]


def _most_like(estimator: InferenceGraph, words: WordMaps, rows: list[int]) -> np.ndarray:
    """Return for each image the class of most evidence beside the decision, or the decision where there is none."""
    evidence = estimator.decision_function(words[rows])
    evidence[np.arange(len(rows)), words.decisions[rows]] = -np.inf
    return np.where(np.isfinite(evidence.max(1)), evidence.argmax(1), words.decisions[rows])


def _read(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="ascii")


def _hash(text: str) -> str:
    """Return the hash of a script or style for a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""InferenceGraphPage: inference graphs to look around in, in a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from numbers import Integral
from pathlib import Path
from string import Template
from typing import Any

import networkx as nx
import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..dictionary import WordMaps
from ..graph import InferenceGraph, evidence_of, to_text
from ._inference_graph import InferenceGraphDisplay
from ._page_data import describe
from ._reading import check_image, run

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
    >>> page = InferenceGraphPage.from_estimator(pipe, digits.test_images, images=[3, 7])
    >>> n_bytes = page.save("why.html")  # doctest: +SKIP
    """

    def __init__(
        self,
        words: WordMaps,
        graphs: Mapping[int, Sequence[nx.DiGraph]],
        *,
        max_nodes: int = 80,
        max_edges: int = 240,
    ) -> None:
        self.words = words
        self.graphs = graphs
        self.max_nodes = max_nodes
        self.max_edges = max_edges

    @classmethod
    def from_estimator(
        cls,
        estimator: InferenceGraph | Pipeline,
        X: Any,
        *,
        images: Sequence[int] | None = None,
        contrast: int | str | bool = True,
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
        images : sequence of int, default=None
            Which images of X to explain; None takes the first eight.
        contrast : int, str or bool, default=True
            A class, by number or name, with which the decisions are contrasted.  True takes for each image the
            runner-up: the network's, or under ``evidence="counts"`` that of its words; False leaves contrasts out.
        max_nodes, max_edges : int, default=80, 240
            Most nodes and edges of a graph; of larger ones the page shows the strongest, and says so.

        Returns
        -------
        page : InferenceGraphPage
            The page, to be saved.
        """
        before, estimator, X = open_pipeline(estimator, X, InferenceGraph)
        if isinstance(images, (str, Integral)):
            raise TypeError(f"images must list numbers of images in X, as [3, 7]; got {images!r}.")
        rows = [check_image(image, len(X)) for image in (range(min(_N_IMAGES, len(X))) if images is None else images)]
        words = run(before, X)
        own = estimator.explain(words[rows])
        others = _contrasts(estimator, words[rows], own, contrast)
        of_class = cache(partial(_of_class, estimator, words))
        graphs = {}
        for row, graph, other in zip(rows, own, others, strict=True):
            contrasted = [] if other is None else estimator.explain(words[row : row + 1], contrast=other)
            of_classes = [of_class(int(words.decisions[row]), against) for against in dict.fromkeys((None, other))]
            graphs[row] = [graph, *contrasted, *filter(None, of_classes)]
        return cls(words, graphs, max_nodes=max_nodes, max_edges=max_edges)

    def to_html(self) -> str:
        """Return the page as text.

        Returns
        -------
        page : str
            HTML in ASCII characters alone.  It forbids itself to load anything.
        """
        self._check()
        data = describe(self.words, self.graphs, max_nodes=self.max_nodes, max_edges=self.max_edges)
        style, script = _read("page.css"), _read("page.js")
        return Template(_read("page.html")).substitute(
            style=style,
            style_hash=_hash(style),
            script=script,
            script_hash=_hash(script),
            data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
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
        for row in self.graphs:
            check_image(row, len(self.words))

    def _repr_html_(self) -> str:
        """Return a picture of the first graph, for notebooks."""
        import matplotlib.pyplot as plt

        self._check()
        row, (graph, *_) = next(iter(self.graphs.items()))
        display = InferenceGraphDisplay(graph, self.words[row : row + 1]).plot()
        file = io.BytesIO()
        display.figure_.savefig(file, format="png", dpi=100)
        plt.close(display.figure_)
        data = base64.b64encode(file.getvalue()).decode()
        return (
            f'<img style="max-width: 100%" alt="{html.escape(to_text(graph))}" src="data:image/png;base64,{data}">'
            f"<p>The first of {len(self.graphs)} images; <code>save</code> writes all, to be opened in a browser.</p>"
        )


def _of_class(estimator: InferenceGraph, words: WordMaps, target: int, contrast: int | None) -> nx.DiGraph | None:
    """Return the graph of all images of a class together; none of a single image."""
    rows = np.flatnonzero(words.decisions == target)
    return estimator.explain_together(words[rows], target, contrast=contrast) if len(rows) > 1 else None


def _contrasts(
    estimator: InferenceGraph, words: WordMaps, graphs: Sequence[nx.DiGraph], contrast: int | str | bool
) -> list[int | None]:
    """Return for each image, with its graph, the class with which its decision is contrasted, or None."""
    counted = [evidence_of(graph) == "counts" for graph in graphs]
    if contrast is False:
        others = words.decisions
    elif contrast is not True:
        others = np.full(len(words), words.spec.class_index(contrast))
    elif any(counted):
        others = _most_like(estimator, words)
    else:
        others = np.array([graph.graph["runner_up"] for graph in graphs])
    fitted = estimator.class_counts_ > 0
    known = (others != words.decisions) & (fitted[words.decisions] & fitted[others] | ~np.array(counted))
    return [int(other) if kept else None for other, kept in zip(others, known, strict=True)]


def _most_like(estimator: InferenceGraph, words: WordMaps) -> np.ndarray:
    """Return for each image the class that its words speak for beside the decision, or that where there is none."""
    evidence = estimator.decision_function(words)
    evidence[np.arange(len(words)), words.decisions] = -np.inf
    return np.where(np.isfinite(evidence.max(1)), evidence.argmax(1), words.decisions)


def _read(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="ascii")


def _hash(text: str) -> str:
    """Return what a Content-Security-Policy calls a script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

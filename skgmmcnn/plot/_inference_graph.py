"""Pictures of inference graphs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import networkx as nx
import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..dictionary import WordMaps
from ..graph import DECISION, InferenceGraph, Target, evidence_of, percent, strength_of, targets_of, text_of
from ._cells import HELD, cells_of, draw_borders, grown, lit, place_tags, strongest
from ._drawing import (
    AGAINST,
    INK,
    Drawing,
    Limits,
    Theme,
    draw_arrow,
    draw_image,
    draw_patches,
    draw_rectangle,
    draw_share,
    has_rings,
    in_lines,
    shortened,
    write,
)
from ._edge_maps import edge_maps as maps_of_edges
from ._groups import Group, alike, measured, merged
from ._layout import Box, Line, attach, edge_strengths, place_cells, place_labels, rows_of
from ._pruning import prune
from ._reading import find_images, pictures, run
from ._wording import Bar, Wording, counted

_SQUARE, _BETWEEN = 1.35, 0.06  # of a word: its typical patches, and beside them where it is
_CARD = 2 * _SQUARE + _BETWEEN
_NAME, _LINE, _BAR = 0.24, 0.165, 0.1  # heights of what stands below them
_GAP, _RISE = 0.35, 0.62
_MARGIN = 1.45  # room for the names of layers
_PHOTOGRAPH, _BESIDE = 2.0, 3.6  # of the decision: an image, and the text beside it
_SMALL = 1.45  # an image of several
_LEADING = 0.0185  # inches from line to line, for each point of the letters' size
_MAP = 0.42  # side of an edge's map
_LABEL = 0.2
_MOST_NODES, _MOST_EDGES, _MOST_IMAGES = 40, 120, 4


class InferenceGraphDisplay(Drawing):
    """An inference graph as a picture: the decision on top, below it one row of words per layer.

    On top stands the image that is explained, and beside it the same image with only those locations lit that hold 80 %
    of the influence of the uppermost words together.  A word is shown by the patches of the fitted images that are most
    typical of it, and beside them by its locations in the image.  Below stand its name, its share of the log-odds as a
    bar, the probability without it, and the two commonest classes of the fitted images that show it.  The sum of all
    other words of a layer stands at the left.  Edges lead from the words of a layer up to those that they explain: the
    stronger, the wider and darker.  Words against the class are orange.

    Of a class, or of several images, up to four are shown, each with where its words are; a word is shown in
    the one with most of its locations.  In a graph of counts, words and edges have their evidence in bits.

    Words of a layer that are nearly the same, and touch in the image, are drawn as one, with their number.  Of graphs
    with more than 40 nodes the strongest are drawn.  Warnings are written beside the decision: if its
    words alone do not keep it, if fewer than ten images of the class were fitted, if more than a third of the influence
    does not add up, and if counted words speak for another class.

    Parameters
    ----------
    graph : networkx.DiGraph
        As made by :class:`~skgmmcnn.InferenceGraph`.
    words : WordMaps
        Words of the image that is explained, or of those of a class.
    labels : int array of shape (n,), default=None
        The true class of each of these images.
    influence : dict of str to float array of shape (m, H, W), default=None
        Influence of the locations of each layer in the images that are drawn, from which the lit locations are chosen;
        without it all locations of a word are lit.
    residuals : dict of str to float, default=None
        The share of influence that does not add up, by layer.
    groups : dict of tuple of str to dict, default=None
        Groups of nodes that are drawn as one, each with the effect of its ablation.
    edge_maps : dict of (tail, head) to float array, default=None
        The share of the fields of the upper word that show the lower one, at each place of a whole field, of shape
        (height, width); for the decision, of the images.  Drawn on the edges where there is room.
    predicted : str, default=None
        The class that the words of the image speak for, by :meth:`InferenceGraph.predict`, for a warning where it is
        another one than the target.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn into.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, InferenceGraphDisplay, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> pipe = make_pipeline(
    ...     FeatureExtractor(digits.network, layers=["conv2", "conv3"]),
    ...     LayerDictionary(30, random_state=0),
    ...     InferenceGraph(),
    ... ).fit(digits.images)
    >>> display = InferenceGraphDisplay.from_estimator(pipe, digits.test_images, digits.test_labels, image=3)
    >>> display.save("graph.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        graph: nx.DiGraph,
        words: WordMaps,
        *,
        labels: np.ndarray | None = None,
        influence: Mapping[str, np.ndarray] | None = None,
        residuals: Mapping[str, float] | None = None,
        groups: Mapping[Group, Mapping[str, Any]] | None = None,
        edge_maps: Mapping[tuple[str, str], np.ndarray] | None = None,
        predicted: str | None = None,
    ) -> None:
        self.graph = graph
        self.words = words
        self.labels = labels
        self.influence = influence
        self.residuals = residuals
        self.groups = groups
        self.edge_maps = edge_maps
        self.predicted = predicted

    @classmethod
    def from_estimator(
        cls,
        estimator: InferenceGraph | Pipeline,
        X: Any,
        y: Any = None,
        *,
        image: int | str | Sequence[int | str] | None = None,
        target: Target = None,
        contrast: int | str | None = None,
        edge_maps: bool = False,
        ax: Any = None,
    ) -> InferenceGraphDisplay:
        """Explain one image, or several together, and draw the graph.

        Parameters
        ----------
        estimator : InferenceGraph or Pipeline
            Fitted; a pipeline ends with an :class:`~skgmmcnn.InferenceGraph`.
        X : WordMaps, or what the pipeline takes
            Words for an InferenceGraph, images for a pipeline.
        y : array-like of shape (n,), default=None
            The true classes of X, by number or name, to be written beside the decision.
        image : int, str or sequence of these, default=None
            The image of X to explain, by number or file name.  Several are explained together, for one `target`.  None
            takes the first; given a target, all images: those that the network decides to be of the class, or those
            that show the word.
        target : int, str or tuple, default=None
            The target of the graph, as in :meth:`InferenceGraph.explain`: a class, a word or a location; None for the
            decision.
        contrast : int or str, default=None
            A class, by number or name, with which the decision is contrasted.
        edge_maps : bool, default=False
            Whether to draw on the edges where in the upper word's receptive field the lower word is.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : InferenceGraphDisplay
            The drawn display.
        """
        before, estimator, X = open_pipeline(estimator, X, InferenceGraph)
        rows = _chosen(image, target, X)
        words = run(before, X[rows])
        labels = None if y is None else words.spec.encode(y, len(X))[rows]
        if len(rows) == 1:
            (graph,) = estimator.explain(words, target, contrast=contrast)
        elif image is None and targets_of(words, target).layer == DECISION:
            graph = estimator.explain_class(words, target, contrast=contrast)
            decided = np.flatnonzero(words.decisions == graph.graph["target"])
            words, labels = words[decided], None if labels is None else labels[decided]
        else:
            graph = estimator.explain_together(words, target, contrast=contrast)
        display = cls(graph, words, labels=labels)
        display._measure(estimator)
        if edge_maps:
            display.edge_maps = maps_of_edges(estimator, words, graph)
        return display.plot(ax=ax)

    def _measure(self, estimator: InferenceGraph) -> None:
        """Measure influence maps, groups of similar words, and the prediction of the words."""
        of, words = self.graph.graph, self.words[:_MOST_IMAGES]
        known = evidence_of(self.graph) != "counts" and "target" in of and of["n_images"] == 1
        groups = alike(self.graph, words)
        self.groups = {group: measured(self.graph, words, group) if known else {} for group in groups}
        if evidence_of(self.graph) == "counts":
            if of["n_images"] == 1 and of.get("target") == words.decisions[0]:
                self.predicted = words.spec.class_name(int(estimator.predict(words)[0]))
        elif "target" in of and words.influence is not None:
            contrast = None if "contrast" not in of else [of["contrast"]] * len(words)
            influence = words.influence.of_classes([of["target"]] * len(words), contrast, n_steps=estimator.n_steps)
            self.influence = influence.maps
            self.residuals = {layer: float(each.max()) for layer, each in influence.residuals.items()}

    _key_size = 9.0

    def _lay_out(self) -> Limits:
        self._drawn = prune(merged(self.graph, self.groups or {}), _MOST_NODES, _MOST_EDGES)
        self._wording, self._theme = Wording(self._drawn, self.words), Theme.current()
        self._images = pictures(self.words, range(min(_MOST_IMAGES, len(self.words))))
        self._boxes = self._place()
        return Limits.around(self._boxes.values(), _MARGIN, 0.2, 0.1, 0.15)

    def _draw(self) -> None:
        boxes, layers = self._boxes, dict(self._drawn.nodes(data="layer"))
        self._draw_edges(boxes)
        for row in rows_of(self._drawn):
            for _, keys in itertools.groupby(row, key=layers.get):
                self._draw_layer_name(next(keys), row[0], boxes)
            for key in row:
                if "class_name" in self._drawn.nodes[key]:
                    self._draw_decision(boxes[key])
                else:
                    self._draw_word(key, boxes[key])

    def _place(self) -> dict[str, Box]:
        """Return the boxes of nodes: words in rows, and the decision above them, as wide as they are."""
        rows, layers = rows_of(self._drawn), dict(self._drawn.nodes(data="layer"))
        root = self._drawn.graph["root"]
        caption = _NAME + _BAR + 0.05 + _LINE * max((len(self._lines(key)) for key in layers if key != root), default=1)
        rise = _RISE + (_MAP if self.edge_maps else 0)
        boxes = place_cells(rows, layers, (_CARD, _SQUARE + caption), gap=_GAP, rise=rise)
        if "class_name" in self._drawn.nodes[root]:
            widest = -2 * min(box.left for box in boxes.values())
            title, images = self._title(), self._image_boxes(0, 0)
            width = max(widest, images[-1].right + 0.25 + _BESIDE if images else _BESIDE)
            text = sum(style["size"] for _, style in title) * _LEADING
            height = max([text, *(image.height for image in images)])
            boxes[root] = Box(-width / 2, boxes[root].bottom, width, height)
        return boxes

    def _lines(self, key: str) -> list[tuple[str, bool]]:
        """Return the lines below the bar of a word, and whether they are grey."""
        node, wide = self._drawn.nodes[key], _letters(_CARD, 9.5)
        lines = [(shortened(self._wording.without(node), wide), False)]
        shown = ", ".join(_fitting(self._wording.classes(node), wide))
        return [*lines, (shown, True)] if shown else lines

    def _title(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the lines beside the images of a decision with their styles."""
        node, wording, theme = self._drawn.nodes[self._drawn.graph["root"]], self._wording, self._theme
        file = self.words.pictures.file_name(0) if len(self.words) == 1 and self.words.pictures is not None else ""
        name = shortened(node["class_name"], 66)
        name = counted(name, wording.probability()) if wording.probability() else name
        warnings = wording.warnings(self.predicted, self.residuals or {})
        texts: list[tuple[str, dict[str, Any]]] = [
            (file, {"size": 9.5, "color": theme.grey()}),
            (name, {"size": 15, "weight": "bold"}),
            *((text, {"size": 11}) for text in wording.outcome()),
            *(
                (text, {"size": 11, "weight": "bold", "color": theme.against if wrong else theme.ink})
                for text, wrong in self._judged()
            ),
            *((text, {"size": 9.5, "color": theme.against}) for text in warnings),
        ]
        return [(line, style) for text, style in texts for line in wrap(text, _letters(_BESIDE, style["size"]))]

    def _judged(self) -> list[tuple[str, bool]]:
        """Return the true labels as text, and whether the decisions are wrong."""
        if self.labels is None:
            return []
        wrong = self.labels != self.words.decisions
        if len(self.words) == 1:
            name = self.words.spec.class_name(int(self.labels[0]))
            return [(f"wrong: labelled {name}" if wrong[0] else "right: labelled so", bool(wrong[0]))]
        return [(f"{int((~wrong).sum())} of {len(wrong)} labelled so", bool(wrong.mean() > 0.5))]

    def _image_boxes(self, left: float, top: float) -> list[Box]:
        """Return the boxes of the images of the decision: one as it is and lit, or several lit."""
        side, n = (_PHOTOGRAPH, 2 * len(self._images)) if len(self.words) == 1 else (_SMALL, len(self._images))
        return [Box(left + number * (side + _BETWEEN), top - side, side, side) for number in range(n)]

    def _draw_decision(self, box: Box) -> None:
        boxes = self._image_boxes(box.left, box.top)
        if len(self.words) == 1 and boxes:
            draw_image(self.ax_, boxes.pop(0), self._images[0])
        root = self._drawn.graph["root"]
        kept = {key: self._drawn.nodes[key] for key in self._drawn.predecessors(root)}
        for row, square in enumerate(boxes):
            self._draw_lit(square, kept, row, tags=True)
        y, left = box.top, boxes[-1].right + 0.25 if boxes else box.left
        for line, style in self._title():
            write(self.ax_, left, y, line, ha="left", va="top", **style)
            y -= _LEADING * style["size"]

    def _draw_lit(self, square: Box, nodes: Mapping[str, Mapping[str, Any]], row: int, *, tags: bool = False) -> None:
        """Draw an image with the locations of some words in colour, outlined, and all else pale."""
        shown, picture = self._strongest(nodes, row), self._images[row]
        cells = {key: cells_of(self.words.spec, nodes[key]["layer"]) for key in shown}
        drawn = draw_image(self.ax_, square, lit(picture, [(cells[key], where) for key, where in shown.items()]))
        taken: list[Box] = []
        for key, where in shown.items():
            colour = AGAINST if self._wording.against(nodes[key]) else INK
            draw_borders(self.ax_, drawn, cells[key], np.where(where, 0, -1), colour=colour, halo="white")
            for tag in place_tags(drawn, cells[key], where) if tags else ():
                if not any(map(tag.overlaps, taken)):
                    taken.append(tag)
                    box: Any = {"boxstyle": "round,pad=0.15", "fc": colour, "ec": "none"}
                    x, y, name = tag.middle, tag.bottom + tag.height / 2, f"w{nodes[key]['word']}"
                    write(self.ax_, x, y, name, size=8, color="white", weight="bold", bbox=box)
                    break

    def _strongest(self, nodes: Mapping[str, Mapping[str, Any]], row: int) -> dict[str, np.ndarray]:
        """Return the strongest locations of words in one image, bool (H, W), pooled over a layer, for or against."""
        sides: dict[tuple[str, bool], dict[str, np.ndarray]] = {}
        for key, node in nodes.items():
            sides.setdefault((node["layer"], self._wording.against(node)), {})[key] = self._shown(node, row)
        found: dict[str, np.ndarray] = {}
        for (layer, _), places in sides.items():
            influence = None if self.influence is None else self.influence[layer][row]
            pooled = strongest(np.any(list(places.values()), axis=0), influence)
            found |= {key: grown(where & pooled) for key, where in places.items()}
        return {key: where for key, where in found.items() if where.any()}

    def _shown(self, node: Mapping[str, Any], row: int) -> np.ndarray:
        """Return the locations of a word in one image, bool (H, W); only its own of a node that is one location."""
        shown = np.isin(self.words.words[node["layer"]][row], node.get("words", [node["word"]]))
        if "row" in node:
            shown = np.zeros_like(shown)
            shown[node["row"], node["column"]] = True
        return shown

    def _draw_word(self, key: str, box: Box) -> None:
        node, theme = self._drawn.nodes[key], self._theme
        patches = Box(box.left, box.top - _SQUARE, _SQUARE if self._images else _CARD, _SQUARE)
        found = self.words.vocabulary.representatives.get(node["layer"])
        draw_patches(self.ax_, patches, found, node["word"], 2 if self._images else 4, 2)
        if self._images:
            row = max(range(len(self._images)), key=lambda row: np.sum(self._shown(node, row)))
            self._draw_lit(Box(patches.right + _BETWEEN, patches.bottom, _SQUARE, _SQUARE), {key: node}, row)
        bar, y = self._wording.bar(node), patches.bottom - 0.06
        colour = theme.against if bar.length < 0 else theme.ink
        room = _letters(_CARD, 11) - len(bar.text) - 2
        write(self.ax_, box.left, y, shortened(_name(node), room), size=11, weight="bold", ha="left", va="top")
        write(self.ax_, box.right, y, bar.text, size=11, weight="bold", color=colour, ha="right", va="top")
        self._draw_bar(Box(box.left, y - _NAME - _BAR + 0.03, _CARD, _BAR), bar, colour)
        y -= _NAME + _BAR
        for line, back in self._lines(key):
            ink = theme.grey() if back else theme.letters
            write(self.ax_, box.left, y, line, size=9.5, ha="left", va="top", color=ink)
            y -= _LINE

    def _draw_bar(self, box: Box, bar: Bar, colour: Any) -> None:
        draw_rectangle(self.ax_, box, fc=self._theme.grey(0.1), ec="none")
        draw_rectangle(self.ax_, box._replace(width=abs(bar.length) * box.width), fc=colour, ec="none")

    def _draw_layer_name(self, key: str, first: str, boxes: Mapping[str, Box]) -> None:
        """Draw the layer's name to the left of its first node, `key`; at the margin for the first node of a row."""
        node, box, theme = self._drawn.nodes[key], boxes[key], self._theme
        if "class_name" in node:
            return
        left = min(other.left for other in boxes.values()) if key == first else box.left
        per_image = node["n_locations"] // self._drawn.graph["n_images"]
        about = f"{in_lines(node['layer'])}\n{per_image} location{'s' * (per_image != 1)}"
        write(self.ax_, left - 0.15, box.top, about, size=9.5, color=theme.grey(), ha="right", va="top")
        rest = self._wording.rest(node["layer"])
        if rest:
            text, bar = f"other words\n{rest.text}", Box(left - 1.05, box.bottom + 0.1, 0.9, _BAR)
            write(self.ax_, left - 0.15, bar.top + 0.06, text, size=9.5, color=theme.grey(), ha="right", va="bottom")
            self._draw_bar(bar, rest, theme.against if rest.length < 0 else theme.grey(0.5))

    def _key(self) -> str:
        if len(self.graph) == 1:
            return text_of(self.graph).why_no_word()
        parts = ["Small pictures: the most typical patches of a word in the fitted images, and its commonest classes."]
        if self._any_rings():
            parts.append("Rings: the location, where a patch is nearly the whole image.")
        if self._images:
            share = "" if self.influence is None else f" with {percent(HELD)} of their influence"
            parts.append(f"Lit: the locations of words in the image{share}.")
        parts += self._wording.key()
        if self.edge_maps:
            parts.append(
                "Squares on arrows: places of the lower word in the upper word's field, darkest where most frequent."
            )
        n_nodes = len(self.graph) - sum(len(group) - 1 for group in self.groups or {})
        if len(self._drawn) < n_nodes:
            parts.append(f"Drawn are the strongest {len(self._drawn)} of {n_nodes:,} nodes.")
        return " ".join(parts)

    def _any_rings(self) -> bool:
        shown = {node["layer"] for _, node in self._drawn.nodes(data=True)}
        found = self.words.vocabulary.representatives
        return any(has_rings(each) for layer, each in found.items() if layer in shown)

    def _draw_edges(self, boxes: Mapping[str, Box]) -> None:
        lines, strengths = attach(self._drawn, boxes), edge_strengths(self._drawn)
        strength_in_unit, theme = strength_of(self._drawn).of_edge, self._theme
        edges = sorted(self._drawn.edges, key=lambda edge: -abs(strength_in_unit(self._drawn.edges[edge])))
        for edge in reversed(edges):
            strength, ink = abs(strengths[edge]), theme.ink if strengths[edge] > 0 else theme.against
            colour, width = theme.mixed(ink, 0.4 + 0.6 * strength), 0.6 + 3.4 * strength
            size = {"linewidth": width, "mutation_scale": 8 + 6 * strength}
            draw_arrow(self.ax_, lines[edge], color=colour, shrinkA=2, shrinkB=2, zorder=1, **size)
        self._draw_labels({edge: lines[edge] for edge in edges}, list(boxes.values()))

    def _draw_labels(self, lines: Mapping[tuple[str, str], Line], taken: list[Box]) -> None:
        """Label the edges in their order, with maps where there is room; shares of the decision stand below words."""
        maps = {
            key: each
            for key, each in (self.edge_maps or {}).items()
            if key in lines and each.size > 1 and np.nansum(each) > 0
        }
        texts = {key: self._wording.edge(self._drawn.edges[key]) for key in lines}
        width = 0.085 * max(map(len, texts.values()), default=0) + 0.05
        with_map = place_labels([(key, lines[key]) for key in lines if key in maps], width, _LABEL + _MAP, taken)
        others = [
            (key, line) for key, line in lines.items() if key not in with_map and self._has_label(key) and texts[key]
        ]
        for key, box in (with_map | place_labels(others, width, _LABEL, [*taken, *with_map.values()])).items():
            if self._has_label(key) and texts[key]:
                write(self.ax_, box.middle, box.bottom + _LABEL / 2, texts[key], size=9, box=True)
            if key in with_map:
                draw_share(self.ax_, Box(box.middle - _MAP / 2, box.top - _MAP, _MAP, _MAP), maps[key])

    def _has_label(self, edge: tuple[str, str]) -> bool:
        return self._wording.counts or edge[1] != self._drawn.graph["root"]


def _chosen(image: Any, target: Target, X: Any) -> np.ndarray:
    """Return the rows of the images to explain: the given ones, the first one, or all to choose a target's from."""
    if image is None:
        return np.arange(1 if target is None else len(X))
    rows = find_images(image, X)
    if len(rows) != 1 and target is None:
        raise ValueError(f"Several images, image={image!r}, are explained together for one target; give target=, too.")
    return rows


def _fitting(classes: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Return names and shares of classes, with the longest names shortened to fit."""
    names = [name for name, _ in classes]
    excess = len(", ".join(itertools.starmap(counted, classes))) - width
    for _ in range(max(excess, 0)):
        longest = max(range(len(names)), key=lambda place: len(names[place]))
        names[longest] = shortened(names[longest], len(names[longest]) - 1)
    return [counted(name, share) for name, (_, share) in zip(names, classes, strict=True)]


def _name(node: Mapping[str, Any]) -> str:
    """Return the name of a word or of a group."""
    words = node.get("words", [node["word"]])
    numbers = f"w{node['word']}" if len(words) == 1 else f"{len(words)} words like w{node['word']}"
    return f"{node['word_name']} ({numbers})" if "word_name" in node else numbers


def _letters(width: float, size: float) -> int:
    """Return the number of letters of a size in points that fit into a width in inches."""
    return int(127 * width / size)

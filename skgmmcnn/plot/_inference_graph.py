"""Pictures of inference graphs."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from textwrap import wrap
from typing import Any

import networkx as nx
import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..dictionary import WordMaps
from ..graph import (
    DECISION,
    Bar,
    InferenceGraph,
    Target,
    kind_of,
    percent,
    strength_of,
    targets_of,
    with_number,
    wording_of,
)
from ._cells import INFLUENCE_SHARE, cells_of, dilate, highlight, place_tag, strongest_locations
from ._drawing import AGAINST, INK, Drawing, shorten, wrap_name
from ._edge_maps import edge_maps as maps_of_edges
from ._layout import Box, Line, attach, edge_strengths, place_cells, place_labels, rows_of
from ._reading import commonest_classes, correctness, find_images, locations_of, n_fitted_of, pictures, run
from ._reduction import Group, ablate_group, merge_groups, prune, similar_groups

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


@dataclass(eq=False, repr=False)
class InferenceGraphDisplay(Drawing):
    """An inference graph as a picture: the decision on top, below it one row of words per layer.

    On top stands the image that is explained, and beside it where the words of the uppermost layer are.  A word is
    shown by the patches of the fitted images that are most typical of it, and beside them by its locations in the
    image.  Below stand its name, its share of the log-odds (in graphs of counts, its evidence in bits), the probability
    without it, and the two commonest classes of the fitted images that show it.  Edges lead from words up to those that
    they explain: the stronger, the wider and darker.  Words against the class are orange.  Of a class, or of several
    images, up to four are shown.  Similar words that touch are drawn as one; of graphs with more than 40 nodes the
    strongest are drawn.  Warnings stand beside the decision.  The user guide explains every part.

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
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        The axes drawn into, and their figure.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, InferenceGraphDisplay, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> pipe = make_pipeline(
    ...     FeatureExtractor(digits.network, ["conv2", "conv3"]), LayerDictionary(30, random_state=0), InferenceGraph()
    ... ).fit(digits.images)
    >>> display = InferenceGraphDisplay.from_estimator(pipe, digits.test_images, digits.test_labels, image=3)
    >>> display.save("graph.png")  # doctest: +SKIP
    """

    graph: nx.DiGraph
    words: WordMaps
    _: KW_ONLY
    labels: np.ndarray | None = None
    influence: Mapping[str, np.ndarray] | None = None
    residuals: Mapping[str, float] | None = None
    groups: Mapping[Group, Mapping[str, Any]] | None = None
    edge_maps: Mapping[tuple[str, str], np.ndarray] | None = None
    predicted: str | None = None

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
        # Without an image: the first one, or all to choose a target's from.
        rows = np.arange(1 if target is None else len(X)) if image is None else find_images(image, X)
        if image is not None and target is None and len(rows) != 1:
            raise ValueError(f"Several images, {image=}, are explained together for one target; give target=, too.")
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
        is_influence = kind_of(self.graph).uses_network
        explains_output, is_single = "target" in of, of["n_images"] == 1
        can_ablate = is_influence and explains_output and is_single
        groups = similar_groups(self.graph, words)
        self.groups = {group: ablate_group(self.graph, words, group) if can_ablate else {} for group in groups}
        if is_influence and explains_output and words.influence is not None:
            contrasts = [of["contrast"]] * len(words) if "contrast" in of else None
            influence = words.influence.of_classes([of["target"]] * len(words), contrasts, n_steps=estimator.n_steps)
            self.influence = influence.maps
            self.residuals = {layer: float(each.max()) for layer, each in influence.residuals.items()}
        if not is_influence and is_single and of.get("target") == words.decisions[0]:
            self.predicted = words.spec.class_name(int(estimator.predict(words)[0]))

    _key_size = 9.0

    def _draw(self) -> Box:
        self._drawn = prune(merge_groups(self.graph, self.groups or {}), _MOST_NODES, _MOST_EDGES)
        self._wording = wording_of(self._drawn)
        self._images = pictures(self.words[:_MOST_IMAGES])
        rows = rows_of(self._drawn)
        boxes = self._place(rows)
        self._draw_edges(boxes)
        leftmost = min(box.left for box in boxes.values())
        for row in rows:
            for layer in row:
                box = boxes[layer[0]]
                self._draw_layer_name(layer[0], box._replace(left=leftmost) if layer is row[0] else box)
                for key in layer:
                    if "class_name" in self._drawn.nodes[key]:
                        self._draw_decision(boxes[key])
                    else:
                        self._draw_word(key, boxes[key])
        return Box.around(boxes.values(), _MARGIN, 0.2, 0.1, 0.15)

    def _place(self, rows: list[list[list[str]]]) -> dict[str, Box]:
        """Return the boxes of nodes: words in rows, and the decision above them, as wide as they are."""
        root = self._drawn.graph["root"]
        n_lines = max((len(self._lines(key)) for key in self._drawn if key != root), default=1)
        size = _CARD, _SQUARE + _NAME + _BAR + 0.05 + _LINE * n_lines
        boxes = place_cells(rows, size, gap=_GAP, rise=_RISE + (_MAP if self.edge_maps else 0))
        if "class_name" in self._drawn.nodes[root]:
            images = self._image_boxes(0, 0)
            text_height = sum(style["size"] for _, style in self._title()) * _LEADING
            width = images[-1].right + 0.25 + _BESIDE if images else _BESIDE
            width = max(width, -2 * min(box.left for box in boxes.values()))
            height = max([text_height, *(image.height for image in images)])
            boxes[root] = Box(-width / 2, boxes[root].bottom, width, height)
        return boxes

    def _lines(self, key: str) -> list[tuple[str, bool]]:
        """Return the lines below the bar of a word, and whether they are grey."""
        node, n_letters = self._drawn.nodes[key], _letters(_CARD, 9.5)
        lines = [(shorten(self._wording.without(node), n_letters), False)]
        classes = _fitting(commonest_classes(self.words, node), n_letters)
        if classes:
            lines.append((", ".join(classes), True))
        return lines

    def _title(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the lines beside the images of a decision with their styles."""
        node, wording = self._drawn.nodes[self._drawn.graph["root"]], self._wording
        file = self.words.pictures.file_name(0) if len(self.words) == 1 and self.words.pictures is not None else ""
        name = with_number(shorten(node["class_name"], 66), wording.probability())
        texts: list[tuple[str, dict[str, Any]]] = [
            (file, {"size": 9.5, "color": self._grey()}),
            (name, {"size": 15, "weight": "bold"}),
            *((text, {"size": 11}) for text in wording.outcome()),
        ]
        if self.labels is not None:
            is_right = self.labels == self.words.decisions
            text = f"{int(is_right.sum())} of {len(is_right)} decisions right"
            if len(is_right) == 1:
                text = correctness(self.words, 0, self.labels)
            colour = self._ink(against=is_right.mean() < 0.5)
            texts.append((text, {"size": 11, "weight": "bold", "color": colour}))
        warnings = wording.warnings(n_fitted_of(self.words, node), self.predicted, self.residuals)
        texts += [(text, {"size": 9.5, "color": self._ink(against=True)}) for text in warnings]
        return [(line, style) for text, style in texts for line in wrap(text, _letters(_BESIDE, style["size"]))]

    def _image_boxes(self, left: float, top: float) -> list[Box]:
        """Return the boxes of the images of the decision: one as it is and lit, or several lit."""
        side, n = (_PHOTOGRAPH, 2 * len(self._images)) if len(self.words) == 1 else (_SMALL, len(self._images))
        return [Box(left + number * (side + _BETWEEN), top - side, side, side) for number in range(n)]

    def _draw_decision(self, box: Box) -> None:
        boxes = self._image_boxes(box.left, box.top)
        y, left = box.top, boxes[-1].right + 0.25 if boxes else box.left
        for line, style in self._title():
            self._write(left, y, line, ha="left", va="top", **style)
            y -= _LEADING * style["size"]
        if len(self.words) == 1 and boxes:
            self._draw_image(boxes.pop(0), self._images[0])
        nodes = {key: self._drawn.nodes[key] for key in self._drawn.predecessors(self._drawn.graph["root"])}
        for row, square in enumerate(boxes):
            self._draw_lit(square, nodes, row, tags=True)

    def _draw_lit(self, square: Box, nodes: Mapping[str, Mapping[str, Any]], row: int, *, tags: bool = False) -> None:
        """Draw an image with the locations of some words in colour and outlined, and the rest pale."""
        masks = self._strongest(nodes, row)
        cells = {key: cells_of(self.words.spec, nodes[key]["layer"]) for key in masks}
        picture = highlight(self._images[row], [(cells[key], mask) for key, mask in masks.items()])
        box = self._draw_image(square, picture)
        occupied: list[Box] = []
        for key, mask in masks.items():
            colour = AGAINST if self._wording.against(nodes[key]) else INK
            self._outline(box, cells[key], np.where(mask, 0, -1), colour=colour, halo="white")
            tag = place_tag(box, cells[key], mask, occupied) if tags else None
            if tag is not None:
                occupied.append(tag)
                style: dict[str, Any] = {"bbox": {"boxstyle": "round,pad=0.15", "fc": colour, "ec": "none"}}
                self._write(tag.middle, tag.centre, f"w{nodes[key]['word']}", 8, color="white", weight="bold", **style)

    def _strongest(self, nodes: Mapping[str, Mapping[str, Any]], row: int) -> dict[str, np.ndarray]:
        """Return the strongest locations of words in one image, bool (H, W), pooled over a layer, for or against."""
        sides: dict[tuple[str, bool], dict[str, np.ndarray]] = defaultdict(dict)
        for key, node in nodes.items():
            sides[node["layer"], self._wording.against(node)][key] = locations_of(self.words[row], node)[0]
        strongest_masks: dict[str, np.ndarray] = {}
        for (layer, _), masks in sides.items():
            influence = None if self.influence is None else self.influence[layer][row]
            pooled = strongest_locations(np.any(list(masks.values()), axis=0), influence)
            strongest_masks |= {key: dilate(mask & pooled) for key, mask in masks.items()}
        return {key: mask for key, mask in strongest_masks.items() if mask.any()}

    def _draw_word(self, key: str, box: Box) -> None:
        node = self._drawn.nodes[key]
        patches = Box(box.left, box.top - _SQUARE, _SQUARE if self._images else _CARD, _SQUARE)
        typical = self.words.vocabulary.representatives.get(node["layer"])
        self._draw_patches(patches, typical, node["word"], 2 if self._images else 4, 2)
        if self._images:
            row = int(locations_of(self.words[:_MOST_IMAGES], node).sum((1, 2)).argmax())
            self._draw_lit(Box(patches.right + _BETWEEN, patches.bottom, _SQUARE, _SQUARE), {key: node}, row)
        bar, y = self._wording.bar(node), patches.bottom - 0.06
        colour = self._ink(against=bar.length < 0)
        name = shorten(_name(node), _letters(_CARD, 11) - len(bar.text) - 2)
        self._write(box.left, y, name, 11, weight="bold", ha="left", va="top")
        self._write(box.right, y, bar.text, 11, weight="bold", color=colour, ha="right", va="top")
        y -= _NAME + _BAR
        self._draw_bar(Box(box.left, y + 0.03, _CARD, _BAR), bar, colour)
        for line, back in self._lines(key):
            self._write(box.left, y, line, 9.5, ha="left", va="top", color=self._grey() if back else self._letters)
            y -= _LINE

    def _draw_bar(self, box: Box, bar: Bar, colour: Any) -> None:
        self._draw_rectangle(box, fc=self._grey(0.1), ec="none")
        self._draw_rectangle(box._replace(width=abs(bar.length) * box.width), fc=colour, ec="none")

    def _draw_layer_name(self, key: str, box: Box) -> None:
        """Draw the name of the layer of a node, and the sum over its other words, to the left of `box`."""
        node, left = self._drawn.nodes[key], box.left
        if "class_name" in node:
            return
        per_image = node["n_locations"] // self._drawn.graph["n_images"]
        about = f"{wrap_name(node['layer'])}\n{per_image} location{'s' * (per_image != 1)}"
        self._write(left - 0.15, box.top, about, 9.5, color=self._grey(), ha="right", va="top")
        rest = self._wording.rest(node["layer"])
        if rest is not None:
            text, bar = f"other words\n{rest.text}", Box(left - 1.05, box.bottom + 0.1, 0.9, _BAR)
            self._write(left - 0.15, bar.top + 0.06, text, 9.5, color=self._grey(), ha="right", va="bottom")
            self._draw_bar(bar, rest, self._ink(against=True) if rest.length < 0 else self._grey(0.5))

    def _key(self) -> list[str]:
        if len(self.graph) == 1:
            return [self._wording.why_no_word()]
        parts = ["Small pictures: the most typical patches of a word in the fitted images, and its commonest classes."]
        if self._has_rings:
            parts.append("Rings: the location, where a patch is nearly the whole image.")
        if self._images:
            share = "" if self.influence is None else f" with {percent(INFLUENCE_SHARE)} of their influence"
            parts.append(f"Lit: the locations of words in the image{share}.")
        parts += self._wording.key()
        if self.edge_maps:
            maps = "places of the lower word in the upper word's field, darkest where most frequent."
            parts.append(f"Squares on arrows: {maps}")
        n_nodes = len(self.graph) - sum(len(group) - 1 for group in self.groups or {})
        if len(self._drawn) < n_nodes:
            parts.append(f"Drawn are the strongest {len(self._drawn)} of {n_nodes:,} nodes.")
        return parts

    def _draw_edges(self, boxes: Mapping[str, Box]) -> None:
        lines, strengths = attach(self._drawn, boxes), edge_strengths(self._drawn)
        strength_in_unit = strength_of(self._drawn).of_edge
        edges = sorted(self._drawn.edges, key=lambda edge: -abs(strength_in_unit(self._drawn.edges[edge])))
        for edge in reversed(edges):
            strength, ink = abs(strengths[edge]), self._ink(against=strengths[edge] <= 0)
            colour, width = self._mix(ink, 0.4 + 0.6 * strength), 0.6 + 3.4 * strength
            size = {"linewidth": width, "mutation_scale": 8 + 6 * strength}
            self._draw_arrow(lines[edge], color=colour, shrinkA=2, shrinkB=2, zorder=1, **size)
        self._draw_labels({edge: lines[edge] for edge in edges}, list(boxes.values()))

    def _draw_labels(self, lines: Mapping[tuple[str, str], Line], occupied: list[Box]) -> None:
        """Label the edges in their order, with maps where there is room; shares of the decision stand below words."""
        root = self._drawn.graph["root"]
        texts = {edge: self._wording.label(self._drawn.edges[edge]) for edge in lines}
        texts = {edge: text for edge, text in texts.items() if text and (self._wording.names_root or edge[1] != root)}
        edge_maps = self.edge_maps or {}
        maps = {edge: edge_maps[edge] for edge in lines if edge in edge_maps and _has_pattern(edge_maps[edge])}
        width = 0.085 * max(map(len, texts.values()), default=0) + 0.05
        boxes = place_labels({edge: lines[edge] for edge in maps}, width, _LABEL + _MAP, occupied)
        for edge, box in boxes.items():
            self._draw_map(Box(box.middle - _MAP / 2, box.top - _MAP, _MAP, _MAP), maps[edge])
        others = {edge: lines[edge] for edge in lines if edge in texts and edge not in boxes}
        boxes |= place_labels(others, width, _LABEL, [*occupied, *boxes.values()])
        for edge, text in texts.items():
            if edge in boxes:
                self._write(boxes[edge].middle, boxes[edge].bottom + _LABEL / 2, text, 9, box=True)

    def _draw_map(self, box: Box, shares: np.ndarray) -> None:
        """Draw the map of an edge (H, W), from white to dark where it is largest; grey where no field reaches."""
        strength = np.nan_to_num(shares / np.nanmax(shares))[..., None]
        colours = np.where(np.isnan(shares)[..., None], 0.85, 1 - strength * (1 - np.array(INK)))
        frame = self._draw_image(box, colours, interpolation="nearest", zorder=5)
        self._draw_rectangle(frame, fc="none", ec="0.4", lw=0.6, zorder=5.5)


def _has_pattern(shares: np.ndarray) -> bool:
    """Return whether the map of an edge shows anything."""
    return shares.size > 1 and np.nansum(shares) > 0


def _fitting(classes: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Return names and shares of classes, with the longest names shortened to fit."""
    names = [name for name, _ in classes]
    excess = len(", ".join(itertools.starmap(with_number, classes))) - width
    for _ in range(max(excess, 0)):
        longest = max(range(len(names)), key=lambda place: len(names[place]))
        names[longest] = shorten(names[longest], len(names[longest]) - 1)
    return [with_number(name, share) for name, (_, share) in zip(names, classes, strict=True)]


def _name(node: Mapping[str, Any]) -> str:
    """Return the name of a word or of a group."""
    words = node.get("words", [node["word"]])
    numbers = f"w{node['word']}" if len(words) == 1 else f"{len(words)} words like w{node['word']}"
    return f"{node['word_name']} ({numbers})" if "word_name" in node else numbers


def _letters(width: float, size: float) -> int:
    """Return the number of letters of a size in points that fit into a width in inches."""
    return int(127 * width / size)

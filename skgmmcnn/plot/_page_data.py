"""What a page shows, as plain numbers and text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np

from ..dictionary import WordMaps
from ..graph import DECISION, evidence_of, sentence, strength_of, telling
from ._cells import cells_of, equal_cells
from ._layout import Box, attach, edge_strengths, place_cells, place_labels, rows_of
from ._pruning import prune
from ._reading import pictures
from ._sprites import encode_patches, encode_picture

_CAPTION, _GAP, _RISE = 0.56, 0.25, 0.8  # in sides of a word's square
_MORE = 0.3  # of a caption, where it is longer
_LABEL = (0.62, 0.2)
_N_CLASSES = 5  # shown of a word's histogram
_EXAMPLE = 96  # pixels, of the images of a class


def describe(words: WordMaps, graphs: Mapping[int, Sequence[nx.DiGraph]], *, max_nodes: int, max_edges: int) -> dict:
    """Return all that the page shows; a graph that several images have, a word and its patches are there once."""
    views: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}
    shown: dict[str, tuple[str, int]] = {}
    for graph in itertools.chain.from_iterable(graphs.values()):
        if id(graph) in numbers:
            continue
        numbers[id(graph)] = len(views)
        part = prune(graph, max_nodes, max_edges)
        views.append({**_describe_graph(words, part), "remark": _remark(graph, part)})
        shown |= {key: (node["layer"], node["word"]) for key, node in part.nodes.items() if node["layer"] != DECISION}
    return {
        "layers": {layer: _describe_cells(words, layer) for layer in words.layers},
        "words": {key: _describe_word(words, *word) for key, word in shown.items()},
        "images": [
            {**_describe_image(words, row, shown), "views": [numbers[id(graph)] for graph in its]}
            for row, its in graphs.items()
        ],
        "views": views,
    }


def _remark(graph: nx.DiGraph, part: nx.DiGraph) -> str:
    if len(graph) == 1:
        return telling(graph).why_no_word()
    if (len(graph), graph.number_of_edges()) == (len(part), part.number_of_edges()):
        return ""
    return (
        f"This graph is too large for a page: it shows the strongest {len(part)} of {len(graph)} nodes and "
        f"{part.number_of_edges()} of {graph.number_of_edges()} edges."
    )


def _describe_graph(words: WordMaps, graph: nx.DiGraph) -> dict[str, Any]:
    """Return nodes and edges with their places: x to the right, y upwards, in sides of a word's square."""
    rows, layers = rows_of(graph), dict(graph.nodes(data="layer"))
    told, of = telling(graph), strength_of(graph)
    cards = {key: told.card(node, wide=False).replace("   ", " · ").split("\n") for key, node in graph.nodes.items()}
    caption = _CAPTION + (0 if evidence_of(graph) == "counts" else _MORE)
    boxes = place_cells(rows, layers, (1, 1 + caption), gap=_GAP, rise=_RISE)
    lines, strengths = attach(graph, boxes), edge_strengths(graph)
    groups = [[list(keys) for _, keys in itertools.groupby(row, key=layers.get)] for row in rows]
    names = [_name(layers[keys[0]], boxes[keys[0]]) for keys in itertools.chain.from_iterable(groups)]
    strongest = sorted(lines.items(), key=lambda line: -abs(strengths[line[0]]))
    labels = place_labels(strongest, *_LABEL, [*boxes.values(), *names])
    return {
        "root": graph.graph["root"],
        "n_images": graph.graph["n_images"],
        "evidence": evidence_of(graph),
        "class_name": graph.graph.get("class_name"),
        "contrast_name": graph.graph.get("contrast_name"),
        "pictures": _examples(words, graph),
        "limits": _limits(boxes.values()),
        "rows": groups,
        "nodes": {
            key: {
                **node,
                "box": _rounded(boxes[key]),
                "card": cards[key],
                "panel": told.panel(node),
                "warnings": list(map(sentence, told.warnings(node))) if node["layer"] == DECISION else [],
            }
            for key, node in graph.nodes.items()
        },
        "edges": [
            {
                "tail": edge[0],
                "head": edge[1],
                **graph.edges[edge],
                "strength": round(abs(strengths[edge]), 3),
                "against": strengths[edge] < 0,
                "rank": of.rank(graph.edges[edge]),
                "short": told.short(graph.edges[edge]),
                "told": told.beside(graph.edges[edge]),
                "line": _rounded(lines[edge]),
                "label": _centre(labels.get(edge)),
            }
            for edge in graph.edges
        ],
    }


def _name(layer: str, box: Box) -> Box:
    """Return the room for the name of a layer and its number of locations, above its first word."""
    return Box(box.left, box.top, 0.1 * (len(layer) + 25), 0.25)


def _limits(boxes: Iterable[Box]) -> list[float]:
    """Return left, bottom, right and top of all that is drawn."""
    lefts, bottoms, rights, tops = zip(*((box.left, box.bottom, box.right, box.top) for box in boxes), strict=True)
    return _rounded([min(lefts), min(bottoms), max(rights), max(tops)])


def _rounded(numbers: Iterable[float]) -> list[float]:
    return [round(float(number), 3) for number in numbers]


def _centre(box: Box | None) -> list[float] | None:
    return None if box is None else _rounded([box.middle, box.bottom + box.height / 2])


def _examples(words: WordMaps, graph: nx.DiGraph) -> list[str]:
    """Return some of the images that the graph of a class is about."""
    if graph.graph["n_images"] == 1 or "target" not in graph.graph:
        return []
    rows = np.flatnonzero(words.decisions == graph.graph["target"])
    return [encode_picture(picture, _EXAMPLE) for picture in pictures(words, rows[:4])]


def _describe_cells(words: WordMaps, layer: str) -> dict[str, list[float]]:
    """Return where in the image the rows and columns of a layer's locations begin and end, as shares of the image."""
    known = words.pictures is not None
    cells = cells_of(words.spec, layer) if known else equal_cells(words.words[layer].shape[1:])
    return {name: [round(float(end), 4) for end in ends] for name, ends in cells._asdict().items()}


def _describe_word(words: WordMaps, layer: str, word: int) -> dict[str, Any]:
    vocabulary, found = words.vocabulary, {"layer": layer, "word": word}
    if (layer, word) in vocabulary.names:
        found["name"] = vocabulary.names[layer, word]
    if layer in vocabulary.representatives:
        found["sprite"], found["marks"] = encode_patches(vocabulary.representatives[layer], word)
    if layer in vocabulary.statistics:
        statistics = vocabulary.statistics[layer]
        shares = statistics.classes[word]
        order = np.argsort(-shares, kind="stable")[:_N_CLASSES]
        found |= {
            "share": float(statistics.share[word]),
            "n_classes": int((shares > 0).sum()),
            "classes": [[words.spec.class_name(output), float(shares[output])] for output in order if shares[output]],
        }
    return found


def _describe_image(words: WordMaps, row: int, shown: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Return one image, and where it shows which of the words that the page has."""
    encoded = [encode_picture(picture) for picture in pictures(words, [row])]
    maps = {layer: words.words[layer][row].ravel() for layer in words.layers}
    places = {key: _runs(maps[layer] == word) for key, (layer, word) in shown.items()}
    return {
        "number": int(row),
        "decision": words.spec.class_name(int(words.decisions[row])),
        "picture": encoded[0] if encoded else None,
        "places": {key: runs for key, runs in places.items() if runs},
    }


def _runs(shown: np.ndarray) -> list[int]:
    """Return where a flat map is true as start, length, start, length and so on."""
    ends = np.flatnonzero(np.diff(shown.astype(np.int8), prepend=0, append=0))
    starts, stops = ends[::2], ends[1::2]
    return np.column_stack([starts, stops - starts]).ravel().tolist()

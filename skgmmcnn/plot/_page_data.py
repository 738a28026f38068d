"""Data of a page, as JSON."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from ..dictionary import WordMaps
from ..graph import DECISION, evidence_of, strength_of, text_of
from ._cells import cells_of, equal_cells
from ._layout import edge_strengths, rows_of
from ._pruning import prune
from ._reading import pictures
from ._sprites import encode_patches, encode_picture
from ._wording import Wording

_MOST_NODES, _MOST_EDGES = 80, 240
_N_CLASSES = 5  # shown of a word's histogram
_EXAMPLE = 96  # pixels, of the images of a class
# Names of classes may be long and stand in many texts: these have a mark instead, which the script replaces.
_MARK, _MARKED = "\ue000{}\ue001", r"\\ue000(\d+)\\ue001"
_NAMES = {
    "class_name": "target",
    "contrast_name": "contrast",
    "decision_name": "decision",
    "runner_up_name": "runner_up",
    "class_without": "decision_without",
}


def describe(words: WordMaps, graphs: Mapping[int, Sequence[nx.DiGraph]], y: Any) -> str:
    """Return the data of a page as JSON, with each graph, word and class name once."""
    spec = words.spec
    labels = None if y is None else spec.encode(y, len(words))
    words = replace(words, spec=replace(spec, class_names=tuple(map(_MARK.format, range(spec.n_outputs)))))
    views: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}
    shown: dict[str, tuple[str, int]] = {}
    for graph in itertools.chain.from_iterable(graphs.values()):
        if id(graph) in numbers:
            continue
        numbers[id(graph)] = len(views)
        part = _marked(prune(graph, _MOST_NODES, _MOST_EDGES))
        views.append({**_describe_graph(words, part), "remarks": _remarks(words, graph, part)})
        shown |= {key: (node["layer"], node["word"]) for key, node in part.nodes.items() if node["layer"] != DECISION}
    data = {
        "layers": {layer: _describe_cells(words, layer) for layer in words.layers},
        "words": {key: _describe_word(words, *word) for key, word in shown.items()},
        "images": [
            {**_describe_image(words, row, shown, labels), "views": [numbers[id(graph)] for graph in of_row]}
            for row, of_row in graphs.items()
        ],
        "views": views,
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    named = {int(number) for number in re.findall(_MARKED, text)} & set(range(spec.n_outputs))
    classes = {number: spec.class_name(number) for number in sorted(named)}
    return f'{{"classes":{json.dumps(classes)},{text[1:]}'


def _marked(graph: nx.DiGraph) -> nx.DiGraph:
    """Return a graph with marks in place of the names of classes."""
    marked = nx.DiGraph(**_marks(graph.graph))
    marked.add_nodes_from((key, _marks({"target": node["word"], **node})) for key, node in graph.nodes.items())
    marked.add_edges_from(graph.edges(data=True))
    return marked


def _marks(attributes: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: _MARK.format(attributes[number]) for name, number in _NAMES.items() if name in attributes}
    return {**attributes, **named}


def _remarks(words: WordMaps, graph: nx.DiGraph, part: nx.DiGraph) -> list[str]:
    """Return warnings about a graph and its omitted parts, in sentences."""
    if len(graph) == 1:
        return [text_of(part).why_no_word()]
    remarks = Wording(part, words).warnings(None, {})
    if (len(graph), graph.number_of_edges()) != (len(part), part.number_of_edges()):
        remarks.append(
            f"This graph is too large for a page: it shows the strongest {len(part)} of {len(graph)} nodes and "
            f"{part.number_of_edges()} of {graph.number_of_edges()} edges."
        )
    return remarks


def _describe_graph(words: WordMaps, graph: nx.DiGraph) -> dict[str, Any]:
    """Return the nodes of a graph, row by row and layer by layer, and its edges."""
    layers, text, of = dict(graph.nodes(data="layer")), text_of(graph), strength_of(graph)
    wording, strengths = Wording(graph, words), edge_strengths(graph)
    return {
        "root": graph.graph["root"],
        "n_images": graph.graph["n_images"],
        "evidence": evidence_of(graph),
        "contrast_name": graph.graph.get("contrast_name"),
        "pictures": _examples(words, graph),
        "rows": [[list(keys) for _, keys in itertools.groupby(row, key=layers.get)] for row in rows_of(graph)],
        "nodes": {key: _describe_node(wording, node, text.panel(node)) for key, node in graph.nodes.items()},
        "edges": [
            {
                "tail": edge[0],
                "head": edge[1],
                "strength": round(abs(strengths[edge]), 3),
                "against": strengths[edge] < 0,
                "rank": of.rank(graph.edges[edge]),
                "short": wording.edge(graph.edges[edge]),
                "text": text.edge(graph.edges[edge]),
            }
            for edge in graph.edges
        ],
    }


def _describe_node(wording: Wording, node: Mapping[str, Any], panel: list[str]) -> dict[str, Any]:
    known = ("layer", "word", "row", "column", "count", "n_locations", "class_name")
    shown = {**{name: node[name] for name in known if name in node}, "panel": panel}
    if node["layer"] == DECISION:
        share = {} if wording.counts else {"bar": [wording.probability(), node["probability"]]}
        return {**shown, **share, "lines": wording.outcome()}
    bar, classes = wording.bar(node), ", ".join(f"{name} {share}" for name, share in wording.classes(node))
    return {
        **shown,
        "bar": None if bar is None else [bar.text, round(bar.length, 3)],
        "lines": [wording.without(node)] + [f"seen in {classes}"] * bool(classes),
    }


def _examples(words: WordMaps, graph: nx.DiGraph) -> list[str]:
    """Return up to four images of the class of a graph."""
    if graph.graph["n_images"] == 1 or "target" not in graph.graph:
        return []
    rows = np.flatnonzero(words.decisions == graph.graph["target"])
    return [encode_picture(picture, _EXAMPLE) for picture in pictures(words, rows[:4])]


def _describe_cells(words: WordMaps, layer: str) -> dict[str, list[float]]:
    """Return the edges of a layer's locations along both axes, as shares of the image."""
    known = words.pictures is not None
    cells = cells_of(words.spec, layer) if known else equal_cells(words.words[layer].shape[1:])
    return {name: [round(float(end), 4) for end in ends] for name, ends in cells._asdict().items()}


def _describe_word(words: WordMaps, layer: str, word: int) -> dict[str, Any]:
    vocabulary, data = words.vocabulary, {"layer": layer, "word": word}
    if (layer, word) in vocabulary.names:
        data["name"] = vocabulary.names[layer, word]
    if layer in vocabulary.representatives:
        data["sprite"], data["marks"] = encode_patches(vocabulary.representatives[layer], word)
    if layer in vocabulary.statistics:
        statistics = vocabulary.statistics[layer]
        shares = statistics.classes[word]
        order = np.argsort(-shares, kind="stable")[:_N_CLASSES]
        data |= {
            "share": float(statistics.share[word]),
            "n_classes": int((shares > 0).sum()),
            "classes": [[words.spec.class_name(output), float(shares[output])] for output in order if shares[output]],
        }
    return data


def _describe_image(
    words: WordMaps, row: int, shown: Mapping[str, tuple[str, int]], labels: np.ndarray | None
) -> dict[str, Any]:
    """Return one image and the locations of the words of the page in it."""
    encoded = [encode_picture(picture) for picture in pictures(words, [row])]
    maps = {layer: words.words[layer][row].ravel() for layer in words.layers}
    places = {key: _runs(maps[layer] == word) for key, (layer, word) in shown.items()}
    file = words.pictures.file_name(int(row)) if words.pictures is not None else ""
    return {
        "number": int(row),
        "name": file or f"Image {row}",
        "decision": words.spec.class_name(int(words.decisions[row])),
        "label": None if labels is None else words.spec.class_name(int(labels[row])),
        "picture": encoded[0] if encoded else None,
        "places": {key: runs for key, runs in places.items() if runs},
    }


def _runs(shown: np.ndarray) -> list[int]:
    """Return the runs of true values of a flat map as start, length, start, length and so on."""
    ends = np.flatnonzero(np.diff(shown.astype(np.int8), prepend=0, append=0))
    starts, stops = ends[::2], ends[1::2]
    return np.column_stack([starts, stops - starts]).ravel().tolist()

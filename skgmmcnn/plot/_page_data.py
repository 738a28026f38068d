"""Data of a page, as JSON."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
from PIL import Image

from ..dictionary import Representatives, WordMaps
from ..graph import DECISION, Wording, kind_of, wording_of
from ._cells import cells_of
from ._layout import edge_strengths, rows_of
from ._reading import classes_of, commonest_classes, n_fitted_of, pictures
from ._reduction import prune

_MOST_NODES, _MOST_EDGES = 80, 240
_N_CLASSES = 5  # shown of a word's histogram
_EXAMPLE, _PICTURE = 96, 448  # most pixels a side, of the images of a class and of those that are explained
_SPRITE, _GAP = 3, 2  # patches a side of the square of a word's patches, and pixels around each
_PLACES = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2), (2, 0), (2, 1), (2, 2))  # the best four form a square
_SMALL = 32  # pictures below are shown with hard pixels
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
    unique = {id(graph): graph for graph in itertools.chain.from_iterable(graphs.values())}
    views = {identity: number for number, identity in enumerate(unique)}
    parts = [prune(graph, _MOST_NODES, _MOST_EDGES) for graph in unique.values()]
    for part in parts:
        _mark_names(part)
    nodes = {key: node for part in parts for key, node in part.nodes.items() if node["layer"] != DECISION}
    page_words = {key: (node["layer"], node["word"]) for key, node in nodes.items()}
    data = {
        "help": {kind.name: kind.wording.help for kind in map(kind_of, parts)},
        "layers": {
            layer: {axis: ends.round(4).tolist() for axis, ends in cells_of(spec, layer)._asdict().items()}
            for layer in words.layers
        },
        "words": {key: _describe_word(words, *word) for key, word in page_words.items()},
        "images": [
            {**_describe_image(words, row, page_words, labels), "views": [views[id(graph)] for graph in of_image]}
            for row, of_image in graphs.items()
        ],
        "views": [
            {**_describe_graph(words, part), "remarks": _remarks(words, graph, part)}
            for graph, part in zip(unique.values(), parts, strict=True)
        ],
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    named = {int(number) for number in re.findall(_MARKED, text)} & set(range(spec.n_outputs))
    classes = {number: spec.class_name(number) for number in sorted(named)}
    return f'{{"classes":{json.dumps(classes)},{text[1:]}'


def _mark_names(graph: nx.DiGraph) -> None:
    """Put marks in place of the names of classes."""
    for of in (graph.graph, *graph.nodes.values()):
        numbers = {"target": of.get("word"), **of}
        of.update({name: _MARK.format(numbers[number]) for name, number in _NAMES.items() if name in of})


def _remarks(words: WordMaps, graph: nx.DiGraph, part: nx.DiGraph) -> list[str]:
    """Return warnings about a graph and its omitted parts, in sentences."""
    if len(graph) == 1:
        return [wording_of(part).why_no_word()]
    remarks = wording_of(part).warnings(n_fitted_of(words, part.nodes[part.graph["root"]]))
    if (len(graph), graph.number_of_edges()) != (len(part), part.number_of_edges()):
        remarks.append(
            f"This graph is too large for a page: it shows the strongest {len(part)} of {len(graph)} nodes and "
            f"{part.number_of_edges()} of {graph.number_of_edges()} edges."
        )
    return remarks


def _describe_graph(words: WordMaps, graph: nx.DiGraph) -> dict[str, Any]:
    """Return the nodes of a graph, row by row and layer by layer, and its edges."""
    kind, wording, strengths = kind_of(graph), wording_of(graph), edge_strengths(graph)
    return {
        "root": graph.graph["root"],
        "n_images": graph.graph["n_images"],
        "evidence": kind.name,
        "contrast_name": graph.graph.get("contrast_name"),
        "pictures": _examples(words, graph),
        "rows": rows_of(graph),
        "nodes": {key: _describe_node(words, wording, node) for key, node in graph.nodes.items()},
        "edges": [
            {
                "tail": tail,
                "head": head,
                "strength": round(abs(strengths[tail, head]), 3),
                "against": strengths[tail, head] < 0,
                "rank": kind.strength.magnitude(edge),
                "short": wording.label(edge),
                "text": wording.edge(edge),
            }
            for tail, head, edge in graph.edges(data=True)
        ],
    }


def _describe_node(words: WordMaps, wording: Wording, node: Mapping[str, Any]) -> dict[str, Any]:
    names = ("layer", "word", "row", "column", "count", "n_locations", "class_name")
    data = {name: node[name] for name in names if name in node}
    data["panel"] = wording.panel(node)
    if node["layer"] == DECISION:
        bar, lines = wording.decision_bar(), wording.outcome()
    else:
        bar, lines = wording.bar(node), [wording.without(node)]
        classes = ", ".join(f"{name} {share}" for name, share in commonest_classes(words, node))
        lines += [f"seen in {classes}"] if classes else []
    if bar is not None:
        data["bar"] = [bar.text, round(bar.length, 3)]
    return data | {"lines": lines}


def _examples(words: WordMaps, graph: nx.DiGraph) -> list[str]:
    """Return up to four images of the class of a graph."""
    if graph.graph["n_images"] == 1 or "target" not in graph.graph:
        return []
    rows = np.flatnonzero(words.decisions == graph.graph["target"])
    return [_encode_picture(picture, _EXAMPLE) for picture in pictures(words[rows[:4]])]


def _describe_word(words: WordMaps, layer: str, word: int) -> dict[str, Any]:
    vocabulary, data = words.vocabulary, {"layer": layer, "word": word}
    if (layer, word) in vocabulary.names:
        data["name"] = vocabulary.names[layer, word]
    if layer in vocabulary.representatives:
        data["sprite"], data["marks"] = _encode_patches(vocabulary.representatives[layer], word)
    if layer in vocabulary.statistics:
        classes = classes_of(vocabulary.statistics[layer], [word])
        data |= {
            "share": float(vocabulary.statistics[layer].share[word]),
            "n_classes": len(classes),
            "classes": [(words.spec.class_name(label), share) for label, share in classes[:_N_CLASSES]],
        }
    return data


def _describe_image(
    words: WordMaps, row: int, page_words: Mapping[str, tuple[str, int]], labels: np.ndarray | None
) -> dict[str, Any]:
    """Return one image and the locations of the words of the page in it."""
    encoded = (_encode_picture(picture, _PICTURE) for picture in pictures(words[row]))
    maps = {layer: words.words[layer][row].ravel() for layer in words.layers}
    places = {key: _runs(maps[layer] == word) for key, (layer, word) in page_words.items()}
    file = words.pictures.file_name(int(row)) if words.pictures is not None else ""
    return {
        "number": int(row),
        "name": file or f"Image {row}",
        "decision": words.spec.class_name(int(words.decisions[row])),
        "label": None if labels is None else words.spec.class_name(int(labels[row])),
        "picture": next(encoded, None),
        "places": {key: runs for key, runs in places.items() if runs},
    }


def _runs(mask: np.ndarray) -> list[int]:
    """Return the runs of true values of a flat mask as start, length, start, length and so on."""
    ends = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    starts, stops = ends[::2], ends[1::2]
    return np.column_stack([starts, stops - starts]).ravel().tolist()


def _encode(picture: np.ndarray) -> str:
    """Return an image (height, width, 3 or 4) as a data URI: PNG for large pixels and few colours, else WebP."""
    image, file = Image.fromarray(picture), io.BytesIO()
    kind, options = ("png", {"optimize": True}) if image.getcolors(256) else ("webp", {"quality": 82, "method": 4})
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _encode_picture(picture: np.ndarray, largest: int) -> str:
    image = Image.fromarray(_magnified(picture, 160))
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return _encode(np.asarray(image))


def _encode_patches(typical: Representatives, word: int) -> tuple[str | None, list[tuple[float, float]]]:
    """Return a word's patches as one square of 3 x 3, and the locations to ring on it, in units of patches.

    The best patch is at the upper left, the best four in the upper left square.  None without patches.
    """
    n_patches = int((typical.images[word] >= 0).sum())  # the best first
    if typical.patches is None or not n_patches:
        return None, []
    patches = [_magnified(patch, 48) for patch in typical.patches[word, :n_patches]]
    height, width = patches[0].shape[:2]
    cell, marks = max(height, width) + 2 * _GAP, []
    sheet, opaque = np.zeros((_SPRITE * cell, _SPRITE * cell, 4), np.uint8), np.full((height, width), 255, np.uint8)
    for patch, (down, along), (row, column) in zip(patches, typical.marks[word].tolist(), _PLACES, strict=False):
        top, left = row * cell + (cell - height) // 2, column * cell + (cell - width) // 2
        sheet[top : top + height, left : left + width] = np.dstack([patch, opaque])
        marks.append((round((left + along * width) / cell, 3), round((top + down * height) / cell, 3)))
    return _encode(sheet), marks if typical.whole else []


def _magnified(picture: np.ndarray, side: int) -> np.ndarray:
    """Return a small picture with its pixels repeated, to about `side` pixels; others as they are."""
    largest = max(picture.shape[:2])
    times = max(1, side // largest) if largest < _SMALL else 1
    return np.ascontiguousarray(picture.repeat(times, axis=0).repeat(times, axis=1))

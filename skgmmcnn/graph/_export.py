"""Graphs in the files and tables of other programs, and back."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import networkx as nx
import numpy as np

from .._optional import need

# Values that a format has no form for are written as text: this and JSON.
_MARK = "json:"
# What XML cannot hold, or gives back as something else.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s$|^$")


class Frames(NamedTuple):
    """An inference graph as two tables.

    Parameters
    ----------
    nodes : pandas.DataFrame
        One row per node, indexed by its key.
    edges : pandas.DataFrame
        One row per edge, with `source`, the lower word, and `target`, what it explains.
    """

    nodes: Any
    edges: Any


class _Format(NamedTuple):
    write: Callable[[nx.DiGraph, Path], None]
    read: Callable[[Path], nx.DiGraph]
    nested: bool  # whether it has None and lists


def to_frame(graph: nx.DiGraph) -> Frames:
    """Return an inference graph as pandas tables.

    Parameters
    ----------
    graph : networkx.DiGraph
        As made by :class:`InferenceGraph`.

    Returns
    -------
    frames : Frames
        ``nodes`` and ``edges``, with one column per attribute.

    Raises
    ------
    ImportError
        Where pandas is not installed.

    Examples
    --------
    >>> import networkx as nx
    >>> from skgmmcnn.graph import to_frame
    >>> graph = nx.DiGraph([("conv_w003", "decision_7", {"log_ratio": 1.5})])
    >>> to_frame(graph).edges
          source      target  log_ratio
    0  conv_w003  decision_7        1.5
    """
    pandas = need("pandas", "to_frame")
    nodes = pandas.DataFrame([node for _, node in graph.nodes(data=True)], index=pandas.Index(list(graph), name="node"))
    edges = [{"source": tail, "target": head, **edge} for tail, head, edge in graph.edges(data=True)]
    return Frames(nodes, pandas.DataFrame(edges, columns=None if edges else ["source", "target"]))


def write_graph(graph: nx.DiGraph, path: str | PathLike) -> None:
    """Write an inference graph for other programs.

    Parameters
    ----------
    graph : networkx.DiGraph
        As made by :class:`InferenceGraph`.
    path : str or path
        The file; its suffix tells the format: ``.graphml``, ``.gexf`` (Gephi), ``.json`` (networkx's node-link form,
        as D3 reads it), ``.cyjs`` (Cytoscape) or ``.dot`` (Graphviz; needs pydot).

    See Also
    --------
    read_graph : Reads the file.

    Notes
    -----
    networkx's own writers do the work, and its readers read the files.  What a format cannot hold is written as
    text, ``json:`` and the value as JSON: lists, None and numbers that are not finite, control characters in XML.
    Tuples and arrays become lists.

    Examples
    --------
    >>> import tempfile
    >>> import networkx as nx
    >>> from skgmmcnn.graph import read_graph, write_graph
    >>> graph = nx.DiGraph([("conv_w003", "decision_7", {"log_ratio": 1.5})])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_graph(graph, f"{folder}/seven.graphml")
    ...     read_graph(f"{folder}/seven.graphml").edges(data=True)
    OutEdgeDataView([('conv_w003', 'decision_7', {'log_ratio': 1.5})])
    """
    file, form = _form(path)
    foreign = [key for key in graph if not isinstance(key, str)]
    if foreign:
        raise TypeError(f"The keys of nodes must be strings; {foreign[0]!r} is a {type(foreign[0]).__name__}.")
    plain = graph.copy()
    for attributes in _all_attributes(plain):
        attributes.update({name: _pack(value, form.nested) for name, value in attributes.items()})
    form.write(plain, file)


def read_graph(path: str | PathLike) -> nx.DiGraph:
    """Read what :func:`write_graph` has written.

    Parameters
    ----------
    path : str or path
        The file; its suffix tells the format.

    Returns
    -------
    graph : networkx.DiGraph
        With the same nodes, edges and attributes; tuples and arrays as lists, and from ``.dot`` numbers as strings.

    See Also
    --------
    write_graph : Writes the file.
    """
    file, form = _form(path)
    graph = form.read(file)
    for attributes in _all_attributes(graph):
        attributes.update({name: _unpack(value) for name, value in attributes.items()})
    return graph


def _form(path: str | PathLike) -> tuple[Path, _Format]:
    file = Path(path)
    if file.suffix.lower() not in _FORMATS:
        raise ValueError(f"The suffix tells the format, {', '.join(_FORMATS)}; {str(file)!r} has none of these.")
    return file, _FORMATS[file.suffix.lower()]


def _all_attributes(graph: nx.DiGraph) -> Iterator[dict[str, Any]]:
    yield graph.graph
    yield from (node for _, node in graph.nodes(data=True))
    yield from (edge for *_, edge in graph.edges(data=True))


def _pack(value: Any, nested: bool) -> Any:
    """Return `value` as a format can hold it: a bool, a number or a string, with `nested` also None and lists."""
    value = _plain(value)
    if isinstance(value, str):
        fits = not value.startswith(_MARK) and (nested or not _NOT_XML.search(value))
    elif isinstance(value, (bool, int, float)):
        fits = math.isfinite(value)
    else:
        fits = nested and not re.search("NaN|Infinity", json.dumps(value))
    return value if fits else _MARK + json.dumps(value)


def _unpack(value: Any) -> Any:
    return json.loads(value.removeprefix(_MARK)) if isinstance(value, str) and value.startswith(_MARK) else value


def _plain(value: Any) -> Any:
    """Return `value` without numpy, with lists for all that is a sequence."""
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value


def _caption(key: str, node: dict[str, Any]) -> str:
    """Return how other programs show a node."""
    name = node.get("class_name", node.get("word_name"))
    return key if name is None else f"{name} ({key})"


def _check_xml(graph: nx.DiGraph) -> None:
    for key in graph:
        if _NOT_XML.search(key):
            raise ValueError(f"XML cannot hold the node key {key!r}; write .json or .cyjs.")


def _write_graphml(graph: nx.DiGraph, file: Path) -> None:
    _check_xml(graph)
    nx.write_graphml_xml(graph, file)


def _read_graphml(file: Path) -> nx.DiGraph:
    graph = nx.read_graphml(file, force_multigraph=False)
    for name in ("node_default", "edge_default"):
        graph.graph.pop(name, None)
    return graph


def _write_gexf(graph: nx.DiGraph, file: Path) -> None:
    """Write GEXF; attributes of the graph, which networkx leaves out, go into its description."""
    _check_xml(graph)
    for key, node in graph.nodes(data=True):
        node["label"] = _caption(key, node)
    buffer = io.BytesIO()
    nx.write_gexf(graph, buffer)
    description = f"<description>{escape(json.dumps(graph.graph))}</description></meta>"
    file.write_text(buffer.getvalue().decode().replace("</meta>", description, 1), encoding="utf-8")


def _read_gexf(file: Path) -> nx.DiGraph:
    graph = nx.read_gexf(file)
    for _, node in graph.nodes(data=True):
        node.pop("label", None)
    for *_, edge in graph.edges(data=True):
        edge.pop("id", None)
    description = ElementTree.parse(file).find(".//{*}description")
    graph.graph = {} if description is None else json.loads(description.text or "{}")
    return graph


def _write_json(graph: nx.DiGraph, file: Path) -> None:
    file.write_text(json.dumps(nx.node_link_data(graph, edges="edges"), indent=1, allow_nan=False), encoding="utf-8")


def _read_json(file: Path) -> nx.DiGraph:
    return nx.node_link_graph(json.loads(file.read_text(encoding="utf-8")), edges="edges")


def _write_cytoscape(graph: nx.DiGraph, file: Path) -> None:
    for key, node in graph.nodes(data=True):
        node["name"] = _caption(key, node)
    data = nx.cytoscape_data(graph)
    file.write_text(json.dumps(data | {"data": dict(data["data"])}, indent=1, allow_nan=False), encoding="utf-8")


def _read_cytoscape(file: Path) -> nx.DiGraph:
    data = json.loads(file.read_text(encoding="utf-8"))
    graph = nx.cytoscape_graph(data | {"data": list(data["data"].items())})
    for _, node in graph.nodes(data=True):
        for name in ("id", "value", "name"):
            node.pop(name, None)
    for *_, edge in graph.edges(data=True):
        for name in ("source", "target"):
            edge.pop(name, None)
    return graph


def _write_dot(graph: nx.DiGraph, file: Path) -> None:
    """Write DOT, with all values as text, quoted as in JSON, which Graphviz reads, too."""
    pydot = need("pydot", "writing .dot")
    drawing = pydot.Dot("", graph_type="digraph", strict=True, rankdir='"BT"')
    for name, value in graph.graph.items():
        drawing.set(name, _dot(value))
    for key, node in graph.nodes(data=True):
        attributes = {"label": _caption(key, node)} | node
        drawing.add_node(pydot.Node(_dot(key), **{name: _dot(value) for name, value in attributes.items()}))
    for tail, head, edge in graph.edges(data=True):
        drawing.add_edge(pydot.Edge(_dot(tail), _dot(head), **{name: _dot(value) for name, value in edge.items()}))
    file.write_text(drawing.to_string(), encoding="utf-8")


def _read_dot(file: Path) -> nx.DiGraph:
    pydot = need("pydot", "reading .dot")
    (drawing,) = pydot.graph_from_dot_data(file.read_text(encoding="utf-8")) or [None]
    if drawing is None:
        raise ValueError(f"{str(file)!r} is not DOT.")
    graph = nx.DiGraph(**_undot(drawing.get_attributes(), "rankdir"))
    for node in drawing.get_node_list():
        graph.add_node(json.loads(node.get_name()), **_undot(node.get_attributes(), "label"))
    for edge in drawing.get_edge_list():
        graph.add_edge(*map(json.loads, (edge.get_source(), edge.get_destination())), **_undot(edge.get_attributes()))
    return graph


def _dot(value: Any) -> str:
    return json.dumps(value if isinstance(value, str) else json.dumps(value), ensure_ascii=False)


def _undot(attributes: dict[str, str], *but: str) -> dict[str, str]:
    return {name: json.loads(value) for name, value in attributes.items() if name not in but}


_FORMATS = {
    ".graphml": _Format(_write_graphml, _read_graphml, nested=False),
    ".gexf": _Format(_write_gexf, _read_gexf, nested=False),
    ".json": _Format(_write_json, _read_json, nested=True),
    ".cyjs": _Format(_write_cytoscape, _read_cytoscape, nested=True),
    ".dot": _Format(_write_dot, _read_dot, nested=False),
}

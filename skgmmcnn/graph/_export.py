"""Graphs in the files and tables of other programs, and back."""

from __future__ import annotations

import copy
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

from .._files import replace
from .._optional import need

# Values that a format has no form for are written as text: this and JSON.
_MARK = "json:"
# What XML cannot hold, or gives back as something else.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s$|^$")

# Names of attributes in DOT, those that it keeps for itself or that are written anyway, and statements.
_DOT_NAME, _DOT_TEXT = "[A-Za-z_][A-Za-z0-9_]*", r'"(?:[^"\\]|\\.)*"'
_NOT_DOT = frozenset("strict graph digraph node edge subgraph label rankdir".split())
_DOT_LINE = re.compile(
    f"{_DOT_NAME}={_DOT_TEXT};|(?P<tail>{_DOT_TEXT})(?: -> (?P<head>{_DOT_TEXT}))? "
    rf"\[(?P<attributes>(?:{_DOT_NAME}={_DOT_TEXT}(?:, )?)*)\];"
)


class Frames(NamedTuple):
    """The result of :func:`to_frame`."""

    nodes: Any
    edges: Any


class _Format(NamedTuple):
    write: Callable[[nx.DiGraph], bytes]
    read: Callable[[bytes], nx.DiGraph]
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
        `nodes` : pandas.DataFrame with one row per node, indexed by its key.  `edges` : one row per edge, with
        `source`, the lower word, and `target`.  Both with one column per attribute.

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
        The file; its suffix is the format: ``.graphml``, ``.gexf`` (Gephi), ``.json`` (networkx's node-link form,
        as D3 reads it), ``.cyjs`` (Cytoscape) or ``.dot`` (Graphviz).

    Raises
    ------
    ValueError
        If the graph has attributes whose names mean something else in this form, so that they would not come back.

    See Also
    --------
    read_graph : Reads the file.

    Notes
    -----
    networkx reads the files, and writes all but DOT.  What a format cannot hold is written as
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
    if not graph.is_directed() or graph.is_multigraph():
        raise TypeError(f"Inference graphs are of class networkx.DiGraph; this is a {type(graph).__name__}.")
    foreign = [key for key in graph if not isinstance(key, str)]
    if foreign:
        raise TypeError(f"The keys of nodes must be strings; {foreign[0]!r} is a {type(foreign[0]).__name__}.")
    plain = graph.copy()
    for attributes in _all_attributes(plain):
        attributes.update({name: _packed(name, value, form.nested) for name, value in attributes.items()})
    try:
        content = form.write(copy.deepcopy(plain))
        # Numbers come back from DOT as text, and its writer refuses what does not come back.
        again = plain if form.read is _read_dot else form.read(content)
    except Exception as error:  # of each format's own writer and reader
        raise ValueError(
            f"Files of form {file.suffix} cannot hold this graph: {error}. Rename what does not fit, or write another "
            "form."
        ) from error
    _check_kept(plain, again, file.suffix)
    replace(file, lambda opened: opened.write(content))


def _packed(name: Any, value: Any, nested: bool) -> Any:
    try:
        return _pack(value, nested)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"The attribute {name!r} is a {type(value).__name__}, which no file can hold: {error}."
        ) from error


def _check_kept(graph: nx.DiGraph, again: nx.DiGraph, form: str) -> None:
    """Refuse a graph that comes back as another: formats and programs have names of their own."""
    for key, kept, found in _pairs(graph, again):
        lost = [repr(name) for name in kept if name not in found or not _same(kept[name], found[name])]
        gained = [repr(name) for name in found if name not in kept]
        if lost or gained:
            raise ValueError(
                f"Files of form {form} cannot hold {', '.join(lost + gained)} of {key}: it means something else "
                "there; rename it, or write another form."
            )


def _pairs(graph: nx.DiGraph, again: nx.DiGraph) -> Iterator[tuple[str, dict, dict]]:
    yield "the graph", graph.graph, again.graph
    for key, node in graph.nodes(data=True):
        yield f"node {key!r}", node, again.nodes.get(key, {})
    for tail, head, edge in graph.edges(data=True):
        yield f"the edge from {tail!r} to {head!r}", edge, again.get_edge_data(tail, head, {})


def _same(first: Any, second: Any) -> bool:
    return type(first) is type(second) and first == second


def read_graph(path: str | PathLike) -> nx.DiGraph:
    """Read what :func:`write_graph` has written.

    Parameters
    ----------
    path : str or path
        The file; its suffix is the format.

    Returns
    -------
    graph : networkx.DiGraph
        With the same nodes, edges and attributes; tuples and arrays as lists, and from ``.dot`` numbers as strings.

    Raises
    ------
    ValueError
        If the file holds no such graph.

    See Also
    --------
    write_graph : Writes the file.
    """
    file, form = _form(path)
    content = file.read_bytes()
    try:
        graph = form.read(content)
        for attributes in _all_attributes(graph):
            attributes.update({name: _unpack(value) for name, value in attributes.items()})
        if graph.is_multigraph() or not graph.is_directed() or not all(isinstance(key, str) for key in graph):
            raise ValueError("its graph is another kind")
    except Exception as error:  # of each format's own reader
        raise ValueError(
            f"{str(file)!r} holds no graph that write_graph has written ({type(error).__name__}: {error})."
        ) from error
    return graph


def _form(path: str | PathLike) -> tuple[Path, _Format]:
    file = Path(path)
    if file.suffix.lower() not in _FORMATS:
        raise ValueError(f"The suffix is the format, {', '.join(_FORMATS)}; {str(file)!r} has none of these.")
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
            raise ValueError(f"XML cannot hold the node key {key!r}")


def _write_graphml(graph: nx.DiGraph) -> bytes:
    _check_xml(graph)
    buffer = io.BytesIO()
    nx.write_graphml_xml(graph, buffer)
    return buffer.getvalue()


def _read_graphml(content: bytes) -> nx.DiGraph:
    graph = nx.read_graphml(io.BytesIO(content), force_multigraph=False)
    for name in ("node_default", "edge_default"):
        graph.graph.pop(name, None)
    return graph


def _write_gexf(graph: nx.DiGraph) -> bytes:
    """Write GEXF; attributes of the graph, which networkx leaves out, go into its description."""
    _check_xml(graph)
    for key, node in graph.nodes(data=True):
        node.setdefault("label", _caption(key, node))
    buffer = io.BytesIO()
    nx.write_gexf(graph, buffer)
    description = f"<description>{escape(json.dumps(graph.graph))}</description></meta>"
    return buffer.getvalue().decode().replace("</meta>", description, 1).encode()


def _read_gexf(content: bytes) -> nx.DiGraph:
    graph = nx.read_gexf(io.BytesIO(content))
    for _, node in graph.nodes(data=True):
        node.pop("label", None)
    for *_, edge in graph.edges(data=True):
        edge.pop("id", None)
    description = ElementTree.fromstring(content).find(".//{*}description")
    graph.graph = {} if description is None else json.loads(description.text or "{}")
    return graph


def _write_json(graph: nx.DiGraph) -> bytes:
    return json.dumps(nx.node_link_data(graph, edges="edges"), indent=1, allow_nan=False).encode()


def _read_json(content: bytes) -> nx.DiGraph:
    return nx.node_link_graph(json.loads(content), edges="edges")


def _write_cytoscape(graph: nx.DiGraph) -> bytes:
    for key, node in graph.nodes(data=True):
        node.setdefault("name", _caption(key, node))
    data = nx.cytoscape_data(graph)
    return json.dumps(data | {"data": dict(data["data"])}, indent=1, allow_nan=False).encode()


def _read_cytoscape(content: bytes) -> nx.DiGraph:
    data = json.loads(content)
    graph = nx.cytoscape_graph(data | {"data": list(data["data"].items())})
    for _, node in graph.nodes(data=True):
        for name in ("id", "value", "name"):
            node.pop(name, None)
    for *_, edge in graph.edges(data=True):
        for name in ("source", "target"):
            edge.pop(name, None)
    return graph


def _write_dot(graph: nx.DiGraph) -> bytes:
    """Write DOT, one statement a line, with all values as text, quoted as in JSON, which Graphviz reads, too."""
    for attributes in _all_attributes(graph):
        for name in attributes:
            if not re.fullmatch(_DOT_NAME, name) or name.lower() in _NOT_DOT:
                raise ValueError(f"it has no attribute {name!r}")
    lines = [f"{name}={_dot(value)};" for name, value in {"rankdir": "BT", **graph.graph}.items()]
    for key, node in graph.nodes(data=True):
        lines.append(f"{_dot(key)} {_dot_list({'label': _caption(key, node)} | node)};")
    for tail, head, edge in graph.edges(data=True):
        lines.append(f"{_dot(tail)} -> {_dot(head)} {_dot_list(edge)};")
    return "\n".join(["strict digraph {", *lines, "}", ""]).encode()


def _read_dot(content: bytes) -> nx.DiGraph:
    first, *lines, last, _ = content.decode().replace("\r\n", "\n").split("\n")
    if (first, last) != ("strict digraph {", "}"):
        raise ValueError("it is not the DOT that write_graph writes")
    graph = nx.DiGraph()
    for line in lines:
        found = _DOT_LINE.fullmatch(line)
        if not found:
            raise ValueError(f"it holds {line[:50]!r}")
        attributes = _undot(found["attributes"] or line, "label", "rankdir")
        if not found["tail"]:
            graph.graph.update(attributes)
        elif found["head"]:
            graph.add_edges_from([(json.loads(found["tail"]), json.loads(found["head"]), attributes)])
        else:
            graph.add_nodes_from([(json.loads(found["tail"]), attributes)])
    return graph


def _dot(value: Any) -> str:
    return json.dumps(value if isinstance(value, str) else json.dumps(value), ensure_ascii=False)


def _dot_list(attributes: dict[str, Any]) -> str:
    return f"[{', '.join(f'{name}={_dot(value)}' for name, value in attributes.items())}]"


def _undot(attributes: str, *but: str) -> dict[str, str]:
    found = re.findall(f"({_DOT_NAME})=({_DOT_TEXT})", attributes)
    return {name: json.loads(value) for name, value in found if name not in but}


_FORMATS = {
    ".graphml": _Format(_write_graphml, _read_graphml, nested=False),
    ".gexf": _Format(_write_gexf, _read_gexf, nested=False),
    ".json": _Format(_write_json, _read_json, nested=True),
    ".cyjs": _Format(_write_cytoscape, _read_cytoscape, nested=True),
    ".dot": _Format(_write_dot, _read_dot, nested=False),
}

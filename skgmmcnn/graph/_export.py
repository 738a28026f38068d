"""Export of graphs to files and tables of other programs, and import of these files."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import networkx as nx
import numpy as np

from .._files import replace
from .._optional import need

_MARK = "json:"  # prefix of values that a format cannot hold, which are written as JSON
# Characters that XML cannot hold, or does not preserve.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s$|^$")

# Attribute names in DOT, which reserves some words; quoted text; and the statements that are written.
_DOT_NAME = "(?!(?i:strict|graph|digraph|node|edge|subgraph)=)[A-Za-z_][A-Za-z0-9_]*"
_DOT_TEXT = r'"(?:[^"\\]|\\.)*"'
_DOT_LINE = re.compile(
    f"{_DOT_NAME}={_DOT_TEXT};|(?P<tail>{_DOT_TEXT})(?: -> (?P<head>{_DOT_TEXT}))? "
    rf"\[(?P<attributes>(?:{_DOT_NAME}={_DOT_TEXT}(?:, )?)*)\];"
)


class Frames(NamedTuple):
    """The result of :func:`to_frame`."""

    nodes: Any
    edges: Any


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

    Notes
    -----
    networkx reads the files, and writes all but DOT.  Values that a format cannot hold are written as text, ``json:``
    and JSON: lists, None and numbers that are not finite, control characters in XML.  Tuples and arrays become lists.
    """
    file, form = _form(path)
    if not graph.is_directed() or graph.is_multigraph():
        raise TypeError(f"Inference graphs are of class networkx.DiGraph; this is a {type(graph).__name__}.")
    for key in graph:
        if not isinstance(key, str):
            raise TypeError(f"The keys of nodes must be strings; {key!r} is a {type(key).__name__}.")
    plain = graph.copy()
    for attributes in _places(plain).values():
        attributes.update({name: _pack(name, value, form) for name, value in attributes.items()})
    try:
        content = form.write(_captioned(plain, form.caption)).encode()
        again = form.read(content.decode())
    except Exception as error:  # of each format's own writer and reader
        raise ValueError(
            f"Files of form {file.suffix} cannot hold this graph: {error}. Rename what does not fit, or write another "
            "form."
        ) from error
    _check_kept(plain, again, file.suffix)
    replace(file, lambda opened: opened.write(content))


def read_graph(path: str | PathLike) -> nx.DiGraph:
    """Read a file of :func:`write_graph`.

    Parameters
    ----------
    path : str or path
        The file; its suffix is the format.

    Returns
    -------
    graph : networkx.DiGraph
        With the same nodes, edges and attributes; tuples and arrays as lists, and from ``.dot`` numbers as strings.
    """
    file, form = _form(path)
    content = file.read_bytes()
    try:
        graph = form.read(content.decode())
        for attributes in _places(graph).values():
            for name, value in attributes.items():
                if isinstance(value, str) and value.startswith(_MARK):
                    attributes[name] = json.loads(value.removeprefix(_MARK))
        if graph.is_multigraph() or not graph.is_directed() or not all(isinstance(key, str) for key in graph):
            raise ValueError("its graph is another kind")
    except Exception as error:  # of each format's own reader
        raise ValueError(
            f"{str(file)!r} holds no graph that write_graph has written ({type(error).__name__}: {error})."
        ) from error
    return graph


class _Format(NamedTuple):
    write: Callable[[nx.DiGraph], str]
    read: Callable[[str], nx.DiGraph]
    nested: bool = False  # whether it holds None and lists
    typed: bool = True  # whether numbers differ from text
    caption: str | None = None  # attribute that other programs show for a node


def _form(path: str | PathLike) -> tuple[Path, _Format]:
    file = Path(path)
    if file.suffix.lower() not in _FORMATS:
        raise ValueError(f"The suffix is the format, {', '.join(_FORMATS)}; {str(file)!r} has none of these.")
    return file, _FORMATS[file.suffix.lower()]


def _places(graph: nx.DiGraph) -> dict[str, dict[str, Any]]:
    """Return the attributes of the graph, its nodes and its edges, by the name of the place in errors."""
    nodes = {f"node {key!r}": node for key, node in graph.nodes.items()}
    edges = {f"the edge from {tail!r} to {head!r}": edge for (tail, head), edge in graph.edges.items()}
    return {"the graph": graph.graph, **nodes, **edges}


def _check_kept(graph: nx.DiGraph, again: nx.DiGraph, form: str) -> None:
    """Refuse a graph that comes back as another: formats and programs have names of their own."""
    places = _places(again)
    for place, attributes in _places(graph).items():
        # Texts that differ for 1, 1.0, True and "1".
        before, after = ({n: repr(v) for n, v in each.items()} for each in (attributes, places.get(place, {})))
        changed = [repr(name) for name in {**before, **after} if before.get(name) != after.get(name)]
        if changed:
            raise ValueError(
                f"Files of form {form} cannot hold {', '.join(changed)} of {place}: it means something else there; "
                "rename it, or write another form."
            )


def _pack(name: Any, value: Any, form: _Format) -> Any:
    """Return a value as a format can hold it: a bool, a number or a string, or None and lists of these."""
    try:
        text = json.dumps(value, default=_without_numpy)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"The attribute {name!r} is a {type(value).__name__}, which no file can hold: {error}."
        ) from error
    value = json.loads(text)
    if isinstance(value, str):
        fits = not value.startswith(_MARK) and (form.nested or not _NOT_XML.search(value))
    elif isinstance(value, (bool, int, float)):
        fits = math.isfinite(value)
    else:
        fits = form.nested and not re.search("NaN|Infinity", text)
    if not fits:
        return _MARK + text
    return value if form.typed or isinstance(value, str) else text


def _without_numpy(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _captioned(graph: nx.DiGraph, attribute: str | None) -> nx.DiGraph:
    """Return a graph with names for nodes in the attribute that other programs show."""
    captioned = graph.copy()
    for key, node in captioned.nodes.items() if attribute else ():
        name = node.get("class_name", node.get("word_name"))
        node.setdefault(attribute, key if name is None else f"{name} ({key})")
    return captioned


def _drop(items: Mapping[Any, dict[str, Any]], *names: str) -> None:
    """Remove attributes of nodes or edges that only the format needs."""
    for attributes in items.values():
        for name in names:
            attributes.pop(name, None)


def _check_xml(graph: nx.DiGraph) -> None:
    for key in graph:
        if _NOT_XML.search(key):
            raise ValueError(f"XML cannot hold the node key {key!r}")


def _write_graphml(graph: nx.DiGraph) -> str:
    _check_xml(graph)
    return "\n".join(nx.generate_graphml(graph))


def _read_graphml(text: str) -> nx.DiGraph:
    graph = nx.parse_graphml(text, force_multigraph=False)
    _drop({None: graph.graph}, "node_default", "edge_default")
    return graph


def _write_gexf(graph: nx.DiGraph) -> str:
    """Write GEXF; attributes of the graph, which networkx leaves out, go into its description."""
    _check_xml(graph)
    description = f"<description>{escape(json.dumps(graph.graph))}</description></meta>"
    return "\n".join(nx.generate_gexf(graph)).replace("</meta>", description, 1)


def _read_gexf(text: str) -> nx.DiGraph:
    graph = nx.read_gexf(io.StringIO(text))
    _drop(graph.nodes, "label")
    _drop(graph.edges, "id")
    description = ElementTree.fromstring(text).find(".//{*}description")
    graph.graph = {} if description is None else json.loads(description.text or "{}")
    return graph


def _strict_json(data: Any) -> str:
    return json.dumps(data, indent=1, allow_nan=False)


def _write_cytoscape(graph: nx.DiGraph) -> str:
    data = nx.cytoscape_data(graph)
    return _strict_json(data | {"data": dict(data["data"])})


def _read_cytoscape(text: str) -> nx.DiGraph:
    data = json.loads(text)
    graph = nx.cytoscape_graph(data | {"data": list(data["data"].items())})
    _drop(graph.nodes, "id", "value", "name")
    _drop(graph.edges, "source", "target")
    return graph


def _write_dot(graph: nx.DiGraph) -> str:
    """Write DOT, one statement a line, with text quoted as in JSON, which Graphviz reads, too."""
    lines = [f"{name}={_quote(value)};" for name, value in {"rankdir": "BT", **graph.graph}.items()]
    lines += [f"{_quote(key)} {_dot_list(node)};" for key, node in graph.nodes.items()]
    lines += [f"{_quote(tail)} -> {_quote(head)} {_dot_list(edge)};" for (tail, head), edge in graph.edges.items()]
    return "\n".join(["strict digraph {", *lines, "}", ""])


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _dot_list(attributes: Mapping[str, str]) -> str:
    return f"[{', '.join(f'{name}={_quote(value)}' for name, value in attributes.items())}]"


def _read_dot(text: str) -> nx.DiGraph:
    first, *lines, last, _ = text.replace("\r\n", "\n").split("\n")
    if (first, last) != ("strict digraph {", "}"):
        raise ValueError("it is not the DOT that write_graph writes")
    graph = nx.DiGraph()
    for line in lines:
        parts = _DOT_LINE.fullmatch(line)
        if not parts:
            raise ValueError(f"this is no statement with names that DOT allows: {line[:50]!r}")
        named = re.findall(f"({_DOT_NAME})=({_DOT_TEXT})", parts["attributes"] or line)
        attributes = {name: json.loads(value) for name, value in named if name not in ("label", "rankdir")}
        if not parts["tail"]:
            graph.graph.update(attributes)
        elif parts["head"]:
            graph.add_edges_from([(json.loads(parts["tail"]), json.loads(parts["head"]), attributes)])
        else:
            graph.add_nodes_from([(json.loads(parts["tail"]), attributes)])
    return graph


_FORMATS = {
    ".graphml": _Format(_write_graphml, _read_graphml),
    ".gexf": _Format(_write_gexf, _read_gexf, caption="label"),
    ".json": _Format(
        lambda graph: _strict_json(nx.node_link_data(graph, edges="edges")),
        lambda text: nx.node_link_graph(json.loads(text), edges="edges"),
        nested=True,
    ),
    ".cyjs": _Format(_write_cytoscape, _read_cytoscape, nested=True, caption="name"),
    ".dot": _Format(_write_dot, _read_dot, typed=False, caption="label"),
}

"""Graphs as text."""

from __future__ import annotations

import networkx as nx

from ._hierarchy import DECISION
from ._kinds import check_graph, wording_of


def to_text(graph: nx.DiGraph) -> str:
    """Return an inference graph as text, layer by layer from the top down.

    Parameters
    ----------
    graph : networkx.DiGraph
        As made by :class:`InferenceGraph`.

    Returns
    -------
    text : str
        For each word the locations that show it.  Under influence its share of the log-odds and the effect of ablating
        it, and its contributions to words above.  Under counts its evidence in bits, and for each word that it explains
        the bits per location and the share of the fields.  Also the results of :meth:`InferenceGraph.check`.

    Examples
    --------
    >>> import networkx as nx
    >>> from skgmmcnn.graph import to_text
    >>> graph = nx.DiGraph(evidence="influence", n_images=1, root="decision_7", target=7, decision=7, probability=0.93,
    ...                    runner_up_name="one", runner_up_probability=0.04, held=True)
    >>> graph.add_node("decision_7", layer="decision", word=7, count=1, n_locations=1, class_name="seven")
    >>> graph.add_node("conv_w003", layer="conv", word=3, count=6, n_locations=16, influence=2.1, share=0.31,
    ...                effect=2.9, probability_without=0.41, decision_without=1, class_without="one")
    >>> print(to_text(graph))
    decision_7 seven: probability 0.93, then one 0.04; these words alone keep the decision
    conv
      conv_w003: 6 of 16 locations, carries 31 % of the log-odds (+2.1 nats); without it 2.9 nats less: 0.93 becomes
      0.41, and the network says one
    """
    check_graph(graph)
    wording, layer = wording_of(graph), None
    lines = []
    for key, node in graph.nodes(data=True):
        if node["layer"] == DECISION:
            contrast = f" rather than {node['contrast_name']}" if "contrast_name" in node else ""
            lines.append(f"{key} {node['class_name']}{contrast}: {'; '.join(wording.decision())}")
            continue
        if node["layer"] != layer:
            layer = node["layer"]
            lines.append(layer)
        name = f" {node['word_name']}" if "word_name" in node else ""
        place = f", here at row {node['row']}, column {node['column']}" if "row" in node else ""
        lines.append(f"  {key}{name}: {wording.locations(node)}{place}, {wording.word(node)}")
        heads = [head for head in graph.successors(key) if wording.names_root or head != graph.graph["root"]]
        lines += [f"    for {head}: {wording.edge(graph.edges[key, head])}" for head in heads]
    if len(graph) == 1:
        lines.append(f"  {wording.why_no_word()}")
    return "\n".join(lines)

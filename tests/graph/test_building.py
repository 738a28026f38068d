"""Graphs as networkx graphs."""

import networkx as nx


def test_graph_is_plain_and_travels(graph, words, tmp_path):
    explained = graph.explain(words[:2])[1]
    assert nx.is_directed_acyclic_graph(explained)
    for attributes in [*dict(explained.nodes(data=True)).values(), *(edge for *_, edge in explained.edges(data=True))]:
        assert {type(value) for value in attributes.values()} <= {int, float, str}
        assert not {"label", "name", "id", "value"} & set(attributes)
    for edge in explained.edges(data="frequency"):
        assert 0 < edge[2] <= 1
    nx.write_graphml(explained, tmp_path / "graph.graphml")
    assert nx.read_graphml(tmp_path / "graph.graphml").nodes.keys() == explained.nodes.keys()

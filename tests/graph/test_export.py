"""Round trips of graphs through files, and tables."""

import json
import sys
import time

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skgmmcnn import InferenceGraph
from skgmmcnn.graph import read_graph, to_frame, write_graph
from tests.graph.random_words import random_words

# pydot uses deprecated names of pyparsing.
pytestmark = pytest.mark.filterwarnings(
    "ignore:'.*' deprecated - use:DeprecationWarning", "ignore:Counts know little", "ignore:The counts of all words"
)

SUFFIXES = [".graphml", ".gexf", ".json", ".cyjs", ".dot"]
HOSTILE = [
    "\"quoted\" 'name'",
    "<script>alert(1)</script>",
    "line\nbreak\ttab",
    "ü☃𝄞 ,;{}[]->",
    "layer3",
    "\\N a\\",
    "&amp;",
]


def networkx_reads(file):
    """Read a file with networkx alone."""
    if file.suffix == ".json":
        return nx.node_link_graph(json.loads(file.read_text(encoding="utf-8")), edges="edges")
    if file.suffix == ".cyjs":
        return nx.cytoscape_graph(json.loads(file.read_text(encoding="utf-8")) | {"data": []})
    actual = {".graphml": nx.read_graphml, ".gexf": nx.read_gexf, ".dot": nx.nx_pydot.read_dot}[file.suffix](file)
    return nx.DiGraph(actual)  # of DOT some releases make a graph that may have several edges between two nodes


def stringed(graph):
    """Return a graph as DOT holds it: all numbers are text."""

    def text(attributes):
        return {n: json.dumps(v) if isinstance(v, (bool, int, float)) else v for n, v in attributes.items()}

    other = nx.DiGraph(**text(graph.graph))
    other.add_nodes_from((key, text(node)) for key, node in graph.nodes(data=True))
    other.add_edges_from((tail, head, text(edge)) for tail, head, edge in graph.edges(data=True))
    return other


def assert_survives(graph, file):
    write_graph(graph, file)
    again = read_graph(file)
    assert_equal(stringed(graph) if file.suffix == ".dot" else graph, again)


def assert_equal(first, second):
    assert list(first.nodes(data=True)) == list(second.nodes(data=True))
    assert {(a, b): e for a, b, e in first.edges(data=True)} == {(a, b): e for a, b, e in second.edges(data=True)}
    assert first.graph == second.graph
    for one, other in zip(first.nodes.values(), second.nodes.values(), strict=True):
        assert {name: type(value) for name, value in one.items()} == {name: type(v) for name, v in other.items()}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_inference_graphs_come_back(suffix, graph, words, tmp_path):
    explained = graph.explain(words[:1])[0]
    assert_survives(explained, tmp_path / f"graph{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_graphs_of_influence_come_back(suffix, influence_graph, words, tmp_path):
    explained = [*influence_graph.explain(words[:1]), influence_graph.explain_class(words, 4)]
    for number, graph in enumerate([*explained, *influence_graph.explain(words[:1], ("conv3", 1, 2))]):
        assert_survives(graph, tmp_path / f"{number}{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_networkx_reads_the_files(suffix, graph, words, tmp_path):
    explained = graph.explain(words[:1])[0]
    file = tmp_path / f"graph{suffix}"
    write_graph(explained, file)
    again = networkx_reads(file)
    assert set(again) == set(explained)
    assert set(again.edges()) == set(explained.edges())
    as_read = (lambda value: str(value).strip('"')) if suffix == ".dot" else (lambda value: value)
    for key, node in explained.nodes(data=True):
        assert {name: as_read(again.nodes[key][name]) for name in node} == {n: as_read(v) for n, v in node.items()}
    for tail, head, edge in explained.edges(data=True):
        actual = again.edges[tail, head]
        assert {n: as_read(actual[n]) for n in edge} == pytest.approx({n: as_read(v) for n, v in edge.items()})


def with_attributes(value, keys=("conv_w003", "decision_7")):
    graph = nx.DiGraph(n_images=2, extra=value)
    graph.add_node(keys[1], layer="decision", score=1.5, class_name="x", extra=value)
    graph.add_node(keys[0], layer="conv", count=3, word_name="y")
    graph.add_edge(keys[0], keys[1], log_ratio=1e-7, extra=value)
    return graph


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_hostile_names_survive(suffix, tmp_path):
    graph = nx.DiGraph(title=HOSTILE)
    for name in HOSTILE:
        graph.add_node(f"{name}_w003", layer=name, word=3, score=-1.5, word_name=name)
    for tail, head in zip(graph, list(graph)[1:], strict=False):
        graph.add_edge(tail, head, log_ratio=1e22, note=name)
    assert_survives(graph, tmp_path / f"graph{suffix}")
    assert len(networkx_reads(tmp_path / f"graph{suffix}")) == len(graph)


@pytest.mark.filterwarnings("ignore:Counts know little")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_hostile_class_names_survive(suffix, tmp_path):
    names = {("top", word): HOSTILE[word] for word in range(5)}
    named = random_words(1, names=names)
    explained = InferenceGraph(n_nodes=5).fit(named).explain_class(named, "layer3")
    assert_survives(explained, tmp_path / f"graph{suffix}")
    again = read_graph(tmp_path / f"graph{suffix}")
    assert {node["word_name"] for _, node in again.nodes(data=True) if "word_name" in node} & set(HOSTILE)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, deadline=None)
@given(value=plain | st.lists(plain, max_size=3) | st.sampled_from([*HOSTILE, "json:1", "", " a", "1", "true", "\r\n"]))
def test_any_value_survives(suffix, value, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / f"any{suffix}"
    assert_survives(with_attributes(value), file)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_become_plain(suffix, tmp_path):
    values = [(1, 2), np.array([[1.5, 2]]), np.float32(0.5), np.int64(3), np.bool_(True), (None, (np.nan,))]
    expected = [[1, 2], [[1.5, 2.0]], 0.5, 3, True]
    for value, plain in zip(values, expected, strict=False):
        write_graph(with_attributes(value), tmp_path / f"graph{suffix}")
        again = read_graph(tmp_path / f"graph{suffix}")
        kept = json.dumps(plain) if suffix == ".dot" and not isinstance(plain, list) else plain
        for actual in (again.graph, again.nodes["decision_7"], again.edges["conv_w003", "decision_7"]):
            assert actual["extra"] == kept
            assert type(actual["extra"]) is type(kept)
    write_graph(with_attributes(float("nan")), tmp_path / f"graph{suffix}")
    assert np.isnan(read_graph(tmp_path / f"graph{suffix}").nodes["decision_7"]["extra"])


def test_the_graph_does_not_change(tmp_path):
    graph = with_attributes((1, None))
    for suffix in SUFFIXES:
        write_graph(graph, tmp_path / f"graph{suffix}")
    assert_equal(graph, with_attributes((1, None)))


def test_files_are_strict_json(tmp_path):
    for suffix in (".json", ".cyjs"):
        write_graph(with_attributes([float("nan"), float("inf")]), tmp_path / f"graph{suffix}")
        json.loads((tmp_path / f"graph{suffix}").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_tables(graph, words):
    explained = graph.explain(words[:1])[0]
    nodes, edges = to_frame(explained)
    assert list(nodes.index) == list(explained)
    assert nodes.loc[list(explained)[1], "score"] == explained.nodes[list(explained)[1]]["score"]
    assert len(edges) == explained.number_of_edges()
    for row in edges.itertuples():
        assert explained.edges[row.source, row.target]["log_ratio"] == row.log_ratio
    assert list(to_frame(nx.DiGraph()).edges.columns) == ["source", "target"]


def test_tables_of_influence(influence_graph, words):
    (explained,) = influence_graph.explain(words[:1])
    nodes, edges = to_frame(explained)
    for key, node in list(explained.nodes.items())[1:]:
        assert nodes.loc[key, ["influence", "effect", "class_without"]].tolist() == [
            node["influence"], node["effect"], node["class_without"],
        ]  # fmt: skip
    for row in edges.itertuples():
        assert explained.edges[row.source, row.target] == {"flow": row.flow, "share": row.share, "effect": row.effect}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_large_graphs_take_seconds(suffix, tmp_path):
    keys = [f"conv_w{word:04d}" for word in range(1500)]
    graph = nx.path_graph(keys, nx.DiGraph)
    nx.set_node_attributes(graph, 0.5, "score")
    started = time.process_time()
    assert_survives(graph, tmp_path / f"graph{suffix}")
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("graph", "name", "error", "message"),
    [
        (nx.DiGraph(), "graph.txt", ValueError, r"The suffix is the format, \.graphml, .*graph.txt' has none"),
        (nx.DiGraph([(3, 4)]), "graph.json", TypeError, "keys of nodes must be strings; 3 is a int"),
        (nx.Graph(), "graph.json", TypeError, r"of class networkx\.DiGraph"),
        (nx.MultiDiGraph(), "graph.json", TypeError, r"of class networkx\.DiGraph"),
        (nx.DiGraph(extra=object()), "graph.json", TypeError, "'extra' is a object, which no file can hold"),
        *(
            (nx.DiGraph([("a\x01", "b")]), name, ValueError, r"XML cannot hold the node key 'a\\x01'. Rename")
            for name in ("graph.graphml", "graph.gexf")
        ),
    ],
)
def test_bad_graphs_are_named(graph, name, error, message, tmp_path):
    with pytest.raises(error, match=message):
        write_graph(graph, tmp_path / name)


def test_missing_pandas_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame needs pandas: pip install 'skgmmcnn\[export\]'"):
        to_frame(nx.DiGraph())


FOREIGN = [
    "id", "name", "value", "source", "target", "label", "key", "type", "weight", "rankdir", "x y", "json:", "node",
    "pos", "viz", "start", "for", "", "\x00", '"', "parents", "src", "obj_dict", "edge_default", "mode", "class",
]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", ["text", 5, 0.5, True, None, [1]])
def test_attributes_with_names_of_the_formats_survive_or_are_refused(suffix, value, tmp_path):
    refused = []
    for name in FOREIGN:
        for place in range(3):
            graph = with_attributes(1)
            [graph.graph, graph.nodes["conv_w003"], graph.edges["conv_w003", "decision_7"]][place][name] = value
            try:
                assert_survives(graph, tmp_path / f"graph{suffix}")
            except ValueError as error:
                refused.append(str(error))
            (tmp_path / f"graph{suffix}").unlink(missing_ok=True)
    assert 0 < len(refused) < 2 * len(FOREIGN)
    assert all(f"Files of form {suffix} cannot hold" in message for message in refused)


def test_a_refused_graph_leaves_the_file(tmp_path):
    graph = with_attributes(1)
    write_graph(graph, tmp_path / "graph.json")
    before = (tmp_path / "graph.json").read_bytes()
    graph.nodes["conv_w003"]["id"] = 5
    with pytest.raises(ValueError, match=r"json cannot hold 'id' of node 'conv_w003': .* rename it"):
        write_graph(graph, tmp_path / "graph.json")
    assert (tmp_path / "graph.json").read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_files_are_refused(suffix, tmp_path):
    file = tmp_path / f"graph{suffix}"
    contents = ["", "nothing", "[]", "{}", "5", "<a/>", "<graphml/>", "[" * 50_000, '{"nodes": 5, "edges": []}', "\x00",
                '{"data": {}, "elements": 5}', '{"nodes": [{"id": 5}], "edges": []}', "graph { a -- b }"]  # fmt: skip
    for content in [*(text.encode() for text in contents), b"\xff\xfe\xfa"]:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"graph\\{suffix}' holds no graph that write_graph has written"):
            read_graph(file)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_refused(suffix, tmp_path):
    file = tmp_path / f"graph{suffix}"
    write_graph(with_attributes([1]), file)
    file.write_bytes(
        file.read_bytes().replace(b"json:[1]", b"json:[1").replace(b"[1]", b"[1").replace(b"\n  1\n", b"\n")
    )
    whole = file.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 20)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="holds no graph"):
            read_graph(file)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_files_are_named(suffix, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_graph(tmp_path / f"nothing{suffix}")

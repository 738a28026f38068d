"""Graphs of influence against loops that run the whole network with hooks."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, LayerHMM
from skgmmcnn.dictionary import WordMaps
from skgmmcnn.graph._targets import targets_of
from skgmmcnn.graph._tracing import Tracer

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words")  # few images

LAYERS = ["conv1", "conv2", "conv3"]


class Net(nn.Module):
    """A fixed network with branches that join, and biases, so that a map of means is not without effect."""

    def __init__(self, n_outputs=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Tanh())
            self.left = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.Tanh())
            self.right = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1, stride=1), nn.Softplus())
            self.top = nn.Sequential(nn.Conv2d(10, 8, 3, padding=1, stride=2), nn.Tanh())
            self.head = nn.Linear(8 * 16, n_outputs)

    def forward(self, x):
        x = self.stem(x)
        y = torch.cat([self.left(x), self.right(x)], 1)
        return 3 * self.head(self.top(y).flatten(1))


class Branching(Net):
    def forward(self, x):
        return x if x.sum() > 1e9 else super().forward(x)


def images_of(n=40, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 1, 8, 8)).astype(np.float32)


def words_of(network, layers, images, n_words=5, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = FeatureExtractor(network, layers, preprocess=None, device="cpu", **options).fit(images)
        return make_pipeline(extractor, LayerDictionary(n_words, random_state=0, max_iter=20)).fit_transform(images)


NETWORK = Net().eval()
BRANCHES = ["stem", "left", "right", "top"]


@pytest.fixture(scope="module")
def branched():
    return words_of(NETWORK, BRANCHES, images_of())


def naive(network, images, edits):
    """Return outputs of the whole network with edited layers, and the activations of these layers before."""
    before = {}

    def hooked(name, change):
        def hook(module, inputs, result):
            before[name] = result.clone()
            return change(result.clone())

        return hook

    handles = [network.get_submodule(name).register_forward_hook(hooked(name, edit)) for name, edit in edits.items()]
    try:
        with torch.no_grad():
            return network(torch.as_tensor(images)), before
    finally:
        for handle in handles:
            handle.remove()


def baseline(words, layer):
    mixture = words.influence.mixtures[layer]
    return torch.from_numpy(mixture.weights_ @ mixture.emitted_means_).float()[:, None, None]


def log_odds(outputs, target, contrast=None):
    outputs = outputs.double()
    if contrast is not None:
        return outputs[:, target] - outputs[:, contrast]
    others = [c for c in range(outputs.shape[1]) if c != target]
    return outputs[:, target] - outputs[:, others].logsumexp(1)


def without(words, layer, image, word):
    shown = torch.from_numpy(words.words[layer][image].astype(int) == word)
    return lambda maps: torch.where(shown, baseline(words, layer), maps)


@pytest.mark.parametrize("contrast", [None, 1])
def test_effects_of_nodes_equal_a_loop_with_hooks(branched, contrast):
    images, some = images_of(), branched[:6]
    targets = some.decisions if contrast is None else np.full(6, 2)
    graphs = (
        InferenceGraph(n_nodes=2, n_against=1)
        .fit(branched)
        .explain(some, None if contrast is None else 2, contrast=contrast)
    )
    n_nodes = 0
    for i, graph in enumerate(graphs):
        full, _ = naive(NETWORK, images[i : i + 1], {})
        m = log_odds(full, targets[i], contrast)
        assert graph.graph["margin"] == pytest.approx(float(m), abs=1e-4)
        assert graph.graph["probability"] == pytest.approx(float(full.softmax(1)[0, targets[i]]), abs=1e-5)
        assert graph.graph["decision"] == int(full.argmax())
        for node in (node for _, node in graph.nodes(data=True) if node["layer"] != "decision"):
            outputs, _ = naive(
                NETWORK, images[i : i + 1], {node["layer"]: without(some, node["layer"], i, node["word"])}
            )
            assert node["effect"] == pytest.approx(float(m - log_odds(outputs, targets[i], contrast)), abs=1e-4)
            assert node["probability_without"] == pytest.approx(float(outputs.softmax(1)[0, targets[i]]), abs=1e-5)
            assert node["decision_without"] == int(outputs.argmax())
            assert node["effect"] * node["influence"] > 0
            n_nodes += 1
    assert n_nodes > 40


def test_effects_of_edges_equal_path_patching_with_hooks(branched):
    images, some = images_of(), branched[:4]
    n_edges = 0
    for i, graph in enumerate(InferenceGraph(n_nodes=2).fit(branched).explain(some)):
        one, target = images[i : i + 1], some.decisions[i]
        m = float(log_odds(naive(NETWORK, one, {})[0], target))
        clean = naive(NETWORK, one, {layer: lambda maps: maps for layer in BRANCHES})[1]
        for tail, head, edge in graph.edges(data=True):
            lower, upper = graph.nodes[tail], graph.nodes[head]
            if upper["layer"] == "decision":
                assert edge["effect"] == lower["effect"]
                assert edge["flow"] == lower["influence"]
                continue
            between = BRANCHES[BRANCHES.index(lower["layer"]) + 1 : BRANCHES.index(upper["layer"])]
            edits = {lower["layer"]: without(some, lower["layer"], i, lower["word"])}
            edits |= {layer: lambda _, held=clean[layer]: held for layer in between}
            patched = naive(NETWORK, one, edits | {upper["layer"]: lambda maps: maps})[1][upper["layer"]]
            at = torch.from_numpy(some.words[upper["layer"]][i].astype(int) == upper["word"])
            outputs, _ = naive(NETWORK, one, {upper["layer"]: lambda maps, at=at, p=patched: torch.where(at, p, maps)})
            assert edge["effect"] == pytest.approx(m - float(log_odds(outputs, target)), abs=1e-4)
            assert edge["effect"] * edge["flow"] > 0
            assert abs(edge["effect"]) > 0.02 * abs(upper["influence"])
            n_edges += 1
    assert n_edges > 20


def test_influences_add_up_to_the_margin_and_converge(branched):
    actual = branched.influence.of_classes(n_steps=4)
    images = torch.as_tensor(images_of())
    fine = branched.influence.of_classes(n_steps=200)
    for layer in BRANCHES:
        begin, _ = naive(NETWORK, images, {layer: lambda maps, layer=layer: baseline(branched, layer).expand_as(maps)})
        wanted = [float(log_odds(begin[i : i + 1], target)) for i, target in enumerate(branched.decisions)]
        np.testing.assert_allclose(actual.baselines[layer], wanted, atol=1e-4)
        sums, change = actual.maps[layer].sum((1, 2)), actual.margins - actual.baselines[layer]
        np.testing.assert_allclose(sums, change, atol=1e-3)
        assert fine.residuals[layer].max() < 1e-3  # the rule itself converges to the integral
        spread = np.abs(fine.maps[layer]).max()
        np.testing.assert_allclose(actual.maps[layer], fine.maps[layer], atol=0.15 * spread)


def test_transform_sums_influence_by_word(branched):
    graph = InferenceGraph().fit(branched)
    assert graph.evidence_ == "influence"
    actual, maps = graph.transform(branched), branched.influence.of_classes().maps
    columns = list(graph.get_feature_names_out())
    for layer in BRANCHES:
        for word in range(5):
            expected = (maps[layer] * (branched.words[layer] == word)).sum((1, 2))
            np.testing.assert_allclose(
                actual[:, columns.index(branched.vocabulary.key(layer, word))], expected, atol=1e-9
            )


def test_flows_and_background_add_up(branched):
    """The contribution of an upper word, to first order, is the sum of flows from words below and of the background."""
    graph = InferenceGraph(n_nodes=5).fit(branched)  # all words that speak for it
    words = branched[:5]
    question = graph._evidence(words)._question(targets_of(words))
    linear = {}

    def work(part):
        tracer = Tracer(words, words.influence, question, part)
        tracer.choose()
        for upper, lower in [("left", "stem"), ("right", "stem")]:
            for ranked in tracer.ranked(upper):
                linear[upper, len(linear)] = tracer.flows_into(upper, lower, ranked)

    list(words.influence.rerun(work))
    assert linear
    for flows, reached, rest in linear.values():
        np.testing.assert_allclose(flows.sum(1) + rest, reached, atol=1e-6)
    for one in graph.explain(words):
        for key, node in one.nodes(data=True):
            if node["layer"] in ("left", "right"):
                shares = sum(edge["share"] for *_, edge in one.in_edges(key, data=True))
                assert np.isfinite(node["background"])
                assert np.isfinite(shares)


def test_networks_that_branch_on_values_give_the_same(branched):
    images = images_of()
    branching = words_of(Branching().eval(), BRANCHES, images)
    for layer in BRANCHES:
        np.testing.assert_array_equal(branching.words[layer], branched.words[layer])
    first, second = (InferenceGraph(n_nodes=2).fit(words) for words in (branching, branched))
    np.testing.assert_allclose(first.transform(branching), second.transform(branched), atol=1e-4)
    for one, other in zip(first.explain(branching[:5]), second.explain(branched[:5]), strict=True):
        assert list(one.nodes) == list(other.nodes)
        for key, node in one.nodes(data=True):
            if "effect" in node:
                assert node["effect"] == pytest.approx(other.nodes[key]["effect"], abs=1e-4)


@pytest.mark.parametrize("target", [("top", 2, 1), ("top", 0)])
def test_words_are_explained_by_their_log_odds(branched, target):
    images, some = images_of(), branched[:8]
    graphs = InferenceGraph(n_nodes=2).fit(branched).explain(some, target)
    mixture = some.influence.mixtures["top"]
    n_effects = 0
    for i, graph in enumerate(graphs):
        shown = some.words["top"][i].astype(int)
        word = shown[2, 1] if len(target) == 3 else 0
        at = np.zeros(shown.shape, bool) if len(target) == 3 else shown == 0
        if len(target) == 3:
            at[2, 1] = True

        def measured(edits, i=i, at=at, word=word):
            values = naive(NETWORK, images[i : i + 1], {"top": lambda maps: maps, **edits})[1]["top"][0]
            rows = values[:, torch.from_numpy(at)].T.double()
            variances = torch.from_numpy(mixture.covariances_)
            means, weights = torch.from_numpy(mixture.means_), torch.from_numpy(mixture.weights_)
            log_p = -0.5 * (((rows[:, None] - means) ** 2) / variances + variances.log()).sum(2) + weights.log()
            log_p = log_p.log_softmax(1)
            others = log_p[:, [k for k in range(5) if k != word]].logsumexp(1)
            return float((log_p[:, word] - others).mean()) if len(rows) else 0.0

        m = measured({})
        root = graph.nodes[graph.graph["root"]]
        assert root["margin"] == pytest.approx(m, rel=1e-3, abs=1e-3)
        assert root["word"] == word
        assert all(node["layer"] != "decision" for _, node in graph.nodes(data=True))
        for key, node in graph.nodes(data=True):
            if key != graph.graph["root"]:
                fall = m - measured({node["layer"]: without(some, node["layer"], i, node["word"])})
                assert node["effect"] == pytest.approx(fall, rel=1e-2, abs=2e-2)
                n_effects += 1
    assert n_effects > 5


def test_together_means_over_images(branched):
    graph = InferenceGraph(n_nodes=2, random_state=0).fit(branched)
    target = int(np.bincount(branched.decisions).argmax())
    rows = np.flatnonzero(branched.decisions == target)
    actual = graph.explain_class(branched, target)
    totals = graph.transform(branched[rows])
    names = list(graph.get_feature_names_out())
    assert actual.graph["n_explained"] == len(rows)
    for key, node in actual.nodes(data=True):
        if node["layer"] == "decision":
            continue
        own = totals[:, names.index(key)]
        assert node["influence"] == pytest.approx(own.mean(), abs=1e-9)
        assert node["low"] <= own.mean() <= node["high"]
        assert 0 <= node["selected"] <= 1
        assert 0 <= node["changed"] <= 1
    few = InferenceGraph(n_nodes=2, max_images=4, random_state=0).fit(branched)
    one, again = (few.explain_class(branched, target) for _ in range(2))
    assert one.graph["n_explained"] == 4
    assert one.graph["n_images"] == len(rows)
    assert dict(one.nodes) == dict(again.nodes)


def test_the_most_salient_words_are_tried_first(branched):
    """Influence over the square root of the number of locations ranks words, not influence itself."""
    some = branched[:10]
    graph, every = (InferenceGraph(n_nodes=n).fit(branched) for n in (2, 5))
    totals, names = graph.transform(some), list(graph.get_feature_names_out())
    for i, (actual, whole) in enumerate(zip(graph.explain(some), every.explain(some), strict=True)):
        for layer in BRANCHES:
            keys = [some.vocabulary.key(layer, word) for word in range(5)]
            counts = np.bincount(some.words[layer][i].ravel(), minlength=5)
            saliences = totals[i, [names.index(key) for key in keys]] / np.sqrt(np.maximum(counts, 1))
            ranked = [keys[word] for word in np.argsort(-saliences, kind="stable") if saliences[word] > 1e-6]
            kept = {key for key, node in actual.nodes.items() if node["layer"] == layer}
            assert kept == set([key for key in ranked if key in whole][:2])


def test_enough_is_the_smallest_sufficient_number(branched):
    images, some = images_of(), branched[:10]
    graph = InferenceGraph(n_nodes="enough").fit(branched)
    totals, names = graph.transform(some), list(graph.get_feature_names_out())
    for i, actual in enumerate(graph.explain(some)):

        def decides(k, i=i):
            edits = {}
            for layer in BRANCHES:
                columns = [names.index(some.vocabulary.key(layer, word)) for word in range(5)]
                own = totals[i, columns]
                best = [word for word in np.argsort(-own, kind="stable")[:k] if own[word] > 1e-6]
                stays = torch.from_numpy(np.isin(some.words[layer][i], best))
                edits[layer] = lambda maps, stays=stays, layer=layer: torch.where(stays, maps, baseline(some, layer))
            return int(naive(NETWORK, images[i : i + 1], edits)[0].argmax())

        wanted = next((k for k in range(1, 21) if decides(k) == some.decisions[i]), None)
        assert actual.graph.get("enough") == wanted
        assert actual.graph["held"] == (wanted is not None)


def test_one_call_gives_what_calls_for_single_images_give(branched):
    graph = InferenceGraph(n_nodes=2).fit(branched)
    together = graph.explain(branched[:6])
    for i, actual in enumerate(together):
        (alone,) = graph.explain(branched[i])
        assert list(alone.nodes) == list(actual.nodes)
        for key, node in alone.nodes(data=True):
            for name in set(node) & {"influence", "effect"}:
                assert node[name] == pytest.approx(actual.nodes[key][name], abs=1e-4)


def test_the_handle_follows_rows_and_pickles(branched):
    rows = [3, 1]
    picked = branched[rows]
    expected = branched.influence.of_classes()
    for words in (picked, pickle.loads(pickle.dumps(picked))):
        assert len(words.influence) == 2
        actual = words.influence.of_classes()
        np.testing.assert_allclose(actual.margins, expected.margins[rows], atol=1e-5)
        np.testing.assert_allclose(actual.maps["top"], expected.maps["top"][rows], atol=1e-4)
    assert joblib.hash(branched) == joblib.hash(pickle.loads(pickle.dumps(branched)))


def test_held_and_stored_maps_ask_the_network(tmp_path):
    images = images_of()
    extractor = FeatureExtractor(NETWORK, ["top"], preprocess=None, device="cpu").fit(images)
    plain = extractor.transform(images)
    expected = None
    for maps in (plain, plain.compute(), plain.store(tmp_path), plain.compute()[::-1][::-1]):
        words = LayerDictionary(5, random_state=0).fit_transform(maps)
        actual = words.influence.of_classes().maps["top"]
        expected = actual if expected is None else expected
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_memory_short_of_a_batch_halves_it(branched, monkeypatch):
    """A device that cannot take more than three images at once gives the same."""
    graph = InferenceGraph(n_nodes=2).fit(branched)
    expected = graph.transform(branched[:8])
    from skgmmcnn.dictionary import Influence

    whole = Influence.attribute

    def short(self, part, *args):
        if len(part) > 3:
            raise torch.OutOfMemoryError
        return whole(self, part, *args)

    monkeypatch.setattr(Influence, "attribute", short)
    with pytest.warns(UserWarning, match="ran out of memory"):
        actual = graph.transform(branched[:8])
    np.testing.assert_allclose(actual, expected, atol=1e-4)


class NoGradient(Branching):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


class Tuple(Net):
    def forward(self, x):
        return super().forward(x), x


def test_words_without_a_network(branched):
    arrays = _arrays(branched)
    auto = InferenceGraph().fit(arrays)
    assert auto.evidence_ == auto.explain(arrays[:1])[0].graph["evidence"] == "counts"
    graph = InferenceGraph(evidence="influence")
    for call in (lambda: graph.fit(arrays), lambda: graph.fit(branched).explain(arrays[:1])):
        with pytest.raises(ValueError, match="no network, from which"):
            call()


def test_bad_targets(branched):
    graph = InferenceGraph().fit(branched)
    with pytest.raises(ValueError, match="is the class that is explained"):
        graph.explain(branched[:2], 1, contrast=1)
    with pytest.raises(ValueError, match="output"):
        graph.explain(branched[:2], 11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "at least 1"),
        ({"classes": [9] * 40}, "outputs 0 to 3; there is no output 9"),
        ({"classes": [1, 2]}, "one label per image"),
        ({"layers": ["bottom"]}, "no layer 'bottom'; there is 'stem'"),
    ],
)
def test_bad_input_of_influence_maps(branched, options, message):
    with pytest.raises(ValueError, match=message):
        branched.influence.of_classes(**options)


def _arrays(words):
    return WordMaps(words.words, words.decisions, words.spec, words.vocabulary)


@pytest.mark.filterwarnings("ignore:Effective receptive fields cannot be measured")
def test_networks_without_gradients_or_scores_are_named():
    images = images_of(20)
    words = words_of(NoGradient().eval(), ["top"], images)
    with pytest.raises(ValueError, match="has no gradient in this layer"):
        InferenceGraph().fit(words).explain(words[:1])
    names, decide = ["a", "b", "c", "d"], lambda outputs: outputs[0].argmax(1)
    words = words_of(Tuple().eval(), ["top"], images, decision=decide, class_names=names)
    with pytest.raises(ValueError, match="the network returns a tuple"):
        InferenceGraph().fit(words).explain(words[:1])
    words = words_of(NETWORK, ["top"], images, decision=lambda outputs: outputs.argmin(1), class_names=names)
    with pytest.raises(ValueError, match="which must be the class of the largest score"):
        InferenceGraph().fit(words).explain(words[:1])


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_two_classes(n_outputs):
    """One logit, and two of which the first is 0, are the same decision."""
    images = images_of(30)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.n_outputs = Net(1), n_outputs

        def forward(self, x):
            z = self.body(x)
            return z if self.n_outputs == 1 else torch.cat([torch.zeros_like(z), z], 1)

    words = words_of(Two().eval(), ["body.top"], images)
    actual = InferenceGraph(n_nodes=2).fit(words).explain(words[:5])
    with torch.no_grad():
        logits = Net(1)(torch.as_tensor(images[:5]))[:, 0].double()
    for logit, graph in zip(logits.tolist(), actual, strict=True):
        assert graph.graph["target"] == (logit > 0)
        assert graph.graph["margin"] == pytest.approx(abs(logit), abs=1e-5)


def test_chains_have_influence():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)).eval()
    rows = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    maps = FeatureExtractor(network, ["1", "3"], preprocess=None, device="cpu").fit_transform(rows)
    words = LayerHMM(4, random_state=0).fit_transform(maps)
    graph = InferenceGraph(n_nodes=1).fit(words).explain(words[0])[0]
    assert graph.graph["evidence"] == "influence"
    actual = words.influence.of_classes()
    for layer in ("1", "3"):
        change = actual.margins - actual.baselines[layer]
        np.testing.assert_allclose(actual.maps[layer].sum((1, 2)), change, atol=1e-4)


def test_evidence_counts_never_runs_the_network(words, graph, monkeypatch):
    def refuse(*args):
        raise AssertionError("the network ran")

    from skgmmcnn.dictionary import Influence

    monkeypatch.setattr(Influence, "rerun", refuse)
    graph.explain(words[:2])
    InferenceGraph(evidence="influence").fit(words).predict(words)

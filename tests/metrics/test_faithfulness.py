import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph
from skgmmcnn.metrics import faithfulness
from tests.metrics.naive import maps_of, run_with

LAYERS = ["conv2", "conv3"]


def naive_log_odds(network, pipe, image, words, kept, fill):
    """Ablate layer by layer with loops: what stays of an upper map is what the network made of what stayed below."""
    target = run_with(network, image, {}).argmax().item()
    changed = {}
    for layer, stays in kept.items():
        values = maps_of(network, image, layer, changed)
        mixture = pipe[1].mixtures_[layer]
        filling = torch.from_numpy(mixture.weights_ @ mixture.emitted_means_).float() * (fill == "mean")
        for row, column in np.ndindex(words[layer].shape):
            if words[layer][row, column] not in stays:
                values[0, :, row, column] = filling
        changed[layer] = values
    p = run_with(network, image, changed).double().softmax(1)[0, target].item()
    return np.log(p) - np.log1p(-p)


def kept_by(graph, layers):
    return {layer: {node["word"] for node in graph.nodes.values() if node["layer"] == layer} for layer in layers}


def everything(layers, n_words=12):
    return {layer: set(range(n_words)) for layer in layers}


@pytest.mark.parametrize(("by", "fill"), [("image", "mean"), ("class", "zero")])
def test_what_is_kept_equals_a_loop_with_hooks(either, test_images, by, fill):
    pipe = either
    result = faithfulness(pipe, test_images[:12], by=by, fill=fill, n_random=1, random_state=0)
    network, words = pipe[0].network_, pipe[:-1].transform(test_images[:12])
    graphs = pipe[2].explain(words)
    if by == "class":
        graphs = [pipe[2].explain_class(words, int(decision)) for decision in words.decisions]
    for circuit in [result.together, result.layers["conv2"], result.layers["conv3"]]:
        for i, image in enumerate(torch.from_numpy(test_images[:12])):

            def naive(kept, image=image[None, None], i=i):
                of_image = {layer: words.words[layer][i] for layer in LAYERS}
                return naive_log_odds(network, pipe, image, of_image, kept, fill)

            kept = kept_by(graphs[i], circuit.layers)
            complement = {layer: set(range(12)) - stays for layer, stays in kept.items()}
            close = {"rel": 1e-3, "abs": 1e-4}
            assert circuit.full[i] == pytest.approx(naive(everything(circuit.layers)), **close)
            assert circuit.empty[i] == pytest.approx(naive({layer: set() for layer in circuit.layers}), **close)
            assert circuit.graph[i] == pytest.approx(naive(kept), **close)
            assert circuit.complement[i] == pytest.approx(naive(complement), **close)
            columns = [np.isin(words.words[layer][i], list(stays)).mean() for layer, stays in kept.items()]
            assert circuit.graph_share[i] == pytest.approx(np.mean(columns))
    together = result.together
    expected = (together.graph.mean() - together.empty.mean()) / (together.full.mean() - together.empty.mean())
    assert result.faithfulness.value == pytest.approx(expected)


def test_curves_equal_a_loop_with_hooks(pipe, test_images, given_evidence):
    result = faithfulness(pipe, test_images[:6], orders=["graph", "per_location", "frequency"], random_state=0).together
    network, words = pipe[0].network_, pipe[:-1].transform(test_images[:6])
    evidence, counts = given_evidence(6), words.histogram()
    importance = {
        "graph": evidence / np.sqrt(np.maximum(counts, 1)),
        "per_location": evidence / np.maximum(counts, 1),
        "frequency": counts,
    }
    most = max(len(np.unique(words.words[layer][i])) for layer in LAYERS for i in range(6))
    assert result.n_words[-1] == most
    assert result.n_words[:-1].tolist() == [0, 1, 2, 4, 8][: len(result.n_words) - 1]
    for order, bits in importance.items():
        for i, image in enumerate(torch.from_numpy(test_images[:6])):
            of_image = {layer: words.words[layer][i] for layer in LAYERS}
            for step, n in enumerate(result.n_words):
                kept = {}
                for number, layer in enumerate(LAYERS):
                    present = sorted(set(of_image[layer].ravel().tolist()))
                    kept[layer] = set(sorted(present, key=lambda w: -bits[i, 12 * number + w])[:n])
                naive = naive_log_odds(network, pipe, image[None, None], of_image, kept, "mean")
                assert result.curves[order][i, step] == pytest.approx(naive, rel=1e-3, abs=1e-4)
                share = np.mean([np.isin(of_image[layer], list(kept[layer])).mean() for layer in LAYERS])
                assert result.shares[order][i, step] == pytest.approx(share)
    x, f = result.shares["graph"].mean(0), result.curve("graph")
    area = sum((x[i + 1] - x[i]) * (f[i] + f[i + 1]) / 2 for i in range(len(x) - 1))
    assert result.cpr("graph")[0] == pytest.approx(area_by_image(result), rel=0.1)
    assert (f[0], f[-1], x[0], x[-1]) == pytest.approx((0, 1, 0, 1))
    assert area == pytest.approx(result.cpr("graph")[0])


def area_by_image(circuit):
    """The area where each image has its own axis."""
    areas = np.trapezoid(circuit.curves["graph"] - circuit.empty[:, None], circuit.shares["graph"], axis=1)
    return areas.mean() / (circuit.full - circuit.empty).mean()


@pytest.mark.parametrize("by", ["image", "class"])
def test_nodes_equal_a_loop_with_hooks(pipe, test_images, by):
    result = faithfulness(pipe, test_images[:8], by=by, orders=[], random_state=0)
    network, words = pipe[0].network_, pipe[:-1].transform(test_images[:8])
    groups = [[i] for i in range(8)]
    if by == "class":
        groups = [np.flatnonzero(words.decisions == decision).tolist() for decision in np.unique(words.decisions)]
    for circuit in [result.together, result.layers["conv2"]]:
        expected = {}
        for rows in groups:
            (graph,) = (
                pipe[2].explain(words[rows])
                if by == "image"
                else [pipe[2].explain_class(words, int(words.decisions[rows[0]]))]
            )
            kept = kept_by(graph, circuit.layers)

            def naive(kept, rows=rows):
                values = []
                for i in rows:
                    of_image = {layer: words.words[layer][i] for layer in LAYERS}
                    image = torch.from_numpy(test_images[i : i + 1])[None]
                    values.append(naive_log_odds(network, pipe, image, of_image, kept, "mean"))
                return np.mean(values)

            for layer in circuit.layers:
                for word in kept[layer]:
                    expected[rows[0], layer, word] = naive(kept) - naive({**kept, layer: kept[layer] - {word}})
        nodes = {
            (image, layer, word): drops[image, word]
            for layer, drops in circuit.drops.items()
            for image, word in np.argwhere(~np.isnan(drops))
        }
        assert nodes.keys() == expected.keys()
        for node, drop in expected.items():
            assert nodes[node] == pytest.approx(drop, rel=1e-3, abs=1e-4)
        assert circuit.needed == np.mean(np.array(list(nodes.values())) > 1e-6)


def test_the_one_word_that_is_used_is_faithful_and_all_others_are_not(one_channel):
    pipe, images = one_channel
    pipe = pipe.set_params(inferencegraph__n_nodes=1)
    result = faithfulness(pipe, images[::2], fill="zero", random_state=0)
    assert result.faithfulness.value == pytest.approx(1)
    assert result.together.faithfulness(result.together.complement)[0] == pytest.approx(0, abs=1e-6)
    assert result.together.needed == 1
    assert (~np.isnan(result.together.drops["look"])).sum() == 30
    assert result.layers["look"] is result.together
    cpr, low, high = result.together.cpr()
    # The word takes 4 of 36 columns: F rises to 1 on them and stays.
    assert cpr == pytest.approx(1 - 2 / 36) == pytest.approx(low) == pytest.approx(high)
    assert result.together.cpr("frequency")[0] < 0.3 < result.together.cpr("random")[0] < 0.9
    assert result.together.faithfulness(result.together.size_matched["frequency"])[0] == pytest.approx(0, abs=1e-6)
    pipe.set_params(inferencegraph__n_nodes=3)


def test_images_for_which_nothing_is_at_stake_are_counted_and_have_no_say(one_channel):
    pipe, images = one_channel
    result = faithfulness(pipe, images, fill="zero", random_state=0)  # half of them do not show the one channel
    assert result.n_undefined == 30
    assert result.faithfulness.value == pytest.approx(1)
    nothing = faithfulness(pipe, images[1::2], fill="zero", random_state=0)
    assert np.isnan([nothing.faithfulness.value, nothing.together.cpr().value]).all()
    assert nothing.n_undefined == 30
    assert np.isnan([row.value for row in nothing.measurements()[:9]]).all()
    assert nothing.measurements()[-1].value == 30


class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.look = nn.Identity()

    def forward(self, x):
        return 10 * self.look(x)[:, :1].amax((2, 3)) - 5


def test_a_single_output(one_channel):
    pipe, images = one_channel
    maps = FeatureExtractor(Single(), ["look"], preprocess=None, batch_size=16, device="cpu").fit_transform(images)
    dictionary = clone(pipe[1])
    graph = InferenceGraph(1).fit(dictionary.fit_transform(maps))
    result = faithfulness(
        type(pipe)([("words", dictionary), ("graph", graph)]),
        maps[::2],
        fill="zero",
        random_state=0,
    )
    assert result.together.full == pytest.approx(5)
    assert result.together.empty == pytest.approx(-5)
    assert result.faithfulness.value == pytest.approx(1)


def test_columns_of_other_images_repeat(pipe, test_images):
    options = {"layers": ["conv3"], "fill": "resample", "n_random": 1}
    results = [faithfulness(pipe, test_images[:9], random_state=3, **options) for _ in range(2)]
    np.testing.assert_array_equal(*[result.together.graph for result in results])
    assert str(results[0]) == str(results[1])
    other = faithfulness(pipe, test_images[:9], random_state=4, **options)
    assert (other.together.graph != results[0].together.graph).any()


def test_the_result_does_not_depend_on_the_batch_size(digits, pipe, test_images):
    one = faithfulness(pipe, test_images, orders=["graph"], random_state=0)
    extractor = FeatureExtractor(digits.network, LAYERS, batch_size=7, device="cpu").fit(digits.images[:300])
    maps = extractor.transform(test_images)
    other = faithfulness(make_pipeline(*pipe[1:]), maps, orders=["graph"], random_state=0)
    np.testing.assert_allclose(one.together.graph, other.together.graph, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(one.together.curves["graph"], other.together.curves["graph"], rtol=1e-3, atol=1e-4)


def test_graphs_keep_more_than_other_words_with_as_many_columns(pipe, test_images):
    result = faithfulness(pipe, test_images, layers=["conv3"], random_state=0)
    circuit = result.together
    assert circuit.faithfulness(circuit.graph)[0] > circuit.faithfulness(circuit.size_matched["random"])[0] + 0.05
    assert circuit.cpr("graph")[0] > circuit.cpr("random")[0]
    first, *others = result.measurements()
    assert (first.measure, first.where, first.good) == ("faithfulness (mean)", "conv3", "near 1, above random")
    assert first.low < first.value < first.high
    assert first.measure not in [each.measure for each in others]
    ax = result.plot()
    assert [line.get_label() for line in ax.lines][:4] == ["graph", "per_location", "frequency", "random"]
    assert (
        faithfulness(pipe, test_images[:5], orders=["graph"], random_state=0).plot(layer="conv2").get_title()
        == "Kept in conv2 (mean)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": []}, "layers is empty; choose from 'conv2', 'conv3'"),
        ({"orders": ["gradient"]}, "orders must be among 'graph', .*got 'gradient'"),
        ({"by": "word"}, "by must be 'image' or 'class'"),
        ({"fill": "noise"}, "fill must be one of 'mean', 'zero', 'resample'"),
        ({"n_random": 0}, "n_random must be at least 1; got 0"),
    ],
)
def test_bad_input(pipe, test_images, options, message):
    with pytest.raises(ValueError, match=message):
        faithfulness(pipe, test_images, **options)

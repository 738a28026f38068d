"""Pipelines on published networks and images; skipped without them."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import Pipeline
from torch import nn
from torchvision import transforms
from torchvision.models import SqueezeNet1_1_Weights

from skgmmcnn import (
    FeatureExtractor,
    InferenceGraph,
    InferenceGraphDisplay,
    LayerDictionary,
    LayerHMM,
    TrainingDisplay,
    VisualWordDisplay,
    WordMapDisplay,
    WordSimilarityDisplay,
    to_text,
)
from skgmmcnn.metrics import completeness, deletion
from tests.plot.readable import assert_readable


def test_words_of_a_residual_network_agree_with_it(data):
    train, _, names = data.cifar10("train")
    test, labels, _ = data.cifar10("test")
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    pipe = Pipeline(
        [
            ("features", FeatureExtractor(data.cifar_resnet20(), ["layer3"], preprocess=preprocess, class_names=names)),
            ("words", LayerDictionary(200, random_state=0)),
            ("graph", InferenceGraph()),
        ]
    ).fit(train)
    words = pipe[:-1].transform(test)
    assert (words.decisions == labels).mean() == pytest.approx(0.917, abs=0.002)
    assert pipe["graph"].score(words) >= 0.955


def test_the_network_uses_what_graphs_show(data):
    """Deletion in the graph's order beats random and frequency order; the network goes on from words' means."""
    train, _, names = data.cifar10("train")
    test, _, _ = data.cifar10("test")
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    extractor = FeatureExtractor(data.cifar_resnet20(), ["layer2", "layer3"], preprocess=preprocess, class_names=names)
    words = LayerDictionary(100, random_state=0, max_samples=50_000, keep_patches=False)
    pipe = Pipeline([("features", extractor), ("words", words), ("graph", InferenceGraph())]).fit(train[:1500])
    held = pipe["features"].transform(test[:300]).compute()
    for layer, most in (("layer3", 0.65), ("layer2", 0.5)):
        orders = ["per_location", "graph", "frequency", "random"]
        curves = deletion(pipe, held, layer, orders=orders, random_state=0)
        assert curves.ratio("per_location").high < most
        assert curves.ratio("graph")[0] < curves.ratio("frequency")[0] - 0.2
    found = completeness(pipe, held)
    assert found.accuracy[0] > 0.7  # layer2
    assert found.accuracy[1] > 0.94


def test_why_a_wrong_decision_was_not_the_right_one(data):
    """Without the words of a contrast graph the network prefers its decision less, and some decisions turn."""
    images, labels, names = data.cifar10("test")
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    extractor = FeatureExtractor(data.cifar_resnet20(), ["layer2", "layer3"], preprocess=preprocess, class_names=names)
    maps = extractor.fit_transform(images[:700])
    words = LayerDictionary(60, random_state=0, max_samples=20_000).fit_transform(maps)
    graph = InferenceGraph(2, random_state=0).fit(words)
    wrong = np.flatnonzero(words.decisions != labels[:700])
    assert len(wrong) > 30
    turned = 0
    for image in wrong[:20].tolist():
        (explained,) = graph.explain(words[image], contrast=int(labels[image]))
        assert explained.graph["margin"] > 0
        shown = [node for _, node in explained.nodes(data=True) if node["layer"] != "decision"]
        assert all(node["effect"] > 0 and node["influence"] > 0 for node in shown)
        turned += any(node["decision_without"] != explained.graph["target"] for node in shown)
    assert turned > 5
    of_class = [graph.explain_class(words, name) for name in names]
    assert all(explained.number_of_edges() > 2 for explained in of_class)
    kept = [node["selected"] for explained in of_class for node in list(explained.nodes.values())[1:]]
    assert np.median(kept) > 0.3


# The folder's own reader leaves its tables open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_road_on_image_files(data):
    paths, labels, names = data.imagenet()
    pipe = Pipeline(
        [
            (
                "features",
                FeatureExtractor(
                    data.squeezenet(),
                    ["features.7", "features.9", "features.12"],
                    preprocess=SqueezeNet1_1_Weights.DEFAULT.transforms(),
                    class_names=names,
                ),
            ),
            ("words", LayerDictionary(20, random_state=0, max_samples=5000)),
            ("graph", InferenceGraph()),
        ]
    ).fit(paths[:40], labels[:40])
    words = pipe[:-1].transform(paths[:3])
    assert words.words["features.7"].shape == (3, 27, 27)
    (text,) = {to_text(graph) for graph in pipe["graph"].explain(words[:1])}
    assert names[words.decisions[0]] in text
    display = InferenceGraphDisplay.from_estimator(pipe["graph"], words, image=1)
    assert np.ptp(display.ax_.images[0].get_array()) > 100
    assert_readable(display.figure_)
    graph = display.graph
    chosen = [key for key in graph if key != graph.graph["root"]]
    assert_readable(WordMapDisplay.from_estimator(pipe, paths[:3], image=1, graph=graph).figure_)
    assert_readable(VisualWordDisplay.from_estimator(pipe, chosen, n_patches=9).figure_)
    assert_readable(TrainingDisplay.from_estimator(pipe).figure_)


def test_words_of_one_class_are_told_from_others_layer_by_layer(data):
    images, _, names = data.cifar10("train")
    others, _, _ = data.cifar10("test")
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    extractor = FeatureExtractor(
        data.cifar_resnet20(), ["layer1", "layer2", "layer3"], preprocess=preprocess, class_names=names
    )
    pipe = Pipeline([("features", extractor), ("words", LayerDictionary(50, random_state=0, max_samples=20_000))])
    display = WordSimilarityDisplay.from_estimator(pipe.fit(images[:500]), others[:500], random_state=0)
    gaps = [found.within - found.between for found in display.by_class.values()]
    assert gaps[0] < gaps[2] - 0.2
    assert display.by_class["layer3"].p_value < 0.01
    assert display.by_mean["layer3"].p_value < 0.01
    assert display.spread["layer3"].n_distinct > 10
    assert display.spread["layer3"].autocorrelation > 0.15


def test_a_chain_predicts_a_perceptron(data):
    """784-256-128-64-10 on MNIST: the words of the hidden layers tell the decision."""
    x_train, y_train, x_test, y_test = data.mnist()
    images, tests = ((x / 255).astype("float32")[:, None] for x in (x_train, x_test))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()),
            *(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
        )
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        inputs, targets = torch.from_numpy(images), torch.from_numpy(y_train.astype("int64"))
        for _ in range(5):
            for rows in torch.randperm(len(inputs)).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
                optimizer.step()
    extractor = FeatureExtractor(network.eval(), ["2", "4", "6"], preprocess=None, batch_size=256)
    hmm = LayerHMM(60, tol=0.01, random_state=0).fit(extractor.fit_transform(images).compute())
    held_out = extractor.transform(tests).compute()
    decisions = held_out.outputs.argmax(1)
    assert (decisions == y_test).mean() > 0.93
    assert (hmm.predict(held_out) == decisions).mean() >= 0.95

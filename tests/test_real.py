"""Pipelines on published networks and images; skipped without them."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
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


@pytest.fixture(scope="module")
def cifar_extractor(data):
    """Function that returns an extractor of layers of a ResNet20."""
    _, _, names = data.cifar10("test")
    normalize = transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)
    preprocess = transforms.Compose([transforms.ToTensor(), normalize])
    return lambda *layers: FeatureExtractor(data.cifar_resnet20(), layers, preprocess=preprocess, class_names=names)


def test_words_of_a_residual_network_agree_with_it(data, cifar_extractor):
    train, _, _ = data.cifar10("train")
    test, labels, _ = data.cifar10("test")
    words = LayerDictionary(200, random_state=0)
    pipe = make_pipeline(cifar_extractor("layer3"), words, InferenceGraph()).fit(train)
    words = pipe[:-1].transform(test)
    assert (words.decisions == labels).mean() == pytest.approx(0.917, abs=0.002)
    assert pipe[-1].score(words) >= 0.955


def test_the_network_uses_the_words_of_graphs(data, cifar_extractor):
    """Deletion in the graph's order is better than by chance or frequency; means of words preserve decisions."""
    train, _, _ = data.cifar10("train")
    test, _, _ = data.cifar10("test")
    words = LayerDictionary(100, random_state=0, max_samples=50_000, keep_patches=False)
    pipe = make_pipeline(cifar_extractor("layer2", "layer3"), words, InferenceGraph()).fit(train[:1500])
    maps = pipe[0].transform(test[:300]).compute()
    for layer, largest in (("layer3", 0.65), ("layer2", 0.5)):
        orders = ["per_location", "graph", "frequency", "random"]
        curves = deletion(pipe, maps, layer, orders=orders, random_state=0)
        assert curves.ratio("per_location").high < largest
        assert curves.ratio("graph")[0] < curves.ratio("frequency")[0] - 0.2
    result = completeness(pipe, maps)
    assert result.accuracy[0] > 0.7  # layer2
    assert result.accuracy[1] > 0.94


def test_contrasts_of_wrong_decisions(data, cifar_extractor):
    """Each word of a contrast supports the decision, and some decisions change without one."""
    images, labels, names = data.cifar10("test")
    maps = cifar_extractor("layer2", "layer3").fit_transform(images[:700])
    words = LayerDictionary(60, random_state=0, max_samples=20_000).fit_transform(maps)
    graph = InferenceGraph(2, random_state=0).fit(words)
    wrong = np.flatnonzero(words.decisions != labels[:700])
    assert len(wrong) > 30
    n_changed = 0
    for image in wrong[:20].tolist():
        (explained,) = graph.explain(words[image], contrast=int(labels[image]))
        assert explained.graph["margin"] > 0
        nodes = [node for node in explained.nodes.values() if node["layer"] != "decision"]
        assert all(node["effect"] > 0 and node["influence"] > 0 for node in nodes)
        n_changed += any(node["decision_without"] != explained.graph["target"] for node in nodes)
    assert n_changed > 5
    class_graphs = [graph.explain_class(words, name) for name in names]
    assert all(explained.number_of_edges() > 2 for explained in class_graphs)
    selected = [node["selected"] for explained in class_graphs for node in list(explained.nodes.values())[1:]]
    assert np.median(selected) > 0.3


# The folder's own reader leaves its tables open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_pipeline_on_image_files(data):
    paths, labels, names = data.imagenet()
    extractor = FeatureExtractor(
        data.squeezenet(),
        ["features.7", "features.9", "features.12"],
        preprocess=SqueezeNet1_1_Weights.DEFAULT.transforms(),
        class_names=names,
    )
    words = LayerDictionary(20, random_state=0, max_samples=5000)
    pipe = make_pipeline(extractor, words, InferenceGraph()).fit(paths[:40], labels[:40])
    words = pipe[:-1].transform(paths[:3])
    assert words.words["features.7"].shape == (3, 27, 27)
    (text,) = {to_text(graph) for graph in pipe[-1].explain(words[:1])}
    assert names[words.decisions[0]] in text
    display = InferenceGraphDisplay.from_estimator(pipe[-1], words, image=1)
    assert np.ptp(display.ax_.images[0].get_array()) > 100
    assert_readable(display.figure_)
    graph = display.graph
    keys = [key for key in graph if key != graph.graph["root"]]
    assert_readable(WordMapDisplay.from_estimator(pipe, paths[:3], image=1, graph=graph).figure_)
    assert_readable(VisualWordDisplay.from_estimator(pipe, keys, n_patches=9).figure_)
    assert_readable(TrainingDisplay.from_estimator(pipe).figure_)


def test_words_of_higher_layers_depend_on_the_class(data, cifar_extractor):
    images, _, _ = data.cifar10("train")
    others, _, _ = data.cifar10("test")
    words = LayerDictionary(50, random_state=0, max_samples=20_000)
    pipe = make_pipeline(cifar_extractor("layer1", "layer2", "layer3"), words).fit(images[:500])
    display = WordSimilarityDisplay.from_estimator(pipe, others[:500], random_state=0)
    gaps = [similarity.within - similarity.between for similarity in display.by_class.values()]
    assert gaps[0] < gaps[2] - 0.2
    assert display.by_class["layer3"].p_value < 0.01
    assert display.by_mean["layer3"].p_value < 0.01
    assert display.spread["layer3"].n_distinct > 10
    assert display.spread["layer3"].autocorrelation > 0.15


def test_a_chain_predicts_a_perceptron(data):
    """784-256-128-64-10 on MNIST: the words of the hidden layers predict the decision."""
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

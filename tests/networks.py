"""Small networks for tests, their images and words, and their outputs with edited layers."""

import warnings
from collections import OrderedDict

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn
from torchvision.models.vgg import make_layers

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.dictionary import WordMaps


class Net(nn.Module):
    """A fixed network with joining branches, and with biases, so that a map of means has an effect."""

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
    """The same, with control flow that depends on values, so that it cannot be traced."""

    def forward(self, x):
        return x if x.sum() > 1e9 else super().forward(x)


NETWORK = Net().eval()
BRANCHES = ["stem", "left", "right", "top"]


class NoGradient(Branching):
    """The same without gradients."""

    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


class Tuple(Net):
    """A network with two outputs."""

    def forward(self, x):
        return super().forward(x), x


def images_of(n=40, seed=0):
    """Return random images for `Net`."""
    return np.random.default_rng(seed).normal(size=(n, 1, 8, 8)).astype(np.float32)


def words_of(network, layers, images, n_words=5, **options):
    """Return the words of a pipeline that is fitted to the images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = FeatureExtractor(network, layers, preprocess=None, device="cpu", **options).fit(images)
        return make_pipeline(extractor, LayerDictionary(n_words, random_state=0, max_iter=20)).fit_transform(images)


def without_network(words):
    """Return word maps without their network."""
    return WordMaps(words.words, words.decisions, words.spec, words.vocabulary)


def run_edited(network, images, edits):
    """Return the outputs of a network with edited layers, and the unedited activations of these layers."""
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


def log_odds(outputs, target, contrast=None):
    """Return the log-odds of a target, or its lead over another output."""
    outputs = outputs.double()
    if contrast is not None:
        return outputs[:, target] - outputs[:, contrast]
    others = [c for c in range(outputs.shape[1]) if c != target]
    return outputs[:, target] - outputs[:, others].logsumexp(1)


def baseline(words, layer):
    """Return the mean activations of a layer."""
    mixture = words.influence.mixtures[layer]
    return torch.from_numpy(mixture.weights_ @ mixture.emitted_means_).float()[:, None, None]


def crops(photograph, n, size=256):
    """Return n square pieces of a photograph of scikit-learn, along its diagonal."""
    image = load_sample_image(photograph)
    height, width = image.shape[:2]
    corners = np.linspace((0, 0), (height - size, width - size), n).astype(int)
    return [image[top : top + size, left : left + size] for top, left in corners]


def small_resnet():
    """Return layers with the names and map sizes of a ResNet50, and few channels."""
    parts, channels = OrderedDict(), 3
    for name, width, stride in [("stem", 8, 8), ("layer2", 12, 1), ("layer3", 16, 2), ("layer4", 24, 2)]:
        parts[name] = nn.Sequential(nn.Conv2d(channels, width, 2 * stride + 1, stride, stride), nn.ReLU())
        channels = width
    return nn.Sequential(parts)


def small_vgg():
    """Return layers with the names and map sizes of a VGG16, and few channels."""
    stages = [(4, 2), (8, 2), (12, 3), (16, 3), (24, 3)]
    plan = [item for width, repeats in stages for item in (*[width] * repeats, "M")]
    return nn.Sequential(OrderedDict(features=make_layers(plan)))


def trained_on_photographs(body, weights):
    """Return a network with the classes of ImageNet that tells flowers, "pineapple", from temples, "swing"."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):  # so that activations of thirteen layers do not vanish
            nn.init.kaiming_normal_(module.weight)
    preprocess, names = weights.transforms(), weights.meta["categories"]
    images = {"pineapple": crops("flower.jpg", 8), "swing": crops("china.jpg", 8)}
    with torch.no_grad():
        batch = torch.stack([preprocess(Image.fromarray(image)) for part in images.values() for image in part])
        means = body(batch).mean((2, 3))
    classifier = LogisticRegression(C=1e4).fit(means, np.repeat([names.index(name) for name in images], 8))
    head = nn.Linear(means.shape[1], len(names))
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, -1e3)
    for sign, row in zip((-1, 1), classifier.classes_, strict=True):
        head.weight.data[row] = sign * torch.from_numpy(classifier.coef_[0]).float()
        head.bias.data[row] = sign * float(classifier.intercept_[0])
    return nn.Sequential(
        OrderedDict(
            [*body.named_children(), ("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", head)]
        )
    )

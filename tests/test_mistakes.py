"""Mistakes that are easily made: each is an error of the fitting kind that names cause and remedy, none is accepted."""

import networkx as nx
import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from skgmmcnn import (
    DiagonalGaussianMixture,
    InferenceGraph,
    InferenceGraphDisplay,
    LayerDictionary,
    LayerHMM,
    VisualWordDisplay,
    WordSimilarityDisplay,
    to_text,
)
from skgmmcnn.features import maps_of_arrays
from skgmmcnn.graph import compare_graphs, typicality
from skgmmcnn.metrics import fidelity

ROWS = np.random.default_rng(0).normal(size=(40, 6))
DENSE = maps_of_arrays({"a": ROWS})
FOREIGN = nx.DiGraph([(1, 2)])


class Made:
    """What mistakes are made with."""

    def __init__(self, maps, words, graph):
        self.maps, self.words, self.graph = maps, words, graph

    @property
    def dictionary(self):
        return LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=0).fit(self.maps)

    @property
    def explained(self):
        return self.graph.explain(self.words[0])[0]


@pytest.fixture
def made(maps, words, graph):
    return Made(maps, words, graph)


def named(names):
    return lambda made: LayerDictionary(2, word_names={("a", 0): names}, random_state=0).fit(DENSE)


MISTAKES = {
    "words to a dictionary": (lambda m: LayerDictionary().fit(m.words), TypeError, "X is WordMaps.*expected FeatureM"),
    "words to a chain": (lambda m: LayerHMM().fit(m.words), TypeError, "X is WordMaps.*expected FeatureM"),
    "fit to none": (lambda m: LayerDictionary().fit(m.maps[[]]), ValueError, "X holds no images"),
    "measure none": (lambda m: fidelity(m.dictionary, m.maps[[]]), ValueError, "no images in these FeatureMaps"),
    "masked rows": (lambda m: LayerDictionary().fit(np.ma.masked_less(ROWS, 0)), TypeError, r"X\.filled\(value\)"),
    "masked rows of a mixture": (
        lambda m: DiagonalGaussianMixture().fit(np.ma.masked_less(ROWS, 0)),
        TypeError,
        r"X\.filled\(value\)",
    ),
    "complex rows": (
        lambda m: DiagonalGaussianMixture().fit(torch.ones(4, 2, dtype=torch.complex64)),
        ValueError,
        "Complex data not supported",
    ),
    "samples by name": (
        lambda m: DiagonalGaussianMixture().fit(ROWS).sample("a"),
        ValueError,
        "an integer .* got 'a'",
    ),
    **{
        f"too many samples of a {kind.__name__}": (
            lambda m, kind=kind: kind(2, random_state=0).fit(ROWS).sample(10**12),
            MemoryError,
            "rows of 6 channels take 48,000 GB, which do not fit into memory; draw fewer at a time",
        )
        for kind in (DiagonalGaussianMixture, LayerHMM)
    },
    "True words": (lambda m: LayerDictionary(True).fit(m.maps), ValueError, "'n_components' parameter .* Got True"),
    "True nodes": (lambda m: InferenceGraph(n_nodes=True).fit(m.words), ValueError, "'n_nodes' parameter .* Got True"),
    "a name that is a number": (named(5), TypeError, r"word_names has the name 5 for .*names must be str"),
    "a name that is none": (named(None), TypeError, "names must be str"),
    "labels of halves": (lambda m: LayerHMM(2).fit(ROWS, np.full(40, 0.5)), ValueError, "continuous"),
    "merge with itself": (lambda m: m.graph.merge(m.graph), ValueError, "the same estimator, counted already"),
    **{
        f"level {level}": (
            lambda m, level=level: typicality(m.graph, m.words[:2], m.words, level=level),
            ValueError,
            f"level is a probability above 0 and below 1; got {level}",
        )
        for level in (0, 2, float("nan"))
    },
    **{
        f"tolerance {tolerance}": (
            lambda m, tolerance=tolerance: compare_graphs(m.explained, m.explained, tolerance=tolerance),
            ValueError,
            f"tolerance is a share .* got {tolerance}",
        )
        for tolerance in (-1, float("nan"))
    },
    "no permutations": (
        lambda m: WordSimilarityDisplay.from_estimator(m.dictionary, m.maps, n_permutations=0),
        ValueError,
        "n_permutations must be at least 1",
    ),
    "image True": (
        lambda m: InferenceGraphDisplay.from_estimator(m.graph, m.words, image=True),
        TypeError,
        "An image is a number",
    ),
    "words that are a number": (
        lambda m: VisualWordDisplay.from_estimator(make_pipeline(m.dictionary), 5),
        ValueError,
        "There is no word 5",
    ),
    "a word that is a number": (
        lambda m: VisualWordDisplay.from_estimator(make_pipeline(m.dictionary), [5]),
        ValueError,
        "There is no word 5",
    ),
    **{
        f"{what}, {kind}": (ask, ValueError, "An inference graph is needed, as InferenceGraph.explain returns it")
        for kind, given in {"foreign": FOREIGN, "empty": nx.DiGraph(), "none": None}.items()
        for what, ask in {
            "text": lambda m, given=given: to_text(given),
            "comparison": lambda m, given=given: compare_graphs(given, m.explained),
        }.items()
    },
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_raise_named_errors(mistake, made):
    make, error, message = MISTAKES[mistake]
    with pytest.raises(error, match=message):
        make(made)


def test_words_of_no_images_can_be_counted(words):
    assert words[[]].histogram().shape == (0, 36)

"""Common mistakes: each raises an error that names cause and remedy."""

from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch

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
from skgmmcnn.graph import compare_graphs, typicality
from skgmmcnn.metrics import fidelity

ROWS = np.random.default_rng(0).normal(size=(40, 6))
MASKED = np.ma.masked_less(ROWS, 0)
COMPLEX = torch.ones(4, 2, dtype=torch.complex64)
NAN = float("nan")
FOREIGN = nx.DiGraph([(1, 2)])


@pytest.fixture
def given(maps, words, graph, digits_dictionary, pipe):
    """Fitted estimators and their input."""
    explained = graph.explain(words[0])[0]
    return SimpleNamespace(
        maps=maps, words=words, graph=graph, dictionary=digits_dictionary, pipe=pipe, explained=explained
    )


def named(name):
    return LayerDictionary(2, word_names={("dense", 0): name}, random_state=0).fit(ROWS)


def typical(given, level):
    return typicality(given.graph, given.words[:2], given.words, level=level)


def similar(given, n_permutations):
    return WordSimilarityDisplay.from_estimator(given.dictionary, given.maps, n_permutations=n_permutations)


MAPS_EXPECTED = "X is WordMaps.*expected FeatureM"
FILLED = r"X\.filled\(value\)"
MEMORY = "rows of 6 channels take 48,000 GB, which do not fit into memory; draw fewer at a time"
GRAPH_EXPECTED = "An inference graph is needed, as InferenceGraph.explain returns it"
LEVEL = "level is a probability above 0 and below 1; got "
TOLERANCE = "tolerance is a share .* got "
NO_WORD = "There is no word 5"

MISTAKES = {
    # Input of another kind
    "dictionary of words": (lambda g: LayerDictionary().fit(g.words), TypeError, MAPS_EXPECTED),
    "chain of words": (lambda g: LayerHMM().fit(g.words), TypeError, MAPS_EXPECTED),
    "dictionary of no images": (lambda g: LayerDictionary().fit(g.maps[[]]), ValueError, "X holds no images"),
    "measure of no images": (lambda g: fidelity(g.pipe, g.maps[[]]), ValueError, "no images in these FeatureMaps"),
    "masked rows": (lambda g: LayerDictionary().fit(MASKED), TypeError, FILLED),
    "masked rows of a mixture": (lambda g: DiagonalGaussianMixture().fit(MASKED), TypeError, FILLED),
    "complex rows": (lambda g: DiagonalGaussianMixture().fit(COMPLEX), ValueError, "Complex data not supported"),
    "continuous labels": (lambda g: LayerHMM(2).fit(ROWS, np.full(40, 0.5)), ValueError, "continuous"),
    "merge with itself": (lambda g: g.graph.merge(g.graph), ValueError, "the same estimator, counted already"),
    "text of no graph": (lambda g: to_text(None), ValueError, GRAPH_EXPECTED),
    "text of an empty graph": (lambda g: to_text(nx.DiGraph()), ValueError, GRAPH_EXPECTED),
    "text of another graph": (lambda g: to_text(FOREIGN), ValueError, GRAPH_EXPECTED),
    "comparison with no graph": (lambda g: compare_graphs(None, g.explained), ValueError, GRAPH_EXPECTED),
    "comparison with another": (
        lambda g: compare_graphs(FOREIGN, g.explained),
        ValueError,
        GRAPH_EXPECTED,
    ),
    # Parameters
    "words True": (lambda g: LayerDictionary(True).fit(g.maps), ValueError, "'n_components' parameter .* Got True"),
    "nodes True": (lambda g: InferenceGraph(n_nodes=True).fit(g.words), ValueError, "'n_nodes' parameter .* Got True"),
    "name 5": (lambda g: named(5), TypeError, r"word_names has the name 5 for .*names must be str"),
    "name None": (lambda g: named(None), TypeError, "names must be str"),
    "sample by name": (lambda g: DiagonalGaussianMixture().fit(ROWS).sample("a"), ValueError, "an integer .* got 'a'"),
    "sample of a mixture": (lambda g: DiagonalGaussianMixture().fit(ROWS).sample(10**12), MemoryError, MEMORY),
    "sample of a chain": (lambda g: LayerHMM(2, random_state=0).fit(ROWS).sample(10**12), MemoryError, MEMORY),
    "level 0": (lambda g: typical(g, 0), ValueError, LEVEL + "0"),
    "level 2": (lambda g: typical(g, 2), ValueError, LEVEL + "2"),
    "level NaN": (lambda g: typical(g, NAN), ValueError, LEVEL + "nan"),
    "tolerance -1": (lambda g: compare_graphs(g.explained, g.explained, tolerance=-1), ValueError, TOLERANCE + "-1"),
    "tolerance NaN": (lambda g: compare_graphs(g.explained, g.explained, tolerance=NAN), ValueError, TOLERANCE + "nan"),
    "no permutations": (lambda g: similar(g, 0), ValueError, "n_permutations must be at least 1"),
    "image True": (
        lambda g: InferenceGraphDisplay.from_estimator(g.graph, g.words, image=True),
        TypeError,
        "An image is a number",
    ),
    "words 5": (lambda g: VisualWordDisplay.from_estimator(g.pipe, 5), ValueError, NO_WORD),
    "word 5": (lambda g: VisualWordDisplay.from_estimator(g.pipe, [5]), ValueError, NO_WORD),
}


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(given, call, error, message):
    with pytest.raises(error, match=message):
        call(given)


def test_words_of_no_images_can_be_counted(words):
    assert words[[]].histogram().shape == (0, 36)

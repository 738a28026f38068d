import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.pipeline import make_pipeline

from skgmmcnn import InferenceGraph
from skgmmcnn.dictionary import layer_mean
from skgmmcnn.features import margins, replace
from skgmmcnn.metrics import removal
from skgmmcnn.metrics._removal import Removal, random_locations

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little")  # few images


def test_random_words_have_an_equal_number_of_locations():
    rng = np.random.RandomState(0)
    words = rng.randint(0, 8, (50, 6, 6))
    locations = rng.random_sample((50, 6, 6)) < rng.random_sample((50, 1, 1))
    draws = np.stack([random_locations(locations, words, rng) for _ in range(40)])
    np.testing.assert_array_equal(draws.sum((2, 3)), np.tile(locations.sum((1, 2)), (40, 1)))
    for draw in draws:
        for where, image_words in zip(draw, words, strict=True):
            in_part = set(image_words[where]) & set(image_words[~where])
            assert len(in_part) <= 1
    np.testing.assert_allclose(draws.mean((0, 1)), locations.mean(), atol=0.05)  # each location as often


def test_the_words_of_graphs_are_removed(either, test_images):
    maps = either[0].transform(test_images[:6])
    result = removal(either, maps, layers=["conv3"], n_draws=3, random_state=0)
    words = either[1].transform(maps)
    of_graphs = [
        [node["word"] for _, node in graph.nodes(data=True) if node["layer"] == "conv3"]
        for graph in either[-1].explain(words)
    ]
    locations = np.stack([np.isin(*each) for each in zip(words.words["conv3"], of_graphs, strict=True)])
    np.testing.assert_allclose(result.share, locations.mean((1, 2)))
    mean = layer_mean(either[1].mixtures_["conv3"], next(maps.rerun(lambda part: part.original.activations["conv3"])))
    edits = {"conv3": replace(torch.from_numpy(locations), mean)}
    (expected,) = maps.rerun(lambda part: margins(part.run(edits).outputs, part.original.decisions).numpy())
    np.testing.assert_allclose(result.without, expected, rtol=1e-4)
    assert result.without_random.shape == (6, 3)


def test_a_word_that_decides_is_used(one_channel):
    pipe, images = one_channel
    result = removal(pipe, images[::2], random_state=0)
    full, without, chance = (values.mean() for values in result.proba)
    assert result.used[0] > 0.9
    assert full > 0.9
    assert without < 0.5 < chance


def test_words_of_no_use_are_not(pipe, test_images):
    words = pipe[:-1].transform(test_images)
    shuffled = type(words)(**{**words.__dict__, "decisions": np.roll(words.decisions, 3)})
    wrong = make_pipeline(*pipe[:-1], InferenceGraph(evidence="counts").fit(shuffled))
    assert removal(wrong, test_images, random_state=0).used[0] < removal(pipe, test_images, random_state=0).used[0]


@pytest.mark.parametrize(
    ("without", "without_random", "expected"),
    [
        (0.0, [1.0] * 20, 1.0),
        (0.0, [1.0] * 19 + [-1.0], 0.95),
        (0.0, [1.0, 1.0, 0.0, 0.0], 1.0),  # the same words, drawn again, are no comparison
        (0.0, [0.0, 0.0], 0.0),
        (3.0, [4.0] * 20, 0.0),  # the decision does not fall
    ],
)
def test_the_share_of_draws_that_fall_less(without, without_random, expected):
    result = Removal(np.array([2.0]), np.array([without]), np.array([without_random]), np.ones(1))
    assert result.above_random == pytest.approx([expected])
    assert result.used[0] == (expected >= 0.95)


def test_text_measurements_and_picture(pipe, test_images):
    result = removal(pipe, test_images, random_state=0)
    full, without, chance = (values.mean() for values in result.proba)
    expected = [result.used.value, full, without, chance, result.share.mean()]
    assert [row.value for row in result.measurements()] == pytest.approx(expected)
    assert f"falls from {full:.2f} to {without:.2f}; without random words" in str(result)
    np.testing.assert_allclose(result.plot().collections[0].get_offsets()[:, 1], expit(result.without))


def test_bad_input(pipe, test_images):
    with pytest.raises(ValueError, match="n_draws must be at least 1; got 0"):
        removal(pipe, test_images, n_draws=0)

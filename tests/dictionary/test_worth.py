"""Reports on the use and fidelity of words."""

import numpy as np
import pytest
import torch

from skgmmcnn import LayerDictionary


def test_report_says_what_words_are_worth(maps, digits):
    dictionary = LayerDictionary({"conv1": 30, "conv2": 30, "conv3": 30}, random_state=0).fit(maps)
    report = dictionary.report(maps, n_images=40)
    rows = np.unique(np.linspace(0, len(maps) - 1, 40).astype(int))
    network, images = digits.network, torch.as_tensor(digits.images[rows])[:, None]
    for layer, worth in report.layers.items():
        recorded = {}

        def watch(module, inputs, output, recorded=recorded):
            recorded["values"] = output

        with network.get_submodule(layer).register_forward_hook(watch), torch.no_grad():
            decisions = network(images).argmax(1)
        values = recorded["values"].permute(0, 2, 3, 1).double().numpy()
        words = dictionary.transform(maps[rows]).words[layer].astype(int)
        means = dictionary.mixtures_[layer].emitted_means_
        center = dictionary.mixtures_[layer].weights_ @ means
        r2 = 1 - ((values - means[words]) ** 2).sum() / ((values - center) ** 2).sum()
        assert worth.r2 == pytest.approx(r2, abs=1e-4)
        made = torch.from_numpy(means[words]).permute(0, 3, 1, 2).float()
        with (
            network.get_submodule(layer).register_forward_hook(lambda module, inputs, output, made=made: made),
            torch.no_grad(),
        ):
            kept = (network(images).argmax(1) == decisions).double().mean().item()
        assert worth.kept == pytest.approx(kept, abs=0.03)  # one image may lie at a border
        assert (worth.n_words, worth.n_used) == (30, len(np.unique(words)))
        assert f"- {layer}: {worth.n_used} of 30 words" in str(report)


def test_report_warns_of_layers_that_hold_little(maps, rng):
    poor = LayerDictionary(2, random_state=0).fit(maps)
    with pytest.warns(UserWarning, match=r"'conv3' .*Use more words"):
        poor.report(maps)
    plain = LayerDictionary(5, random_state=0).fit(rng.normal(size=(100, 3)))
    report = plain.report(rng.normal(size=(100, 3)))
    assert np.isnan(report.layers["dense"].kept)
    assert "decisions" not in str(report)
    with pytest.raises(ValueError, match="n_images must be at least 1; got 0"):
        plain.report(rng.normal(size=(100, 3)), n_images=0)


def test_verbose_shows_passes_and_worth(maps, capsys):
    LayerDictionary(30, verbose=1, random_state=0).fit(maps)
    shown = capsys.readouterr()
    assert "conv2: 30 of 30 words in use" in shown.out
    assert "conv2" in shown.err
    assert "nats" in shown.err

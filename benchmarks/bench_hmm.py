"""LayerHMM for the hidden layers of a perceptron on MNIST, compared with independent mixtures and hmmlearn.

The network, 784-256-128-64-10 with ReLU, is trained in seconds on 20,000 images; 5,000 others are held out.

    SKGMMCNN_DATA=... python benchmarks/bench_hmm.py [agreement|passes|joint|speed|hmmlearn ...]
"""

import sys
import warnings
from itertools import pairwise

import numpy as np
import torch
from common import load_data, timed
from torch import nn

from skgmmcnn import FeatureExtractor, LayerDictionary, LayerHMM
from skgmmcnn.chain._chain import Chain, joined, uniform
from skgmmcnn.dictionary import Sample
from skgmmcnn.mixture import Rows, in_blocks, online_pass
from skgmmcnn.mixture._solvers import Training, fit_em

LAYERS = ["2", "4", "6"]


def maps_and_labels():
    """Return feature maps of training and test images in memory, and test labels."""
    x_train, y_train, x_test, y_test = load_data().mnist()
    images, tests = ((x / 255).astype("float32")[:, None] for x in (x_train, x_test))
    torch.manual_seed(0)
    widths = [784, 256, 128, 64]
    hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(y_train.astype("int64"))
    for _ in range(15):
        for rows in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    extractor = FeatureExtractor(network.eval(), LAYERS, preprocess=None, batch_size=256)
    return extractor.fit_transform(images).compute(), extractor.transform(tests).compute(), y_test


def agreement(train, test, labels):
    """Print the agreement of the chain with the network on test images."""
    decisions = test.outputs.argmax(1)
    print(f"the network reads {(decisions == labels).mean():.2%} of the test images rightly")
    print(f"{'words':>6}{'seconds':>9}{'agreement':>11}{'accuracy':>10}")
    for n_words in (50, 100, 200, 400):
        seconds, hmm = timed(LayerHMM(n_words, random_state=0).fit, train)
        found = hmm.predict(test)
        print(
            f"{n_words:6}{seconds:9.1f}{(found == decisions).mean():11.2%}{(found == labels).mean():10.2%}", flush=True
        )


def passes(train, test, _):
    """Compare online EM with batch EM on held-out images."""
    settings = {"random_state": 0, "max_iter": 300}
    one = LayerHMM(1, solver="em", **settings).fit(train).score(test)
    seconds, batch = timed(LayerHMM(50, solver="em", tol=1e-4, **settings).fit, train)
    best = batch.score(test)
    print(f"one word a layer {one:.2f} nats; batch EM, {batch.n_iter_} passes, {seconds:.1f} s: {best:.2f}")
    print(f"{'passes':>7}{'seconds':>9}{'held-out nats':>15}{'of the gap':>12}")
    for n_passes in (1, 2, 3, batch.n_iter_ // 5, 10):
        seconds, hmm = timed(LayerHMM(50, tol=0, random_state=0, max_iter=n_passes).fit, train)
        score = hmm.score(test)
        print(f"{n_passes:7}{seconds:9.1f}{score:15.2f}{(score - one) / (best - one):12.1%}", flush=True)


def joint(train, test, _):
    """Print held-out nats of mixtures, with counted transitions, and after joint EM from there or from random rows."""
    examples, held_out = (Rows(side_by_side(part)) for part in (train, test))
    print(f"{'words':>6}{'seed':>5}{'mixtures':>10}{'counted':>9}{'EM from there':>15}{'EM from rows':>14}")
    for n_words in (20, 50):
        for seed in (0, 1):
            settings = {"n_components": n_words, "tol": 1e-4, "max_iter": 300, "random_state": seed}
            dictionary = LayerDictionary(**settings)
            counted = counted_chain(dictionary, dictionary.fit_transform(train))
            on = fit_em(examples, counted, Training(100, 0.01, momentum=0)).mixture
            anew = LayerHMM(**settings, solver="em").fit(train)
            scores = [held_out.expect(chain).log_likelihood.item() / len(held_out) for chain in (counted, on)]
            print(
                f"{n_words:6}{seed:5}{dictionary.score(test):10.2f}{scores[0]:9.2f}{scores[1]:15.2f}"
                f"{anew.score(test):14.2f}",
                flush=True,
            )


def side_by_side(maps):
    return torch.cat([joined(batch.activations, maps.layers) for batch in maps.batches()])


def counted_chain(dictionary, words):
    """Return a chain of independent mixtures and smoothed counts of their words."""
    flat = [words.words[layer].ravel().astype(int) for layer in words.layers]
    sizes = list(words.vocabulary.n_words.values())
    tables = uniform(sizes, 0)
    for table, lower, upper in zip(tables, [np.zeros_like(flat[0]), *flat], flat, strict=False):
        np.add.at(table.numpy(), (lower, upper), 1)
    mixtures = tuple(dictionary.mixtures_[layer] for layer in words.layers)
    return Chain((), mixtures, 1.0).with_tables([table / table.sum(1, keepdim=True) for table in tables])


def speed(train, _, __):
    """Compare an online pass of the chain with one of three independent mixtures, from the same start."""
    values = side_by_side(train)
    sizes = [shape[0] for shape in train.shapes.values()]
    generator = torch.Generator().manual_seed(0)
    for n_words in (50, 200):
        mixtures = [
            LayerHMM(n_words, emission="rectified")._initialize("", Sample(part, np.empty(0), generator))
            for part in values.split(sizes, 1)
        ]
        chain = Chain(tuple(uniform([n_words] * 3, 0)), tuple(mixtures), 1.0)

        def independent(mixtures=mixtures):
            for mixture, part in zip(mixtures, values.split(sizes, 1), strict=True):
                rows = part.contiguous()
                online_pass(in_blocks(Rows(rows), 1024), mixture, None)

        def together(chain=chain):
            online_pass(in_blocks(Rows(values), 1024), chain, None)

        times = {"mixtures": [], "chain": []}
        for _ in range(3):
            times["mixtures"].append(timed(independent)[0])
            times["chain"].append(timed(together)[0])
        ours, others = min(times["chain"]), min(times["mixtures"])
        print(
            f"{n_words} words: three mixtures {others:.2f} s, chain {ours:.2f} s, ratio {ours / others:.2f}", flush=True
        )


def hmmlearn(train, _, __):
    """The same chain in hmmlearn: 3 layers of 32 Gaussian channels, 10 words each, 5 passes of EM in float64.

    hmmlearn knows no floor of variances, so noise is added to the activity; then both must climb alike.

    hmmlearn's chains have one table, so words of all layers are its states, and zeros let it pass from layer to layer
    only.  A chain of 10 states at all layers is another model, but what its users would take.
    """
    from hmmlearn.hmm import GaussianHMM

    n, d, n_words, n_passes = 5000, 32, 10, 5
    parts = [part.double() for part in side_by_side(train)[:n].split([shape[0] for shape in train.shapes.values()], 1)]
    parts = [part[:, part.var(0).argsort(descending=True)[:d]] for part in parts]
    generator = torch.Generator().manual_seed(0)
    parts = [part + 0.3 * part.std() * torch.randn(part.shape, generator=generator).double() for part in parts]
    mixtures = [
        LayerHMM(n_words, emission="gaussian", reg_covar=1e-9)._initialize("", Sample(part, np.empty(0), generator))
        for part in parts
    ]
    chain = Chain(tuple(uniform([n_words] * 3, 0)), tuple(mixtures), 0.0)
    seconds, fitted = timed(fit_em, Rows(torch.cat(parts, 1)), chain, Training(n_passes, 0, momentum=0))
    print(f"{'':34}{'seconds':>9}{'log-likelihood by pass, nats per example':>44}")
    print(f"{'ours':34}{seconds:9.2f}   " + " ".join(f"{bound:.6f}" for bound in fitted.lower_bounds), flush=True)

    sequences = torch.stack(parts, 1).reshape(-1, d).numpy()
    for title, n_states in (("hmmlearn, the same chain", 3 * n_words), ("hmmlearn, 10 states at all layers", n_words)):
        peer = GaussianHMM(n_states, n_iter=n_passes, tol=-np.inf, init_params="", covars_prior=0)
        means = np.concatenate([mixture.means_ for mixture in mixtures])[:n_states]
        variances = np.concatenate([mixture.covariances_ for mixture in mixtures])[:n_states]
        peer.startprob_, peer.transmat_ = np.full(n_states, 1 / n_states), np.full((n_states,) * 2, 1 / n_states)
        if n_states > n_words:
            peer.startprob_ = np.repeat([1 / n_words, 0, 0], n_words)
            peer.transmat_ = np.kron([[0, 1, 0], [0, 0, 1], [0, 0, 1]], np.full((n_words, n_words), 1 / n_words))
        peer.means_, peer.covars_ = means, variances
        taken, _ = timed(peer.fit, sequences, np.full(n, 3))
        history = " ".join(f"{value / n:.6f}" for value in peer.monitor_.history)
        print(f"{title:34}{taken:9.2f}   {history}   {taken / seconds:.0f} times as long", flush=True)


def main(names):
    warnings.simplefilter("ignore")  # that something has not converged
    measured = maps_and_labels()
    for name in names:
        print(f"\n{name}", flush=True)
        globals()[name](*measured)


if __name__ == "__main__":
    main(sys.argv[1:] or ["agreement", "passes", "joint", "speed", "hmmlearn"])

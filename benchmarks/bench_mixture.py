"""DiagonalGaussianMixture compared with scikit-learn and pomegranate on real activations.

Rows are the channels at locations of a trained network, scaled to unit variance.  All mixtures have the same variance
floor (scikit-learn adds it, the others use the maximum).  Held-out rows are from other images.  For each solver, the
script also prints the time to reach the final held-out likelihood of scikit-learn.

    SKGMMCNN_DATA=... python benchmarks/bench_mixture.py [cifar|darknet ...]
"""

import sys
import time
import warnings

import numpy as np
import torch
from common import alone, load_data, timed
from sklearn.mixture import GaussianMixture
from torchvision import transforms

from skgmmcnn import DiagonalGaussianMixture, FeatureExtractor
from skgmmcnn.mixture import Rows
from skgmmcnn.mixture._em import Mixture, Scorer

FLOOR = 1e-3
# Nats per row, proportional to the number of channels: the tolerance of LayerDictionary.
TOLERANCE = 1e-4


def cifar():
    """100,000 and 20,000 rows of 64 channels from the last stage of a ResNet20, 200 components."""
    data = load_data()
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    extractor = FeatureExtractor(data.cifar_resnet20(), ["layer3"], preprocess=preprocess)
    parts = [rows(extractor.fit_transform(data.cifar10(split)[0])) for split in ("train", "test")]
    return parts[0][:100_000], parts[1][:20_000], 200


def darknet():
    """30,000 and 10,000 rows of 512 channels of Tiny Darknet, 500 components."""
    data = load_data()
    crop = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    paths, *_ = data.imagenet()
    extractor = FeatureExtractor(data.tiny_darknet(), ["39"], preprocess=crop)
    train, test = rows(extractor.fit_transform(paths[:240])), rows(extractor.fit_transform(paths[240:]))
    return train[:20_000], test[:10_000], 500


def rows(maps):
    (layer,) = maps.layers
    values = [batch.activations[layer].permute(0, 2, 3, 1).flatten(0, 2).numpy() for batch in maps.batches()]
    return np.random.default_rng(0).permutation(np.concatenate(values))


def train_and_test(name):
    train, test, n_components = {"cifar": cifar, "darknet": darknet}[name]()
    scale = train.std(0)
    return train / scale, test / scale, n_components


def scikit_learn(name):
    train, test, n_components = train_and_test(name)
    mixture = GaussianMixture(n_components, covariance_type="diag", reg_covar=FLOOR, max_iter=500, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it must converge
        seconds, _ = timed(mixture.fit, train)
    return {"seconds": seconds, "score": mixture.score(test), "passes": mixture.n_iter_}


def pomegranate(name):
    """Ten passes, without the time of the k-means start of each: a lower bound."""
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    train, test, n_components = train_and_test(name)
    start = np.random.default_rng(0).choice(len(train), n_components, replace=False)
    variances = torch.from_numpy(train.var(0))
    parts = [Normal(train[i].tolist(), variances.tolist(), covariance_type="diag", min_cov=FLOOR) for i in start]
    model = GeneralMixtureModel(parts, max_iter=10, tol=0)
    seconds, _ = timed(model.fit, torch.from_numpy(train))
    score = torch.cat([model.log_probability(part) for part in torch.from_numpy(test).split(1000)]).mean().item()
    return {"seconds": seconds, "score": score, "passes": 10}


def ours(name, target, **settings):
    """Train, and evaluate the held-out likelihood after each pass, outside of the measured time."""
    train, test, n_components = train_and_test(name)
    mixture = DiagonalGaussianMixture(
        n_components, reg_covar=FLOOR, tol=TOLERANCE * train.shape[1], max_iter=300, random_state=0, **settings
    )
    seconds, _ = timed(mixture.fit, train)
    return {
        "seconds": seconds,
        "score": mixture.score(test),
        "passes": mixture.n_iter_,
        "reached": reached(mixture, train, test, target),
    }


def reached(mixture, train, test, target):
    """Train again pass by pass, and return the training time to reach the held-out likelihood `target`."""
    spent, held_out = 0.0, torch.from_numpy(test)
    watched = Mixture.maximize if mixture.solver == "em" else None
    best = [None]
    begin = time.perf_counter()

    def note(before, statistics):
        nonlocal spent
        after = watched(before, statistics)
        pause = time.perf_counter()
        if best[0] is None and Scorer(after, held_out).evidence(held_out).mean().item() >= target:
            best[0] = pause - begin - spent
        spent += time.perf_counter() - pause
        return after

    if watched is None:
        return None
    Mixture.maximize = note
    try:
        mixture.fit(train)
    finally:
        Mixture.maximize = watched
    return best[0]


def product_rate():
    """Return the rate of large float32 matrix products, in operations per second."""
    a, b = torch.randn(4096, 4096), torch.randn(4096, 4096)
    seconds = min(timed(torch.matmul, a, b)[0] for _ in range(5))
    return 2 * 4096**3 / seconds


def pass_rate(name):
    """Return the rate of an E-step, by its four products, relative to the rate of large products."""
    train, _, n_components = train_and_test(name)
    mixture = DiagonalGaussianMixture(n_components, reg_covar=FLOOR, max_iter=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mixture.fit(train)
    values = torch.from_numpy(train)
    data = Rows(values)
    data.expect(mixture.mixture_)
    shares = []
    for _ in range(3):
        rate = product_rate()
        seconds = min(timed(data.expect, mixture.mixture_)[0] for _ in range(3))
        shares.append(8 * train.size * n_components / seconds / rate)
    return max(shares), rate


def main(names):
    for name in names:
        (share, rate), _ = alone(pass_rate, name)
        print(f"{name}: one pass runs at {share:.0%} of the rate of a large matrix product ({rate / 1e9:.0f} GFlop/s)")
        print(f"{'':38}{'seconds':>9}{'to target':>10}{'held-out nats':>15}{'passes':>8}{'peak GB':>9}", flush=True)
        peer, memory = alone(scikit_learn, name)
        show("scikit-learn GaussianMixture", peer, memory)
        if name == "cifar":  # with 500 components it takes half an hour
            other, memory = alone(pomegranate, name)
            show("pomegranate, ten passes", other, memory)
        for title, settings in [
            ("ours", {}),
            ("ours, random rows", {"init_params": "random_from_data"}),
            ("ours, random rows, no momentum", {"init_params": "random_from_data", "momentum": 0}),
            ("ours, online", {"solver": "online"}),
            ("ours, sgd", {"solver": "sgd"}),
        ]:
            result, memory = alone(ours_quietly, name, peer["score"], settings)
            show(title, result, memory)
            if not settings:
                until = result["reached"] or float("nan")
                print(f"  scikit-learn takes {peer['seconds'] / until:.0f} times as long to the same likelihood")
                if name == "cifar":
                    print(
                        f"  pomegranate takes {other['seconds'] / until:.0f} times as long for ten passes", flush=True
                    )


def ours_quietly(name, target, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ours(name, target, **settings)


def show(title, result, memory):
    until = f"{result['reached']:.1f}" if result.get("reached") is not None else ""
    print(
        f"{title:38}{result['seconds']:9.1f}{until:>10}{result['score']:15.3f}{result['passes']:8}{memory:9.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:] or ["cifar", "darknet"])

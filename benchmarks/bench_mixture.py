"""LayerDictionary's mixture beside scikit-learn's, on real activations, in one run.

Rows are the 64 channels at 100,000 locations of CIFAR ResNet20's last stage, each scaled to variance one so that both
have the same variance floor (scikit-learn adds it, we take the larger).  Held-out rows come from test images.

    SKGMMCNN_DATA=... python benchmarks/bench_mixture.py [n_components] [n_rows]
"""

import sys
import warnings

import numpy as np
from common import alone, load_data, timed
from sklearn.mixture import GaussianMixture
from torchvision import transforms

from skgmmcnn import FeatureExtractor, LayerDictionary

FLOOR = 1e-3


def rows(split, n_rows):
    data = load_data()
    images, _, _ = data.cifar10(split)
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    maps = FeatureExtractor(data.cifar_resnet20(), ["layer3"], preprocess=preprocess).fit_transform(images)
    values = [batch.activations["layer3"].permute(0, 2, 3, 1).flatten(0, 2).numpy() for batch in maps.batches()]
    return np.random.default_rng(0).permutation(np.concatenate(values))[:n_rows]


def train_and_test(n_rows):
    train, test = rows("train", n_rows), rows("test", n_rows // 2)
    scale = train.std(0)
    return train / scale, test / scale


def ours(n_components, n_rows, tol):
    train, test = train_and_test(n_rows)
    dictionary = LayerDictionary(n_components, reg_covar=FLOOR, tol=tol, max_iter=500, random_state=0)
    seconds, _ = timed(dictionary.fit, train)
    return seconds, dictionary.score(test), dictionary.n_iter_


def scikit_learn(n_components, n_rows):
    train, test = train_and_test(n_rows)
    mixture = GaussianMixture(n_components, covariance_type="diag", reg_covar=FLOOR, max_iter=500, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it must converge
        seconds, _ = timed(mixture.fit, train)
    return seconds, mixture.score(test), mixture.n_iter_


def main(n_components=200, n_rows=100_000):
    contenders = [
        ("LayerDictionary", ours, 1e-3),
        ("LayerDictionary, tol=1e-4", ours, 1e-4),
        ("GaussianMixture", scikit_learn),
    ]
    results = {}
    print(f"{n_rows} rows, {n_components} components")
    print(f"{'':28}{'seconds':>9}{'held-out nats':>15}{'passes':>8}{'peak GB':>9}", flush=True)
    for name, function, *settings in contenders:
        (seconds, score, n_iter), memory = alone(function, n_components, n_rows, *settings)
        results[name] = seconds
        print(f"{name:28}{seconds:9.1f}{score:15.3f}{n_iter:8}{memory:9.2f}", flush=True)
    print(f"LayerDictionary takes 1/{results['GaussianMixture'] / results['LayerDictionary']:.0f} of the time.")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

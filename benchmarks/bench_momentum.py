"""Held-out nats after several numbers of passes of batch EM, by momentum, for the last stage of a ResNet20.

SKGMMCNN_DATA=... python benchmarks/bench_momentum.py
"""

import warnings

from bench_mixture import FLOOR, train_and_test

from skgmmcnn import DiagonalGaussianMixture

PASSES = (5, 10, 20, 40)


def main():
    warnings.simplefilter("ignore")  # that it has not converged
    train, test, n_components = train_and_test("cifar")
    print(f"{'momentum':10}" + "".join(f"{n:>9}" for n in PASSES))
    for momentum in (0, 0.5, 0.8, 0.9, 0.95):
        settings = {"init_params": "random_from_data", "reg_covar": FLOOR, "tol": 0, "random_state": 0}
        fitted = (
            DiagonalGaussianMixture(n_components, momentum=momentum, max_iter=n, **settings).fit(train) for n in PASSES
        )
        print(f"{momentum:<10}" + "".join(f"{mixture.score(test):9.2f}" for mixture in fitted), flush=True)


if __name__ == "__main__":
    main()

"""Linear classifiers on the words of one layer, and discriminative training of words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..mixture import Descent, Fitted, Mixture, OnlineState, Rows, responsibilities
from ._training import Sample

# Chosen on layers 2 and 3 of a ResNet20 trained on CIFAR-10.  The more words there are, the sooner they overfit.
_IMAGES_PER_STEP, _LEAST_EPOCHS, _LEAST_STEPS = 64, 10, 500
_STEP_OF_ONE_WORD, _SHRINKAGE = 1.4, 1e-3
_INVERSE_PENALTY = 0.03


@dataclass(frozen=True, eq=False)
class Readout:
    """A linear softmax classifier on the posteriors of a layer's words, averaged over an image.

    `coef` has shape (n_outputs, K); `intercept` (n_outputs,) is minus infinity for outputs without examples.
    """

    coef: np.ndarray
    intercept: np.ndarray

    def predict_proba(self, posteriors: np.ndarray) -> np.ndarray:
        """Return class probabilities (n, n_outputs) from averaged posteriors (n, K)."""
        return softmax(posteriors @ self.coef.T + self.intercept, axis=1)


def fit_readout(posteriors: np.ndarray, targets: np.ndarray, n_outputs: int) -> Readout:
    """Fit logistic regression of `targets` (n,) on averaged posteriors (n, K)."""
    classes = np.unique(targets)
    n_words = posteriors.shape[1]
    coef = np.zeros((n_outputs, n_words))
    intercept = np.full(n_outputs, -np.inf)
    if len(classes) == 1:
        intercept[classes] = 0
        return Readout(coef, intercept)
    # Posteriors are 1 / K on average; in these units one penalty suits all K.
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000).fit(posteriors * n_words, targets)
    if len(classes) == 2:  # scikit-learn stores the difference of the coefficients
        sides = np.array([-1, 1]) / 2
        coef[classes] = np.outer(sides, model.coef_ * n_words)
        intercept[classes] = sides * model.intercept_
    else:
        coef[classes] = model.coef_ * n_words
        intercept[classes] = model.intercept_
    return Readout(coef, intercept)


def train_words(fitted: Fitted, sample: Sample, targets: np.ndarray, n_outputs: int) -> tuple[Fitted, Readout]:
    """Continue training such that words and a readout predict the targets (n,) of the images; return both.

    A linear softmax classifier reads the posteriors averaged over the rows of an image.  Gradient steps on all
    parameters minimise the cross-entropy (objective L_D of Konforti et al., ECCV 2020).  The rows are a sample, so the
    averages are estimates.
    """
    rows = sample.rows
    n_words = len(fitted.mixture.weights)
    order = np.argsort(sample.images, kind="stable")
    present, starts = np.unique(sample.images[order], return_index=True)
    images = [torch.from_numpy(part).to(rows.device) for part in np.split(order, starts[1:])]
    classes = torch.from_numpy(targets[present]).to(rows.device)
    # Start at zero: the readout fitted to the initial words already overfits the images.
    coef = torch.zeros(n_outputs, n_words).to(rows).requires_grad_()
    intercept = torch.zeros(n_outputs).to(rows).requires_grad_()
    descent = Descent(fitted.mixture, [coef, intercept], step=_STEP_OF_ONE_WORD / math.sqrt(n_words))
    n_epochs = max(_LEAST_EPOCHS, math.ceil(_LEAST_STEPS * _IMAGES_PER_STEP / len(images)))
    for epoch in range(n_epochs):
        descent.rate = 1 - epoch / n_epochs
        for indices in torch.randperm(len(images), generator=sample.generator).split(_IMAGES_PER_STEP):
            averages = _average(descent.mixture(), rows, [images[i] for i in indices.tolist()])
            loss = cross_entropy(averages @ coef.T + intercept, classes[indices.to(rows.device)])
            descent.step(loss + _SHRINKAGE * coef.square().sum())
    mixture = descent.mixture(detached=True)
    expectation = Rows(rows).expect(mixture)
    state = OnlineState(mixture, expectation.statistics.per_row(), fitted.state.n_steps)
    trained = Fitted(state, [*fitted.lower_bounds, expectation.mean_log_likelihood], fitted.converged)
    return trained, Readout(coef.numpy(force=True) * n_words, intercept.numpy(force=True))


def _average(mixture: Mixture, rows: Tensor, images: list[Tensor]) -> Tensor:
    """Return the posteriors averaged over the rows of each image, times K, with gradients; shape (images, K)."""
    posteriors = responsibilities(mixture.scorer(rows).joint(rows[torch.cat(images)]))
    sizes = torch.tensor([len(indices) for indices in images], device=rows.device)
    image_of_row = torch.repeat_interleave(torch.arange(len(images), device=rows.device), sizes)
    sums = posteriors.new_zeros(len(images), posteriors.shape[1])
    return sums.index_add(0, image_of_row, posteriors) / sizes[:, None] * posteriors.shape[1]

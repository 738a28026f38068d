"""Linear classifiers on the words of one layer, and discriminative training of words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..mixture import Descent, Mixture, Scorer, responsibilities

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
    classes, n_words = np.unique(targets), posteriors.shape[1]
    coef, intercept = np.zeros((n_outputs, n_words)), np.full(n_outputs, -np.inf)
    if len(classes) == 1:
        intercept[classes] = 0
        return Readout(coef, intercept)
    # Posteriors are 1 / K on average; in these units one penalty suits all K.
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000).fit(posteriors * n_words, targets)
    fitted, offset = model.coef_ * n_words, model.intercept_
    if len(classes) == 2:  # scikit-learn stores coefficients of the second class only
        fitted, offset = np.concatenate([-fitted, fitted]) / 2, np.concatenate([-offset, offset]) / 2
    coef[classes], intercept[classes] = fitted, offset
    return Readout(coef, intercept)


@dataclass(frozen=True, eq=False)
class Grouped:
    """Rows (n, d) of a layer, the row indices of each image, and the target of each image."""

    rows: Tensor
    groups: list[Tensor]
    targets: Tensor

    @classmethod
    def by_image(cls, rows: Tensor, images: np.ndarray, targets: np.ndarray) -> Grouped:
        """Group rows by the indices (n,) of their `images`; `targets` includes images without rows."""
        order = np.argsort(images, kind="stable")
        present, starts = np.unique(images[order], return_index=True)
        groups = [torch.from_numpy(part).to(rows.device) for part in np.split(order, starts[1:])]
        return cls(rows, groups, torch.from_numpy(targets[present]).to(rows.device))

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, chosen: Tensor) -> Grouped:
        return Grouped(self.rows, [self.groups[i] for i in chosen.tolist()], self.targets[chosen.to(self.rows.device)])

    def batches(self, order: Tensor) -> Iterator[Grouped]:
        """Yield batches of groups in `order`."""
        return (self[chosen] for chosen in order.split(_IMAGES_PER_STEP))

    def average(self, mixture: Mixture) -> Tensor:
        """Return the posteriors averaged over each group, times K, with gradients; shape (groups, K)."""
        scorer = Scorer(mixture, self.rows)
        posteriors = responsibilities(scorer.joint(self.rows[torch.cat(self.groups)]))
        sizes = torch.tensor([len(group) for group in self.groups], device=self.rows.device)
        places = torch.repeat_interleave(torch.arange(len(self), device=self.rows.device), sizes)
        sums = torch.zeros(len(self), posteriors.shape[1], dtype=posteriors.dtype, device=self.rows.device)
        return sums.index_add(0, places, posteriors) / sizes[:, None] * posteriors.shape[1]


def train_words(data: Grouped, mixture: Mixture, n_outputs: int, generator: torch.Generator) -> tuple[Mixture, Readout]:
    """Train words and readout to predict the targets; return both.

    A linear softmax classifier reads the posteriors averaged over the rows of an image.  Gradient steps on all
    parameters minimise the cross-entropy (objective L_D of Konforti et al., ECCV 2020).  The rows are a sample, so the
    averages are estimates.
    """
    # Start at zero: the readout fitted to the initial words already overfits the images.
    coef = torch.zeros(n_outputs, len(mixture.weights)).to(data.rows).requires_grad_()
    intercept = torch.zeros(n_outputs).to(data.rows).requires_grad_()
    descent = Descent(mixture, [coef, intercept], step=_STEP_OF_ONE_WORD / math.sqrt(len(mixture.weights)))
    n_epochs = max(_LEAST_EPOCHS, math.ceil(_LEAST_STEPS * _IMAGES_PER_STEP / len(data)))
    for epoch in range(n_epochs):
        descent.rate = 1 - epoch / n_epochs
        for batch in data.batches(torch.randperm(len(data), generator=generator)):
            scores = batch.average(descent.mixture()) @ coef.T + intercept
            descent.step(cross_entropy(scores, batch.targets) + _SHRINKAGE * coef.square().sum())
    readout = Readout(coef.numpy(force=True) * coef.shape[1], intercept.numpy(force=True))
    return descent.mixture(detached=True), readout

"""Random tables, and the recursions by enumeration of all paths."""

import itertools

import numpy as np
import torch


def distributions(rng, shape, zeros=0.0):
    """Random rows of probabilities, a share of whose cells are zero, but for one in each row."""
    table = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    kept = rng.random(shape) >= zeros
    kept[..., 0] = True
    table = table * kept
    return torch.from_numpy(table / table.sum(-1, keepdims=True))


def enumerated(start, tables, emissions):
    """All paths, and log p(x, path) of each for each example, shape (n, paths)."""
    paths = np.array(list(itertools.product(*(range(part.shape[1]) for part in emissions))))
    with np.errstate(divide="ignore"):
        joint = np.log(start.numpy())[paths[:, 0]] + emissions[0].numpy()[:, paths[:, 0]]
        for i, table in enumerate(tables):
            joint = joint + np.log(table.numpy())[paths[:, i], paths[:, i + 1]]
            joint = joint + emissions[i + 1].numpy()[:, paths[:, i + 1]]
    return paths, joint

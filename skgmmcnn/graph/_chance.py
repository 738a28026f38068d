"""Which pairs of words could be chance: the upper map of one image paired with the lower map of another.

Over all pairings of N upper with N lower maps the count C[s, t] has the moments of a permutation statistic (Hoeffding,
1951): with c(n, m) the count of the upper map n over the lower map m, and d(n, m) the same centred by rows and columns,

    mean = sum c(n, m) / N,   variance = sum d(n, m)^2 / (N - 1).

With u_n(p) = 1 where p shows s and w_m(p) the number of locations in the window of p that show t,
c(n, m) = sum_p u_n(p) w_m(p).  Both moments therefore follow from sums over single images: the means of u and w at
every location, and their covariances between locations, for 2 K words instead of K^2 pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import gammaincc
from scipy.stats import false_discovery_control

from ..features import ReceptiveField
from ._counting import chunks, gather

# Covariances are taken between so many upper locations; where there are more, a sample of them stands for all.
N_PLACES = 200


class Sums(NamedTuple):
    """Sums over images, all of them integers, for one pair of layers; they add up.

    `n_images`; `upper` (H, W, K_upper) and `lower` (H, W, K_lower), the sums of u and w at each upper location;
    `upper_products` (K_upper, r, r) and `lower_products` (K_lower, r, r), the sums of u(p) u(p') and w(p) w(p') at
    the locations of :func:`places`; `support` (K_upper, K_lower), the number of images that show a pair.
    """

    n_images: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    upper_products: np.ndarray
    lower_products: np.ndarray
    support: np.ndarray

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width of the upper map."""
        return self.upper.shape[:2]

    def plus(self, other: Sums) -> Sums:
        """Return the sums over the images of both."""
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))


def places(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return upper locations between which covariances are taken, and how many pairs each two of them stand for.

    All locations (r,) of a map of this size (height, width) where they are few.  Of many, two from each cell of a grid,
    always the same ones; the numbers (r, r) are the inverse probabilities of drawing two of them together (Horvitz
    and Thompson, 1952).
    """
    height, width = size
    if height * width <= N_PLACES:
        return np.arange(height * width), np.ones((height * width, height * width))
    n_rows = min(height, int((N_PLACES / 2) ** 0.5))
    n_columns = min(width, N_PLACES // (2 * n_rows))
    rng = np.random.default_rng(0)
    locations = np.arange(height * width).reshape(size)
    grid = [np.array_split(rows, n_columns, axis=1) for rows in np.array_split(locations, n_rows)]
    cells = [cell.ravel() for row in grid for cell in row]
    drawn = [rng.choice(cell, min(2, len(cell)), replace=False) for cell in cells]
    sizes = np.repeat([len(cell) for cell in cells], [len(two) for two in drawn])
    cell_of = np.repeat(np.arange(len(cells)), [len(two) for two in drawn])
    shares = sizes / np.bincount(cell_of)[cell_of]
    numbers = np.where(np.equal.outer(cell_of, cell_of), sizes * (sizes - 1) / 2, np.outer(shares, shares))
    np.fill_diagonal(numbers, shares)
    return np.concatenate(drawn), numbers


def n_numbers(size: tuple[int, ...], n_upper: int, n_lower: int) -> int:
    """Return how many numbers the sums of a pair of layers hold, the upper one of this size."""
    return (len(places(size)[0]) ** 2 + math.prod(size)) * (n_upper + n_lower) + n_upper * n_lower


def sum_up(upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, support: np.ndarray, n_lower: int) -> Sums:
    """Return the sums over the images of `upper` (n, H, W) and `lower` (n, h, w); `support` as in :class:`Sums`."""
    n_upper, (at, _) = len(support), places(upper.shape[1:])
    windows = gather(np.moveaxis(_by_location(lower, n_lower), -1, 0).astype(float), field)
    return Sums(
        np.array(len(upper)),
        _by_location(upper, n_upper),
        np.moveaxis(windows, 0, -1).astype(np.int64),
        _equal_words(upper.reshape(len(upper), math.prod(upper.shape[1:]))[:, at], n_upper),
        _window_products(lower, field, at, upper.shape[2], n_lower),
        support,
    )


def _by_location(words: np.ndarray, n_words: int) -> np.ndarray:
    """Return how often each location shows each word, (H, W, K)."""
    n_locations = math.prod(words.shape[1:])
    cells = words.reshape(len(words), n_locations) + n_words * np.arange(n_locations)
    return np.bincount(cells.ravel(), minlength=n_locations * n_words).reshape(*words.shape[1:], n_words)


def _equal_words(words: np.ndarray, n_words: int) -> np.ndarray:
    """Return for each word how often each two of r locations show it in the same image, (K, r, r)."""
    r = words.shape[1]
    products = np.zeros(n_words * r * r, dtype=np.int64)
    for part in chunks(len(words), r * r):
        image, first, second = np.nonzero(words[part, :, None] == words[part, None, :])
        cells = (words[part][image, first].astype(np.int64) * r + first) * r + second
        products += np.bincount(cells, minlength=len(products))
    return products.reshape(n_words, r, r)


def _window_products(lower: np.ndarray, field: ReceptiveField, at: np.ndarray, width: int, n_words: int) -> np.ndarray:
    """Return for each word the sums of products of its numbers in two windows of the same image, (K, r, r)."""
    products = np.zeros((n_words, len(at), len(at)), dtype=np.int64)
    largest = math.prod(int((stop - start).max()) for start, stop in (field.rows, field.columns))
    for part in chunks(len(lower), n_words * len(at)):
        numbers = _in_windows(lower[part], field, at, width, n_words)
        exact = np.float32 if largest**2 * len(numbers) < 2**24 else np.float64
        numbers = np.moveaxis(numbers, -1, 0).astype(exact)  # (K, n, r)
        products += (numbers.transpose(0, 2, 1) @ numbers).astype(np.int64)
    return products


def _in_windows(lower: np.ndarray, field: ReceptiveField, at: np.ndarray, width: int, n_words: int) -> np.ndarray:
    """Return how often each window shows each word, (n, r, K)."""
    numbers = np.empty((len(lower), len(at), n_words), dtype=np.int64)
    for place, (i, j) in enumerate(zip(*np.divmod(at, width), strict=True)):
        rows, columns = field.window(i, j)
        seen = lower[:, rows, columns].reshape(len(lower), -1)
        cells = seen + n_words * np.arange(len(lower))[:, None]
        numbers[:, place] = np.bincount(cells.ravel(), minlength=len(lower) * n_words).reshape(-1, n_words)
    return numbers


def null_moments(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of every count over all pairings of upper with lower maps, (K_upper, K_lower) each."""
    n, (at, numbers) = int(sums.n_images), places(sums.size)
    upper, lower = (table.reshape(-1, table.shape[-1]) for table in (sums.upper, sums.lower))
    covariances = [
        (products - table[at].T[:, :, None] * table[at].T[:, None, :] / n).reshape(len(products), -1)
        for products, table in [(sums.upper_products, upper), (sums.lower_products, lower)]
    ]
    variance = covariances[0] @ (numbers.ravel() * covariances[1]).T
    return upper.T @ (lower / n), np.maximum(variance, 0) / max(1, n - 1)


def p_values(counts: np.ndarray, sums: Sums) -> np.ndarray:
    """Return the probability of at least such counts by chance, from the gamma distribution with the null's moments.

    Counts of rare words are skewed, so that a normal distribution would call far too many of them significant.
    """
    mean, variance = null_moments(sums)
    spread = variance > 1e-9 * np.maximum(mean, 1) ** 2
    safe = np.where(spread, variance, 1)
    tail = gammaincc(np.maximum(mean, 1e-300) ** 2 / safe, counts * mean / safe)
    return np.where(spread & (mean > 0), tail, 1.0)


def tested(p: np.ndarray, ratios: np.ndarray, sums: Sums, min_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return p- and q-values, NaN where a pair is not tested.

    Tested are pairs with a positive log-ratio that at least `min_count` images show.  The q-values are p-values
    adjusted for their number (Benjamini and Hochberg, 1995).
    """
    asked = (ratios > 1e-9) & (sums.support >= min_count)
    q = np.full(p.shape, np.nan)
    if asked.any():
        q[asked] = false_discovery_control(p[asked])
    return np.where(asked, p, np.nan), q


def support_of(rows: sparse.csr_array) -> np.ndarray:
    """Return how many rows have each column, (columns,)."""
    return np.bincount(rows.indices, minlength=rows.shape[1])

"""Rows of arrays, chosen without copies."""

from __future__ import annotations

from typing import Any

import numpy as np


class ArrayRows:
    """The `rows` of an array, which are copied when they are read, by ``numpy.array``."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self._array, self._rows = array, rows

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the chosen part."""
        return self._rows.shape + self._array.shape[1:]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        """Return one row as an array, or several without a copy."""
        rows = self._rows[key]
        return ArrayRows(self._array, rows) if rows.ndim else self._array[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array[self._rows], dtype)


def choose(array: np.ndarray | ArrayRows, key: Any) -> np.ndarray | ArrayRows:
    """Return rows of an array without a copy: a view for a slice."""
    if isinstance(key, slice) or isinstance(array, ArrayRows):
        return array[key]
    return ArrayRows(array, np.arange(len(array))[key])


def plain(array: np.ndarray | ArrayRows) -> np.ndarray:
    """Return an array in C order with the strides of that, on which hashes depend."""
    values = np.asarray(array)
    return values.ravel().reshape(values.shape)

"""Private helpers of scikit-learn, imported in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils._param_validation import StrOptions
from sklearn.utils._set_output import ADAPTERS_MANAGER as _ADAPTERS
from sklearn.utils._set_output import _get_output_config

__all__ = ["ContainerOutput", "Interval", "StrOptions", "fit_context", "wrap_table"]


class Interval(_Interval):
    """Numbers between two bounds; booleans are rejected although they are integers in Python."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether a value lies in the interval."""
        return not isinstance(val, (bool, np.bool_)) and super().is_satisfied_by(val)


class ContainerOutput:
    """Mixin for transformers that return containers, which ``set_output`` does not convert.

    Declare the class with ``auto_wrap_output_keys=None``; otherwise scikit-learn puts a container into a data frame.
    """

    def set_output(self, *, transform: str | None = None) -> ContainerOutput:
        """Set the output container of 2-D outputs; other containers are returned unchanged.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            Container of the output of `transform` if that is a 2-D array.  None leaves the setting unchanged.

        Returns
        -------
        self : object
            The estimator.
        """
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self


def wrap_table(estimator: Any, table: Any, original: Any) -> Any:
    """Return the 2-D output `table` in the container configured by ``set_output`` or globally."""
    form = _get_output_config("transform", estimator)["dense"]
    if form == "default":
        return table
    return _ADAPTERS.adapters[form].create_container(table, original, columns=estimator.get_feature_names_out())

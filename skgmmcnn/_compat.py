"""scikit-learn's private helpers, in one place."""

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
    """Numbers between two bounds; True and False, which Python counts among the integers, are none."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether a parameter may have this value."""
        return not isinstance(val, (bool, np.bool_)) and super().is_satisfied_by(val)


class ContainerOutput:
    """Mixin for transformers that return containers: ``set_output`` is accepted and leaves containers alone.

    Declare the class with ``auto_wrap_output_keys=None``, or scikit-learn would put a container into a data frame.
    """

    def set_output(self, *, transform: str | None = None) -> ContainerOutput:
        """Choose the form of 2-D outputs; containers are returned as they are.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            The form of the output of `transform` where it is a 2-D array.  None changes nothing.

        Returns
        -------
        self : object
            The estimator itself.
        """
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self


def wrap_table(estimator: Any, table: Any, original: Any) -> Any:
    """Return the 2-D output `table` in the form that ``set_output`` or the global configuration asks for."""
    form = _get_output_config("transform", estimator)["dense"]
    if form == "default":
        return table
    return _ADAPTERS.adapters[form].create_container(table, original, columns=estimator.get_feature_names_out())

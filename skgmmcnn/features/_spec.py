"""Description of a network: modelled layers, their geometry, and names of outputs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._receptive_field import ReceptiveField

ONE_AT_A_TIME = (
    "Explain one output at a time, with a network that returns only that one (n, 1), as nn.Sequential(network, "
    "Column(3)) where the forward of Column returns x[:, [number]]; or define a decision: decision=callable."
)


@dataclass(frozen=True, eq=False)
class NetworkSpec:
    """The modelled layers of a network and its outputs.

    Parameters
    ----------
    layers : tuple of str
        Names in network order, the lowest first.
    shapes : dict of str to tuple (channels, height, width)
        Shape of the map of each layer; (d, 1, 1) for vectors.
    input_shape : tuple of int
        Shape of one preprocessed image (C, H, W), or (d,) for vectors.
    receptive_fields : dict of (upper, lower) to ReceptiveField
        Fields of all pairs of dependent layers, and of ``(layer, "input")``.
    n_outputs : int
        Number of outputs that the network decides between.
    class_names : tuple of str or None
        Names of the outputs.
    effective_fields : dict of (upper, lower) to ReceptiveField
        Effective fields of all pairs of `below`; empty if they were not measured.
    probabilities : bool
        Whether the network returns probabilities instead of scores.
    fingerprint : str or None
        SHA-256 of the weights, which identifies the network of maps; None without a network.
    """

    layers: tuple[str, ...]
    shapes: Mapping[str, tuple[int, int, int]]
    input_shape: tuple[int, ...]
    receptive_fields: Mapping[tuple[str, str], ReceptiveField]
    n_outputs: int
    class_names: tuple[str, ...] | None
    effective_fields: Mapping[tuple[str, str], ReceptiveField] = field(default_factory=dict)
    probabilities: bool = False
    fingerprint: str | None = None

    @property
    def below(self) -> dict[str, tuple[str, ...]]:
        """By layer, from the top down, the layers directly below, the uppermost first.

        This is the transitive reduction of the dependences.
        """
        descending = self.layers[::-1]
        lowers = {upper: {v for v in descending if (upper, v) in self.receptive_fields} for upper in descending}
        return {
            upper: tuple(v for v in descending if v in lowers[upper] and not any(v in lowers[m] for m in lowers[upper]))
            for upper in descending
        }

    def class_name(self, output: int) -> str:
        """Return the name of an output.

        Parameters
        ----------
        output : int
            Number of the output.

        Returns
        -------
        name : str
            Its name; its number if outputs have no names.
        """
        return str(output) if self.class_names is None else self.class_names[output]

    def class_index(self, label: Any) -> int:
        """Return the output number of a label.

        Parameters
        ----------
        label : int or str
            Output number or class name.

        Returns
        -------
        output : int
            Number of the output.
        """
        if isinstance(label, (int, np.integer)) and not isinstance(label, bool):
            if not 0 <= label < self.n_outputs:
                raise ValueError(f"The network has outputs 0 to {self.n_outputs - 1}; there is no output {label}.")
            return int(label)
        if self.class_names is None:
            raise ValueError(
                f"The class {label!r} is given by name, but the outputs have no names; give its number, or "
                "class_names to the FeatureExtractor."
            )
        places = [i for i, name in enumerate(self.class_names) if name == str(label)]
        if not places:
            near = difflib.get_close_matches(str(label), self.class_names, n=5, cutoff=0.4) or self.class_names[:5]
            raise ValueError(f"The network has no class {str(label)!r}. Near names: {', '.join(map(repr, near))}.")
        if len(places) > 1:
            raise ValueError(f"Several outputs are named {str(label)!r}: {places}; give the number of one of them.")
        return places[0]

    def encode(self, y: Sequence[Any] | np.ndarray, n_images: int) -> np.ndarray:
        """Return labels as output numbers.

        Parameters
        ----------
        y : array-like of shape (n,)
            Output numbers or class names.
        n_images : int
            Expected number of labels.

        Returns
        -------
        outputs : int array of shape (n,)
            Numbers of the outputs.
        """
        labels = np.asarray(y)
        if labels.ndim == 2 and len(labels) == n_images and np.isin(labels, (0, 1)).all():
            if (labels.sum(1) == 1).all():
                raise ValueError("y is one-hot encoded; give y.argmax(1).")
            raise ValueError(
                f"y marks any number of the {labels.shape[1]} classes per image (multi-label). {ONE_AT_A_TIME}"
            )
        if labels.shape != (n_images,):
            raise ValueError(f"y must contain one label per image: expected shape ({n_images},), got {labels.shape}.")
        if labels.dtype.kind == "f" and np.isfinite(labels).all() and np.array_equal(labels, labels.astype(int)):
            labels = labels.astype(int)
        wrong = [label for label in labels.tolist() if not isinstance(label, (int, str))]
        if wrong:
            raise ValueError(f"y must contain output numbers or class names; got {wrong[0]!r}.")
        distinct, inverse = np.unique(labels, return_inverse=True)
        codes = np.array([self.class_index(label) for label in distinct.tolist()], dtype=np.intp)
        return codes[inverse]


def check_layers(layers: str | Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return one or several layers, each once, all `known` layers if None; raise ValueError for an unknown one."""
    if layers is None:
        return tuple(known)
    names = tuple(dict.fromkeys([layers] if isinstance(layers, str) else layers))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known) or known
            raise ValueError(f"There is no layer {name!r}; there is {', '.join(map(repr, near))}.")
    return names


def check_class_names(names: Sequence[str] | Mapping[int, str] | None, n_outputs: int) -> tuple[str, ...] | None:
    """Return names as a tuple, also from a dict by output; raise an error unless there is one per output."""
    if names is None:
        return None
    if isinstance(names, Set):
        raise TypeError(f"class_names is a {type(names).__name__}; give a list with one name per output, in order.")
    if len(names) != n_outputs:
        raise ValueError(f"class_names has {len(names)} names, but the network has {n_outputs} outputs.")
    if isinstance(names, Mapping):
        if set(names) != set(range(n_outputs)):
            raise ValueError(
                f"class_names is a dict with keys {list(names)[:5]}; they must be the outputs 0 to {n_outputs - 1}."
            )
        names = [names[output] for output in range(n_outputs)]
    return tuple(map(str, names))

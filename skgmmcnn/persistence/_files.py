"""Files of fitted estimators: arrays as safetensors, other values as JSON in the header, with a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from .._files import replace
from ._networks import ALL_KINDS
from ._values import Packer, Unpacker

_VERSION, _SUFFIX = 1, ".safetensors"


def save(estimator: BaseEstimator, path: str | PathLike, *, embed: bool = True) -> None:
    """Save a fitted pipeline, or one fitted estimator, to a file without pickle.

    The file has the safetensors format, with JSON in its header.  It contains no code, so loading it executes none.
    Networks given by torchvision name are built by torchvision; a network of your own class, and your own functions
    for preprocessing or decisions, are passed to :func:`load`.

    Parameters
    ----------
    estimator : Pipeline or estimator of this package
        Fitted estimator.  The `memory` of a pipeline and the `store` of an extractor are not saved: the folders are
        chosen by the user who loads the file.
    path : str or path
        The file, with the suffix ``.safetensors`` or none.  An existing file is replaced once the new one is complete.
    embed : bool, default=True
        Whether to save the weights of the network.  If False, :func:`load` takes them from torchvision, or from the
        network or the weights file passed to it, and compares their SHA-256.

    Raises
    ------
    TypeError
        If an attribute is neither an object of this package nor numbers or text; the error names the attribute.
    ValueError
        If the suffix belongs to another format, such as ``.pkl``.

    See Also
    --------
    load : Load the file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skgmmcnn import LayerDictionary, load, save
    >>> rows = np.random.default_rng(0).random((50, 3))
    >>> dictionary = LayerDictionary(4, random_state=0).fit(rows)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(dictionary, Path(folder) / "words.safetensors")
    ...     again = load(Path(folder) / "words.safetensors")
    >>> bool((again.predict(rows) == dictionary.predict(rows)).all())
    True
    """
    check_is_fitted(estimator)
    path = Path(path)
    if path.suffix not in ("", _SUFFIX):
        raise ValueError(f"{str(path)!r} has the suffix of another format; use {_SUFFIX!r}, or no suffix.")
    pack = Packer(ALL_KINDS, embed)
    packed = pack.attribute(type(estimator).__name__, estimator)
    document = json.dumps({"needs": pack.needs, "networks": pack.networks, "estimator": packed})
    about = {"skgmmcnn": document, "version": str(_VERSION)}
    about["sha256"] = _checksum(about, pack.arrays)
    from safetensors.torch import save as to_bytes

    replace(path, lambda file: file.write(to_bytes(pack.arrays, about)))


def load(
    path: str | PathLike,
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    preprocess: Callable | None = None,
    decision: Callable | None = None,
    weights: str | PathLike | None = None,
) -> Any:
    """Load a file written by :func:`save`.

    No code in the file is executed: only pipelines and estimators of this package are created, and filled with
    numbers.  A file cannot refer to other files.

    Parameters
    ----------
    path : str or path
        The file.
    model : torch.nn.Module or callable, default=None
        The network, or a function without arguments that returns it, if torchvision cannot build it.  The saved weights
        are loaded into a copy, whose activations are compared with those at the time of saving.
    preprocess : callable, default=None
        The preprocessing, if it was a function of your own.
    decision : callable, default=None
        The decision function, if it was a function of your own.
    weights : str or path, default=None
        The weights of the network, if they came from a file and the pipeline was saved with ``embed=False``.

    Returns
    -------
    estimator : object
        The fitted estimator; the same images get the same explanations.

    Raises
    ------
    ValueError
        If the file is damaged, has another version or was not written by :func:`save`, or if an object that it needs is
        missing or does not fit; the error names the file.

    See Also
    --------
    save : Save an estimator.

    Examples
    --------
    >>> from skgmmcnn import load
    >>> pipe = load("digits.safetensors", model=DigitsNetwork)  # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    passed = {"model": model, "preprocess": preprocess, "decision": decision, "weights": weights}
    arguments = {name: value for name, value in passed.items() if value is not None}
    try:
        document, arrays = _read(path)
        _check_arguments(document["needs"], arguments)
        estimator = Unpacker(ALL_KINDS, arrays, document["networks"], arguments)(document["estimator"])
        if not isinstance(estimator, BaseEstimator):
            raise ValueError(f"it contains a {type(estimator).__name__} instead of an estimator.")
    except OSError:
        raise
    except Exception as error:  # a document that save did not write can fail anywhere
        reason = str(error)
        if not isinstance(error, ValueError):
            kind = type(error).__name__
            reason = f"it was not written by skgmmcnn.save, or an argument does not fit ({kind}: {error})."
        raise ValueError(f"{str(path)!r} cannot be loaded: {reason}") from error
    return estimator


def _check_arguments(needs: dict[str, str], arguments: dict[str, Any]) -> None:
    """Raise an error if code or files that were not saved are missing, or others are passed."""
    missing = [name for name in needs if name not in arguments]
    if missing:
        objects = ", ".join(f"{name} ({needs[name]})" for name in missing)
        call = ", ".join(f"{name}=..." for name in missing)
        raise ValueError(f"it contains no code and needs yours for {objects}: load(path, {call}).")
    for name in arguments.keys() - needs - {"model"}:  # another network may replace one that torchvision builds
        raise ValueError(f"it needs no {name}: its own is saved.")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the document and the arrays of an undamaged file."""
    if not path.is_file():
        raise ValueError("it is a folder, or not a regular file.")
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is damaged, or was not written by skgmmcnn.save: {error}.") from error
    if "skgmmcnn" not in about:
        raise ValueError("it was not written by skgmmcnn.save: it contains arrays, but no estimator.")
    if about.get("version") != str(_VERSION):
        raise ValueError(
            f"it has version {about.get('version')}, and this skgmmcnn reads version {_VERSION}; load it with the "
            "skgmmcnn that wrote it, or fit again."
        )
    if about.get("sha256") != _checksum(about, arrays):
        raise ValueError("it is damaged: its checksum does not match its content.")
    return json.loads(about["skgmmcnn"]), arrays


def _checksum(about: dict[str, str], arrays: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the whole content of a file except the checksum."""
    digest = hashlib.sha256()
    for name in sorted(set(about) - {"sha256"}):
        digest.update(f"{name}={about[name]}\n".encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {tuple(arrays[name].shape)}".encode())
        digest.update(arrays[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

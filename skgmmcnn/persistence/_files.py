"""One file for a fitted estimator: arrays as safetensors, all else as JSON in its header, under a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._files import replace
from ._networks import ALL_KINDS
from ._values import Packer, Unpacker

_VERSION, _SUFFIX = 1, ".safetensors"


def save(estimator: BaseEstimator, path: str | PathLike, *, embed: bool = True) -> None:
    """Write a fitted pipeline, or one fitted estimator, to a file without pickle.

    The file is of the safetensors format: numbers, and JSON in its header.  It holds no code, so loading runs none.
    What is code comes from elsewhere: networks by torchvision name are built by torchvision; one of your own class,
    and functions of your own that preprocess images or decide, are passed to :func:`load`.

    Parameters
    ----------
    estimator : Pipeline or estimator of this package
        Fitted.  A pipeline's `memory` and an extractor's `store` are not kept: where files go is for whoever loads it
        to choose.
    path : str or path
        The file, with the suffix ``.safetensors`` or none; one that is there is replaced, once the new one is complete.
    embed : bool, default=True
        Whether the file holds the network's weights.  If not, :func:`load` takes them from torchvision, or from the
        network or the weights file that is passed to it, and checks them by their SHA-256.

    Raises
    ------
    TypeError
        Where something is neither this package's nor numbers or text; its place is named.
    ValueError
        Where the suffix is of another format, as ``.pkl``.

    See Also
    --------
    load : Reads the file.

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
        raise ValueError(
            f"{str(path)!r} has the suffix of another format; files of this one end in {_SUFFIX!r}, or have no suffix."
        )
    pack = Packer(ALL_KINDS, embed)
    with pack.at(type(estimator).__name__):
        packed = pack(estimator)
    document = json.dumps({"given": pack.given, "networks": pack.networks, "estimator": packed})
    about = {"skgmmcnn": document, "version": str(_VERSION)}
    about["sha256"] = _checksum(about, pack.arrays)
    from safetensors.numpy import save as serialized

    replace(path, lambda file: file.write(serialized(pack.arrays, about)))


def load(
    path: str | PathLike,
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    preprocess: Callable | None = None,
    decision: Callable | None = None,
    weights: str | PathLike | None = None,
) -> Any:
    """Read what :func:`save` has written.

    Nothing in the file is run: only estimators of this package and pipelines are made, and numbers put into them.
    Nor does a file name others: whatever is read or written elsewhere is named by you.

    Parameters
    ----------
    path : str or path
        The file.
    model : torch.nn.Module or callable, default=None
        The network, or a function without arguments that returns it, where torchvision cannot build it.  The saved
        weights are put into a copy of it, and what it then returns is compared with what it returned when it was saved.
    preprocess : callable, default=None
        The preprocessing, where that was a function of your own.  One that equals the saved one is accepted.
    decision : callable, default=None
        What makes decisions of outputs, where that was a function of your own.
    weights : str or path, default=None
        The network's weights, where the pipeline took them from a file and was saved with ``embed=False``.

    Returns
    -------
    estimator : object
        Fitted as it was; the same images get the same explanations.

    Raises
    ------
    ValueError
        If the file is damaged, of another version or of something else, or if what it needs is not passed or does not
        fit; it names the file.

    See Also
    --------
    save : Writes the file.

    Examples
    --------
    >>> from skgmmcnn import load
    >>> pipe = load("digits.safetensors", model=DigitsNetwork)  # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    passed = {"model": model, "preprocess": preprocess, "decision": decision, "weights": weights}
    given = {name: value for name, value in passed.items() if value is not None}
    try:
        return _unpacked(path, given)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be loaded: {error}") from error
    except OSError:
        raise
    except Exception as error:  # whatever a document meets that was never written by save
        raise ValueError(
            f"{str(path)!r} cannot be loaded: it was not written by skgmmcnn.save, or what was passed does not fit "
            f"({type(error).__name__}: {error})."
        ) from error


def _unpacked(path: Path, given: dict[str, Any]) -> BaseEstimator:
    document, arrays = _read(path)
    _check_given(given, document["given"])
    estimator = Unpacker(ALL_KINDS, arrays, document["networks"], given)(document["estimator"])
    if not isinstance(estimator, BaseEstimator):
        raise ValueError(f"it holds a {type(estimator).__name__} instead of an estimator.")
    _check_surplus(estimator, {name: value for name, value in given.items() if name not in document["given"]})
    return estimator


def _check_given(given: dict[str, Any], needed: dict[str, str]) -> None:
    """Raise an error where code or files that were not saved are not passed."""
    missing = [name for name in needed if name not in given]
    if missing:
        what = ", ".join(f"{name} ({needed[name]})" for name in missing)
        call = ", ".join(f"{name}=..." for name in missing)
        raise ValueError(f"it holds no code and needs yours for {what}: load(path, {call}).")


def _check_surplus(estimator: BaseEstimator, surplus: dict[str, Any]) -> None:
    """Raise an error where something is passed in place of what was saved, and differs from it."""
    surplus.pop("model", None)  # another network may stand in for one that torchvision builds
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    for name, value in surplus.items():
        saved = [getattr(step, f"{name}_", getattr(step, name, None)) for step in steps]
        if not any(type(value) is type(other) and repr(value) == repr(other) for other in saved):
            raise ValueError(f"it needs no {name}: what was saved has its own or none, and the one passed differs.")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the document and the arrays, having checked that they are what was written."""
    if not path.is_file():
        raise ValueError("it is a folder, or no regular file.")
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is damaged, or was not written by skgmmcnn.save: {error}.") from error
    if "skgmmcnn" not in about:
        raise ValueError("it was not written by skgmmcnn.save: it holds arrays, but no estimator.")
    if about.get("version") != str(_VERSION):
        raise ValueError(
            f"it is of version {about.get('version')}, and this skgmmcnn reads version {_VERSION}; load it with the "
            "skgmmcnn that wrote it, or fit again."
        )
    if about.get("sha256") != _checksum(about, arrays):
        raise ValueError("it is damaged: its checksum is not that of what it holds.")
    return json.loads(about["skgmmcnn"]), arrays


def _checksum(about: dict[str, str], arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of all that a file holds, but for itself."""
    digest = hashlib.sha256()
    for name in sorted(set(about) - {"sha256"}):
        digest.update(f"{name}={about[name]}\n".encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

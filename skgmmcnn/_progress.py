"""Progress bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def progress(things: Sequence[Any] | None = None, *, shown: Any = True, delay: float = 0, **options: Any) -> Any:
    """Return a progress bar of tqdm over `things`, or of `total` steps, if it is `shown`; `options` are those of tqdm.

    A bar that appears after `delay` seconds is text also in notebooks.
    """
    if shown and not delay:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # warns in notebooks without ipywidgets
    else:
        from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):
        monitor_interval = 0  # no thread that refreshes slow bars

    return Bar(things, disable=not shown, delay=delay, miniters=1, **options)

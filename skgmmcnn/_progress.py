"""Progress bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]


class progress(tqdm):
    """A progress bar of tqdm over `things`, or of `total` steps, if it is `shown`; `options` are those of tqdm."""

    monitor_interval = 0  # no thread that refreshes slow bars

    def __init__(self, things: Sequence[Any] | None = None, *, shown: Any = True, **options: Any) -> None:
        super().__init__(things, disable=not shown, miniters=1, **options)

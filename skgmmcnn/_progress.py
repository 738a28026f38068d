"""Progress bars."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Silent(Generic[T]):
    """The interface of a progress bar, without output."""

    def __init__(self, things: Iterable[T]) -> None:
        self._things = things

    def __iter__(self) -> Iterator[T]:
        return iter(self._things)

    def __enter__(self) -> _Silent[T]:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, n: int) -> None:
        """Do nothing."""

    def set_postfix_str(self, text: str) -> None:
        """Do nothing."""


def progress(things: Iterable[T] = (), *, shown: Any, total: int | None = None, **named: Any) -> Any:
    """Return a progress bar over `things`, or over `total` updates; it does nothing unless `shown`.

    `named` are keywords of tqdm, which is imported only if a bar is shown.
    """
    if not shown:
        return _Silent(things)
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    return tqdm(things, total=total, **named) if total is None else tqdm(total=total, **named)


class DelayedBar:
    """A progress bar of `total` steps that appears after `PATIENCE` seconds; `named` are keywords of tqdm."""

    PATIENCE = 2.0  # seconds

    def __init__(self, total: int, **named: str) -> None:
        self._total, self._named = total, named
        self._started, self._n = time.monotonic(), 0
        self._bar: Any = None

    def update(self, n: int) -> None:
        """Advance by n steps."""
        self._n += n
        if self._bar is not None:
            self._bar.update(n)
        elif time.monotonic() - self._started > self.PATIENCE:
            self._bar = progress(total=self._total, shown=True, **self._named)
            self._bar.update(self._n)

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

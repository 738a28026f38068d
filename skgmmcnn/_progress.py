"""Progress bars, and nothing in their place where none is shown."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Silent(Generic[T]):
    """What a bar can do, without a bar."""

    def __init__(self, things: Iterable[T]) -> None:
        self._things = things

    def __iter__(self) -> Iterator[T]:
        return iter(self._things)

    def __enter__(self) -> _Silent[T]:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, n: int) -> None:
        """Take no notice of n more."""

    def set_postfix_str(self, text: str) -> None:
        """Take no notice of what is being done."""


def progress(things: Iterable[T] = (), *, shown: Any, total: int | None = None, **named: Any) -> Any:
    """Return a bar over `things`, or one to be told of `total` of them; it is `shown`, or does nothing.

    Its names `desc` and `unit` are those of tqdm, which is imported only for a bar that is shown.
    """
    if not shown:
        return _Silent(things)
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    return tqdm(things, total=total, **named) if total is None else tqdm(total=total, **named)


class Late:
    """A bar that appears once the work has taken longer than anybody waits for without a word.

    Parameters
    ----------
    total : int
        The number of steps.
    **named
        Names for tqdm.
    """

    PATIENCE = 2.0  # seconds

    def __init__(self, total: int, **named: str) -> None:
        self._total, self._named = total, named
        self._started, self._n = time.monotonic(), 0
        self._bar: Any = None

    def update(self, n: int) -> None:
        """Count n more steps."""
        self._n += n
        if self._bar is not None:
            self._bar.update(n)
        elif time.monotonic() - self._started > self.PATIENCE:
            self._bar = progress(total=self._total, shown=True, **self._named)
            self._bar.update(self._n)

    def close(self) -> None:
        """End the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()

"""Progress bars."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any


class progress:
    """A progress bar over `things`, or of `total` steps, that appears after `delay` seconds if it is `shown`.

    `named` are keywords of tqdm, which is imported when the bar appears.
    """

    def __init__(
        self,
        things: Sequence[Any] = (),
        *,
        total: int | None = None,
        shown: Any = True,
        delay: float = 0,
        **named: Any,
    ) -> None:
        self._things, self._shown, self._delay = things, shown, delay
        self._named = {"total": len(things) if total is None else total, **named}
        self._started, self._n = time.monotonic(), 0
        self._bar: Any = None
        self.update(0)

    def __iter__(self) -> Iterator[Any]:
        with self:
            for thing in self._things:
                yield thing
                self.update(1)

    def __enter__(self) -> progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, n: int) -> None:
        """Advance by n steps."""
        self._n += n
        if self._bar is not None:
            self._bar.update(n)
        elif self._shown and time.monotonic() - self._started >= self._delay:
            from tqdm.auto import tqdm  # type: ignore[import-untyped]

            self._bar = tqdm(**self._named)
            self._bar.update(self._n)

    def set_postfix_str(self, text: str) -> None:
        """Show a text after the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)

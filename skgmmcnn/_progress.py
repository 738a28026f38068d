"""Progress bars, and nothing in their place where none is shown."""

from __future__ import annotations

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


def progress(things: Iterable[T] = (), *, shown: Any, total: int | None = None, **named: str) -> Any:
    """Return a bar over `things`, or one to be told of `total` of them; it is `shown`, or does nothing.

    Its names `desc` and `unit` are those of tqdm, which is imported only for a bar that is shown.
    """
    if not shown:
        return _Silent(things)
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    return tqdm(things, total=total, **named) if total is None else tqdm(total=total, **named)

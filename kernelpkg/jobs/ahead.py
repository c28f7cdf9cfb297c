"""Items made by a thread before they are asked for, so that workers need not wait for them."""

from __future__ import annotations

import contextvars
import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def ahead(items: Iterator[_T], count: int) -> Generator[_T]:
    """Yield the items of an iterator, of which a thread makes so many before they are asked for.

    Closing it, or an error, waits for the item in work and makes no more.
    """
    pool = ThreadPoolExecutor(max_workers=1)
    inside = contextvars.copy_context().run  # errors are told there as they are here

    def one() -> list[_T]:
        return [*itertools.islice(items, 1)]

    try:
        coming = deque(pool.submit(inside, one) for _ in range(count))
        while found := coming.popleft().result():
            coming.append(pool.submit(inside, one))
            yield found[0]
    finally:
        pool.shutdown(cancel_futures=True)

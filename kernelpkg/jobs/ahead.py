"""Items made by a thread before they are asked for, so that workers need not wait for them."""

from __future__ import annotations

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
    try:
        coming = deque(pool.submit(lambda: [*itertools.islice(items, 1)]) for _ in range(count))
        while found := coming.popleft().result():
            coming.append(pool.submit(lambda: [*itertools.islice(items, 1)]))
            yield found[0]
    finally:
        pool.shutdown(cancel_futures=True)

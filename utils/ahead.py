"""Work that goes on beside its consumer."""

from collections import deque
from contextlib import contextmanager


@contextmanager
def closing(iterator):
    """Close the iterator after the block, if it is a generator. One that holds threads waits for their end then: left to the
    garbage collector, which runs in any thread, it could do so in one of those threads and wait for ever."""
    try:
        yield iterator
    finally:
        getattr(iterator, "close", lambda: None)()


def in_order(submit, items, ahead):
    """Yield submit(item) for each item, in order, with up to `ahead` more items submitted already.

    With ``submit = lambda item: pool.submit(function, item)`` the results are futures, of which at most `ahead` + 1 are held.
    """
    waiting = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting

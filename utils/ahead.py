"""Work that goes on beside its consumer."""

from collections import deque


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

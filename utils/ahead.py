"""Work that goes on beside its consumer."""

import multiprocessing
import traceback
from collections import deque
from contextlib import contextmanager

from utils.errors import TOO_MANY, InputError, first_line


@contextmanager
def closing(iterator):
    """Close the iterator after the block, if it is a generator. One that holds threads waits for their end then: left to the
    garbage collector, which runs in any thread, it could do so in one of those threads and wait for ever."""
    try:
        yield iterator
    finally:
        getattr(iterator, "close", lambda: None)()


@contextmanager
def starting(what, instead):
    """Start processes in the block: where the system refuses that, as without room in /dev/shm or with too many open files, end
    all that have started and raise InputError. instead: the option that does without."""
    try:
        yield
    except OSError as error:
        for process in multiprocessing.active_children():
            process.kill()
        for frame, _ in traceback.walk_tb(error.__traceback__):
            half_made = frame.f_locals.get("self")
            if hasattr(half_made, "_shutdown_workers"):  # torch's iterator, which would print a traceback when it goes
                half_made._shutdown = True
        mend = "" if error.errno in TOO_MANY else ", or make room in /dev/shm and let it be written to"
        raise InputError(f"{what} cannot be started ({first_line(error)}); give {instead}{mend}") from None


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

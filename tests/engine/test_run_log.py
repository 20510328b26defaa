"""Files that a training writes from a thread."""

import threading

import pytest

from utils.engine.run_log import BackgroundWriter


def test_jobs_are_done_in_order_beside_the_caller():
    writer, done, go = BackgroundWriter(), [], threading.Event()
    writer.submit(lambda: go.wait(20) and done.append(threading.current_thread()))
    for number in range(5):
        writer.submit(lambda number=number: done.append(number))
    assert done == []
    go.set()
    writer.wait()
    assert done[1:] == [0, 1, 2, 3, 4] and done[0] is not threading.current_thread()
    writer.submit(lambda: done.append("last"))
    writer.close()
    assert done[-1] == "last"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_after_a_job_that_failed_none_is_done_and_the_caller_hears_of_it(error):
    def fail():
        raise error

    writer, done, go = BackgroundWriter(), [], threading.Event()
    writer.submit(go.wait)
    writer.submit(fail)
    writer.submit(lambda: done.append("after"))
    writer.check()  # nothing has failed yet
    go.set()
    with pytest.raises(type(error)):
        writer.wait()
    writer.submit(lambda: done.append("later"))
    writer.close()
    assert done == []
    writer.close()

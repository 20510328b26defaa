"""TensorBoard's events of a run. They are extras: that they cannot be written, as on a full disk, is told once and stops nothing."""

import os
import socket
import time
from contextlib import contextmanager, suppress

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm


class Board:
    """Writes scalars into a new file of events in `folder`; those of `purge_step` and later in older files no longer count.

    It writes from the caller's thread: TensorBoard's own writer has a thread, which dies of a full disk with a traceback.
    """

    def __init__(self, folder, purge_step):
        self._file = None
        with self._going_without():
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
            self._file = open(folder / name, "wb")  # noqa: SIM115
        self._add(file_version="brain.Event:2")
        self._add(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, tag, value, step):
        self._add(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=float(value))]))

    def flush(self):
        with self._going_without():
            if self._file:
                self._file.flush()

    def close(self):
        with self._going_without():
            if self._file:
                self._file.close()
        self._file = None

    def _add(self, **content):
        with self._going_without():
            if self._file:
                RecordWriter(self._file).write(Event(wall_time=time.time(), **content).SerializeToString())

    @contextmanager
    def _going_without(self):
        try:
            yield
        except OSError as error:
            tqdm.write(f"TensorBoard's events are no longer written ({error.strerror or error}); training goes on")
            with suppress(OSError, AttributeError):
                self._file.close()
            self._file = None

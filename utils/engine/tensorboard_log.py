"""TensorBoard events of a run. If they cannot be written, as on a full disk, one message is printed and training goes
on.

They are written from the caller's thread: on a full disk, the thread of TensorBoard's own writer dies with a traceback.
"""

import contextlib
import os
import socket
import time

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm


class TensorBoardLog:
    """Writes a new event file in `folder`. TensorBoard then ignores points of `purge_step` and later in older files."""

    def __init__(self, folder, purge_step):
        self._file = None
        with self._optional():
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
            self._file = open(folder / name, "wb")  # noqa: SIM115
            self._write(file_version="brain.Event:2")
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalars(self, points):
        """points: a list of (tag, value, step)."""
        if self._file:
            with self._optional():
                for tag, value, step in points:
                    self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=float(value))]))
                self._file.flush()

    def close(self):
        if self._file:
            with self._optional():
                self._file.close()

    def _write(self, **content):
        RecordWriter(self._file).write(Event(wall_time=time.time(), **content).SerializeToString())

    @contextlib.contextmanager
    def _optional(self):
        try:
            yield
        except OSError as error:
            tqdm.write(f"TensorBoard's events are no longer written ({error.strerror or error}); training goes on")
            file, self._file = self._file, None
            with contextlib.suppress(OSError, AttributeError):
                file.close()

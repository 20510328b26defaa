"""Ending a training early without losing a step: at a time limit, or when a signal asks for it."""

import contextlib
import os
import signal
import threading
import time

SIGNALS = {signal.SIGINT: "Ctrl+C", signal.SIGTERM: "SIGTERM"}
if hasattr(signal, "SIGHUP"):
    SIGNALS[signal.SIGHUP] = "SIGHUP"  # the terminal has gone away
APART = 1.0  # seconds: `timeout` and torchrun may send a signal twice at once, a person needs longer


class Stopped(Exception):
    """The training has been saved and ends here. The message says why."""


class Stop:
    """Why a training is to stop, if it is. As a context it takes signals in, where they are not ignored: the first asks for a stop,
    which the training makes when it is ready for it; a second Ctrl+C ends the process at once.

    The signals are heard by a thread, so that the second one ends a step that takes long inside torch too.
    limit: seconds from the time `started` on; 0: none. tells: say on stderr that a signal was heard.
    """

    def __init__(self, started, limit=0.0, tells=True):
        self.ends, self.limit, self.tells, self.signalled = started + limit, limit, tells, None

    @property
    def why(self):
        """None: go on. Otherwise the reason to stop, to stand after "stopped"."""
        return self.by_signal or ("at the time limit" if self.limit and time.time() >= self.ends else None)

    @property
    def by_signal(self):
        """`why`, as far as signals go."""
        return f"by {SIGNALS[self.signalled]}" if self.signalled is not None else None

    def __enter__(self):
        self.before = None
        if threading.current_thread() is not threading.main_thread():
            return self  # only there can signals be taken in
        self.ear, mouth = os.pipe()
        os.set_blocking(mouth, False)
        self.mouth, self.fd_before = mouth, signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as by nohup
        self.before = {number: signal.signal(number, lambda *_: None) for number in heard}
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        if self.before is None:
            return
        signal.set_wakeup_fd(self.fd_before)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        os.write(self.mouth, b"\0")  # closing would not end the thread: loading processes hold the pipe too
        self.thread.join()
        os.close(self.mouth)
        os.close(self.ear)

    def _listen(self):
        first = None
        while number := ord(os.read(self.ear, 1)):
            if number in SIGNALS and first is None:
                first, self.signalled = time.monotonic(), number
                self._tell(f"{SIGNALS[number]}: stopping after this step; Ctrl+C again stops at once")
            elif number == signal.SIGINT and time.monotonic() - first > APART:
                self._tell("stopped at once by Ctrl+C")
                os._exit(130)  # all files are whole at any time

    def _tell(self, what):
        if self.tells:
            with contextlib.suppress(OSError):  # no terminal any more
                os.write(2, f"\n{what}\n".encode())

"""Ending a training early without losing a step: at a time limit, or when a signal asks for it."""

import contextlib
import os
import signal
import threading
import time

SIGNALS = {signal.SIGINT: "Ctrl+C", signal.SIGTERM: "SIGTERM"}
if hasattr(signal, "SIGHUP"):
    SIGNALS[signal.SIGHUP] = "SIGHUP"  # the terminal has gone away
APART = 1.0  # seconds: `timeout` and torchrun may send a signal twice at once, a person takes longer


class Stopped(Exception):
    """The training has been saved and ends here. The message says why."""


class Stop:
    """Why a training is to stop, if it is. As a context it handles signals that are not ignored: the first asks for a stop, which
    the training makes when it is ready; a second Ctrl+C ends the process at once.

    A thread reads the signals, so that the second one also ends a step that takes long inside torch.
    limit: seconds from the time `started` on; 0: none. prints: report a signal on stderr.
    """

    def __init__(self, started, limit=0.0, prints=True):
        self.ends, self.limit, self.prints, self.received = started + limit, limit, prints, None

    @property
    def reason(self):
        """None: go on. Otherwise the reason to stop, to stand after "stopped"."""
        return self.by_signal or ("at the time limit" if self.limit and time.time() >= self.ends else None)

    @property
    def by_signal(self):
        """`reason`, as far as signals go."""
        return f"by {SIGNALS[self.received]}" if self.received is not None else None

    def __enter__(self):
        self.before = None
        if threading.current_thread() is not threading.main_thread():
            return self  # only there can signals be handled
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.fd_before = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        handled = [
            number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
        ]  # ignored as by nohup
        self.before = {number: signal.signal(number, lambda *_: None) for number in handled}
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        if self.before is None:
            return
        signal.set_wakeup_fd(self.fd_before)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        os.write(self.writer, b"\0")  # closing would not end the thread: DataLoader workers hold the pipe too
        self.thread.join()
        os.close(self.writer)
        os.close(self.reader)

    def _listen(self):
        first = None
        while number := ord(os.read(self.reader, 1)):
            if number in SIGNALS and first is None:
                first, self.received = time.monotonic(), number
                self._print(f"{SIGNALS[number]}: stopping after this step; Ctrl+C again stops at once")
            elif number == signal.SIGINT and time.monotonic() - first > APART:
                self._print("stopped at once by Ctrl+C")
                os._exit(130)  # all files are whole at any time

    def _print(self, message):
        if self.prints:
            with contextlib.suppress(OSError):  # the terminal is gone
                os.write(2, f"\n{message}\n".encode())


CONTINUE, SAVE, STOP = range(
    3
)  # what a process requests between two steps; the largest request of all processes counts


def requested(record, stop, limited=True):
    """What this process requests. limited: whether the time limit counts."""
    return STOP if (stop.reason if limited else stop.by_signal) else SAVE if record.due else CONTINUE


def act_on(request, trainer, record, stop):
    """Save the state if that is requested; raise Stopped after it if the run is to stop."""
    if request:
        record.save()
    if request == STOP:
        record.wait()
        progress = trainer.progress
        batch = f"batch {progress.position:,} of {trainer.steps_per_epoch:,} of epoch {progress.epoch}"
        reason = stop.reason or "by a signal"
        raise Stopped(f"stopped {reason} after step {progress.step:,} ({batch}), saved in {record.last}")


def checks_during_validation(trainer, loader, record, stop):
    """-> a function to call between the batches of a validation, which can be saved before and stopped in."""
    # Processes may differ by one batch; they can agree only after as many batches as all of them have.
    common = iter(range(-(-(len(loader.dataset) // trainer.context.world_size) // loader.batch_size)))
    # Without a step since the start, a limit shorter than a validation would never let the run get any further.
    limited = trainer.progress.step > record.first_step

    def between():
        record.catch_up()
        if next(common, None) is not None:
            act_on(trainer.context.largest(requested(record, stop, limited), trainer.device), trainer, record, stop)

    return between

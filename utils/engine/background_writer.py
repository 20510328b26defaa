"""Writing files beside a training: from a thread, one job after another."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import torch


class Writer:
    """Runs the jobs it is given in their order, from a thread of its own that begins with the first.

    What a job raises comes out of the next call of a method here, and the jobs after it are not done: what they write may say
    that the failed one's file is there.
    """

    def __init__(self, device=None):
        """device: of the tensors that jobs may wait for; a GPU becomes the thread's current one too."""
        self._device, self._thread, self._jobs, self._failed = device, None, deque(), False

    def submit(self, job):
        """Have a function without arguments called, when those before it are done."""
        self.check()
        self._thread = self._thread or ThreadPoolExecutor(1, "writer", self._begin)
        self._jobs.append(self._thread.submit(self._run, job))

    def check(self):
        """Raise what a job that is done has raised; do not wait."""
        while self._jobs and self._jobs[0].done():
            self._jobs.popleft().result()

    def wait(self):
        """Until all is written, or raise what kept it from being."""
        while self._jobs:
            self._jobs.popleft().result()

    def close(self):
        """Let what is waiting be written, and end. Raises nothing."""
        self._jobs.clear()
        if self._thread:
            self._thread.shutdown()

    def _begin(self):
        if self._device and self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def _run(self, job):
        if self._failed:
            return
        try:
            job()
        except BaseException:
            self._failed = True
            raise

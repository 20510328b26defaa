"""Writes a run's checkpoints, predictions and logs from a thread. (utils/runs/run_folder.py reads them.)"""

import contextlib
import functools
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch

from utils.data.readable import write_skipped
from utils.engine import checkpoint, resume
from utils.engine.tensorboard_log import TensorBoardLog
from utils.errors import InputError, listing
from utils.files import write_csv, write_json
from utils.runs.predictions import EPOCHS_FOLDER, epoch_files, write_epoch, write_predictions
from utils.runs.run_folder import WEIGHTS, write_rows


class RunLog:
    """Context that writes the files of one run. In distributed training only the first process writes.

    Files are written during training, in this order: an epoch's predictions, best.safetensors, oof.csv, the logs,
    last.pt. So all files are whole at any moment, and the files that last.pt refers to exist.

    train_rows, valid_rows, skipped: DataFrames of the images trained on, validated on (in the order of the
    probabilities) and skipped. every: seconds between saves within an epoch (see `due`); 0: save only at its end.
    """

    def __init__(self, run, trainer, train_rows, valid_rows, skipped, every, writes=True):
        self.run, self.trainer, self.every, self.writes = run, trainer, every, writes
        self.train_rows, self.valid_rows, self.skipped = train_rows, valid_rows, skipped
        self.last = run / "last.pt"
        self.first_step = self.saved_step = trainer.progress.step
        self.saved_at = time.monotonic()
        self.seconds = 0.0  # that training has waited for saving
        self.writer, self.points = BackgroundWriter(trainer.device), []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.writer.close()
        if self.writes:
            self.catch_up()
            self.events.close()

    def begin(self):
        """Write the files known before the first step; remove those that a killed process wrote after its last save."""
        if not self.writes:
            return
        if not self.trainer.progress.step:
            resume.clear(self.run)
            write_skipped(self.run, self.skipped)
        write_json(self.run / "config.json", self.trainer.config.to_dict())
        write_rows(self.run / "rows.csv", self.train_rows, self.valid_rows)
        done = self.trainer.progress.epoch - (self.trainer.progress.position > 0)
        later = [path for epoch, path in epoch_files(self.run) if epoch > done]
        for path in [*self.run.glob(".*.part"), *(self.run / EPOCHS_FOLDER).glob(".*.part"), *later]:
            path.unlink(missing_ok=True)
        self._write_logs(self.trainer.progress.log, self.trainer.progress.steps)
        self.events = TensorBoardLog(self.run / "tensorboard", purge_step=self.trainer.progress.step + 1)

    def step(self, curves):
        """Log the curves of the last step."""
        progress = self.trainer.progress
        progress.steps.append({"epoch": progress.epoch, "step": progress.step} | curves)
        self._add_points("train", curves)

    def catch_up(self):
        """Write collected points to TensorBoard while the device is busy. Raises InputError if a write failed."""
        self.writer.check()
        if self.points:
            self.events.add_scalars(self.points)
            self.points.clear()

    @property
    def due(self):
        return bool(self.every) and time.monotonic() - self.saved_at >= self.every

    def save(self):
        """Write last.pt, so that the run can continue with the next step. Every process calls it between two steps."""
        with self._timed():
            self.wait()  # one state at a time, in memory too
            self._submit([])

    def wait(self):
        """Wait until all files are written. Raises InputError if a write fails."""
        self.writer.wait()

    def epoch(self, probabilities, kept, values, valid):
        """End an epoch: write its validation `probabilities`, the weights and oof.csv if they are to be `kept`, its row of
        log.csv (means over its steps, `values` and `valid`), and the state. -> the means."""
        trainer = self.trainer
        rows = [row for row in trainer.progress.steps if row["epoch"] == trainer.progress.epoch]
        if not rows:
            raise InputError(f"no batch of epoch {trainer.progress.epoch} gave a number; try a lower --lr or --amp off")
        means = {name: float(np.mean([row[name] for row in rows])) for name in ["loss", *trainer.loss.curve_names]}
        row = {"epoch": trainer.progress.epoch, "step": trainer.progress.step, "lr": trainer.lr}
        trainer.progress.log.append({**row, **means, **values, **valid})
        with self._timed():
            self.wait()
            self._add_points("validation", {"macro_f1": values["macro_f1"], **valid})
            self.catch_up()
            self._submit(self._validation_jobs(probabilities, kept) if self.writes else [])
        return means

    def _validation_jobs(self, probabilities, kept):
        """Return the functions that write an epoch's validation."""
        trainer, epoch, score = self.trainer, self.trainer.progress.epoch, self.trainer.progress.score
        jobs = [lambda: write_epoch(self.run, epoch, probabilities)]
        if kept:
            write = functools.partial(checkpoint.save_weights, self.run / WEIGHTS, epoch=epoch, score=score)
            jobs.append(self._with_copy(write, trainer.evaluated.state_dict()))
            ids, classes = self.valid_rows["Id"], trainer.config.class_names
            jobs.append(lambda: write_predictions(self.run / "oof.csv", ids, probabilities, classes))
        return jobs

    def _submit(self, jobs):
        """Submit `jobs`, then jobs that write the current logs and last.pt."""
        trainer = self.trainer
        trainer.check_finite()
        state = trainer.state()  # gathers from every process
        if self.writes:
            logs = functools.partial(self._write_logs, list(trainer.progress.log), list(trainer.progress.steps))
            last = self._with_copy(functools.partial(checkpoint.save, self.last), state)
            for job in [*jobs, logs, last]:
                self.writer.submit(job)
        self.saved_step, self.saved_at = trainer.progress.step, time.monotonic()

    def _with_copy(self, write, state):
        """Return a function that calls `write` with a copy of the current state."""
        copied, wait = checkpoint.snapshot(state, self.trainer.device)

        def job():
            wait()
            write(copied)

        return job

    @contextlib.contextmanager
    def _timed(self):
        started = time.monotonic()
        yield
        self.seconds += time.monotonic() - started

    def left_out(self, trouble, rows):
        """Log a skipped batch of the training `rows`. Raises InputError if more are skipped than --skip-nan allows."""
        progress, ids = self.trainer.progress, listing(self.train_rows["Id"].iloc[rows], show=16)
        where = f"{trouble} at step {progress.step:,} (epoch {progress.epoch}) on the images {ids}"
        progress.left_out += 1
        if progress.left_out <= (most := self.trainer.config.skip_nan):
            print(f"{where}: skipped batch {progress.left_out} of at most {most}", flush=True)
            return
        self.wait()
        last = f"{self.last} holds step {self.saved_step:,}" if self.saved_step else "nothing is saved yet"
        fix = f"skip such batches with --skip-nan {progress.left_out + 4}, or train anew (--overwrite)"
        raise InputError(f"{where}; {last}; {fix} with a lower --lr or --amp off")

    def _write_logs(self, log, steps):
        for name, rows in (("log.csv", log), ("steps.csv", steps)):
            if rows:
                write_csv(self.run / name, pd.DataFrame(rows))
            else:
                (self.run / name).unlink(missing_ok=True)

    def _add_points(self, group, values):
        if self.writes:
            self.points += [(f"{group}/{name}", value, self.trainer.progress.step) for name, value in values.items()]


class BackgroundWriter:
    """Calls submitted functions in order, from one thread.

    After an exception no further function is called, since its file may refer to the missing one. The next method call
    raises the exception.
    """

    def __init__(self, device=None):
        """device: a GPU becomes the thread's current device too, so that functions can wait for its tensors."""
        on_gpu = device is not None and device.type == "cuda"
        begin = functools.partial(torch.cuda.set_device, device) if on_gpu else None
        self._pool, self._jobs, self._failed = ThreadPoolExecutor(1, "writer", begin), deque(), False

    def submit(self, job):
        self.check()
        self._jobs.append(self._pool.submit(self._run, job))

    def _run(self, job):
        if self._failed:
            return
        try:
            job()
        except BaseException:
            self._failed = True
            raise

    def check(self):
        """Raise the exception of a finished function; do not wait."""
        while self._jobs and self._jobs[0].done():
            self._jobs.popleft().result()

    def wait(self):
        """Wait for all functions, or raise the exception of the first that failed."""
        while self._jobs:
            self._jobs.popleft().result()

    def close(self):
        """Wait for all functions and end the thread, without raising their exceptions."""
        self._jobs.clear()
        self._pool.shutdown()

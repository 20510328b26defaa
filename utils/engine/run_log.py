"""The files of a run while it trains: checkpoints, predictions and logs, written from a thread.
(utils/runs/run_folder.py reads them.)"""

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
    """The files of one run, as a context. Of processes that train together (utils/distributed.py) only the first
    writes.

    Everything is written while the training goes on, always in this order: an epoch's predictions, best.safetensors,
    oof.csv, the logs, last.pt. So at any moment all files are whole, and what last.pt refers to exists.

    train_rows, valid_rows, skipped: DataFrames of the images trained on, validated on (in the order of all
    probabilities given) and left out. every: seconds after which `due` asks for the state to be saved within an
    epoch; 0: only at its end.
    """

    def __init__(self, run, trainer, train_rows, valid_rows, skipped, every, writes=True):
        self.run, self.trainer, self.every, self.writes = run, trainer, every, writes
        self.train_rows, self.valid_rows, self.skipped = train_rows, valid_rows, skipped
        self.last = run / "last.pt"
        self.first_step = self.saved_step = trainer.progress.step
        self.saved_at = time.monotonic()
        self.seconds = 0.0  # for which saving has held up the training
        self.writer, self.points = BackgroundWriter(trainer.device), []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.writer.close()
        if self.writes:
            self.catch_up()
            self.events.close()

    def begin(self):
        """Write what is known before the first step, and remove what a killed process wrote after its last saved
        state."""
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
        """Log the curves of the step just made."""
        self.trainer.progress.steps.append(
            {"epoch": self.trainer.progress.epoch, "step": self.trainer.progress.step} | curves
        )
        self._add_points("train", curves)

    def catch_up(self):
        """Do what can wait until the device is busy: pass points on to TensorBoard. Raises InputError if a file could
        not be written."""
        self.writer.check()
        if self.points:
            self.events.add_scalars(self.points)
            self.points.clear()

    @property
    def due(self):
        return bool(self.every) and time.monotonic() - self.saved_at >= self.every

    def save(self):
        """Write last.pt, from which the run can continue with the very next step. To be called in every process,
        between two steps."""
        with self._timed():
            self.wait()  # one state at a time, in memory too
            self._submit([])

    def wait(self):
        """Wait until all files are written. Raises InputError if one cannot be."""
        self.writer.wait()

    def epoch(self, probabilities, best, values, valid):
        """End an epoch: write its validation `probabilities`, the weights if they are the `best` so far, its row of
        log.csv (the means of its steps, `values` and `valid`), and the state. -> the means."""
        trainer = self.trainer
        rows = [row for row in trainer.progress.steps if row["epoch"] == trainer.progress.epoch]
        if not rows:
            raise InputError(f"no batch of epoch {trainer.progress.epoch} gave a number; try a lower --lr or --amp off")
        means = {name: float(np.mean([row[name] for row in rows])) for name in ["loss", *trainer.loss.curve_names]}
        trainer.progress.log.append(
            {
                "epoch": trainer.progress.epoch,
                "step": trainer.progress.step,
                "lr": trainer.lr,
                **means,
                **values,
                **valid,
            }
        )
        with self._timed():
            self.wait()
            self._add_points("validation", {"macro_f1": values["macro_f1"], **valid})
            self.catch_up()
            self._submit(self._validation_jobs(probabilities, best) if self.writes else [])
        return means

    def _validation_jobs(self, probabilities, best):
        """The functions that write an epoch's validation."""
        trainer, epoch, score = self.trainer, self.trainer.progress.epoch, self.trainer.progress.score
        jobs = [lambda: write_epoch(self.run, epoch, probabilities)]
        if best:
            write = functools.partial(checkpoint.save_weights, self.run / WEIGHTS, epoch=epoch, score=score)
            jobs.append(self._with_copy(write, trainer.evaluated.state_dict()))
            ids, classes = self.valid_rows["Id"], trainer.config.class_names
            jobs.append(lambda: write_predictions(self.run / "oof.csv", ids, probabilities, classes))
        return jobs

    def _submit(self, jobs):
        """Start `jobs`, and after them the writing of the logs and last.pt as they are now."""
        trainer = self.trainer
        trainer.check_finite()
        state = trainer.state()
        if self.writes:
            logs = functools.partial(self._write_logs, list(trainer.progress.log), list(trainer.progress.steps))
            last = self._with_copy(functools.partial(checkpoint.save, self.last), state)
            for job in [*jobs, logs, last]:
                self.writer.submit(job)
        self.saved_step, self.saved_at = trainer.progress.step, time.monotonic()

    def _with_copy(self, write, state):
        """A function that calls `write` with a copy of the state as it is now."""
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
        """Log that a batch of the training `rows` was left out. Raises InputError once there are more of them than
        --skip-nan allows."""
        trainer, ids = self.trainer, self.train_rows["Id"].iloc[rows]
        where = f"{trouble} at step {trainer.progress.step:,} (epoch {trainer.progress.epoch}) on the images {listing(ids, show=16)}"
        trainer.progress.left_out += 1
        if trainer.progress.left_out <= (most := trainer.config.skip_nan):
            print(f"{where}: batch {trainer.progress.left_out} of at most {most} that are left out", flush=True)
            return
        self.wait()
        last = f"{self.last} holds step {self.saved_step:,}" if self.saved_step else "nothing was saved yet"
        raise InputError(
            f"{where}; {last}; leave such batches out with --skip-nan {trainer.progress.left_out + 4}, or train anew "
            "(--overwrite) with a lower --lr or --amp off"
        )

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
    """Calls the functions it is given in their order, from one thread.

    An exception of one is raised by the next method called here, and the functions after it are not called: what they
    write may say that the failed one's file exists.
    """

    def __init__(self, device=None):
        """device: of tensors that a function may wait for; a GPU becomes the thread's current one too."""
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
        """Raise the exception of a function that has ended; do not wait."""
        while self._jobs and self._jobs[0].done():
            self._jobs.popleft().result()

    def wait(self):
        """Wait for all functions, or raise the exception of the first that failed."""
        while self._jobs:
            self._jobs.popleft().result()

    def close(self):
        """Wait for all functions, and end the thread. Raises nothing."""
        self._jobs.clear()
        self._pool.shutdown()

"""What a training leaves in its run directory while it goes on. (What is there is read by utils/runs/run_folder.py.)"""

import contextlib
import time

import numpy as np
import pandas as pd

from utils.data.readable import write_skipped
from utils.engine import checkpoint, resume
from utils.engine.background_writer import Writer
from utils.engine.tensorboard_log import Board
from utils.errors import InputError, listing
from utils.files import write_csv, write_json
from utils.runs.predictions import EPOCHS_FOLDER, epoch_files, write_epoch, write_predictions
from utils.runs.run_folder import write_rows


class Record:
    """The files of one run, as a context. Among ranks that train together (utils/distributed.py) only the first writes.

    Checkpoints, logs and predictions are written from a thread while the training goes on, always in this order: an epoch's
    predictions, best.pt, oof.csv, the logs, last.pt. So at any moment all files are whole, and what last.pt refers to exists.

    train_rows, valid_rows, skipped: of the images trained and validated on, and left out, three DataFrames; the second in the order
    of all probabilities given (N, classes).
    every: seconds after which `due` asks for the state to be saved, beside the end of each epoch; 0: only then.
    """

    def __init__(self, run, trainer, train_rows, valid_rows, skipped, every, writes=True):
        self.run, self.trainer, self.every, self.writes = run, trainer, every, writes
        self.train_rows, self.valid_rows, self.skipped = train_rows, valid_rows, skipped
        self.last = run / "last.pt"
        self.first_step = self.saved_step = trainer.progress.step
        self.saved_at, self.seconds = time.monotonic(), 0.0  # the latter: that the training was held up
        self.writer, self.points = Writer(trainer.device), []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.writer.close()
        if self.writes:
            self.catch_up()
            self.board.close()

    def begin(self):
        """Write what is known before the first step, and take back what a killed process has left."""
        if not self.writes:
            return
        if not self.trainer.progress.step:
            resume.clear(self.run)
            write_skipped(self.run, self.skipped)
        write_json(self.run / "config.json", self.trainer.config.to_dict())
        write_rows(self.run / "rows.csv", self.train_rows, self.valid_rows)
        self._settle()
        self.board = Board(self.run / "tensorboard", purge_step=self.trainer.progress.step + 1)

    def step(self, curves):
        """Note the curves of the step just made."""
        trainer = self.trainer
        trainer.progress.steps.append({"epoch": trainer.progress.epoch, "step": trainer.progress.step} | curves)
        if self.writes:
            self._points("train", curves)

    def catch_up(self):
        """What of writing can wait until the device is busy: hand points over to TensorBoard, and raise InputError where a file
        could not be written."""
        self.writer.check()
        for point in self.points:
            self.board.add_scalar(*point)
        self.points.clear()

    @property
    def due(self):
        return bool(self.every) and time.monotonic() - self.saved_at >= self.every

    def save(self):
        """Have last.pt written, from which the run can go on with the very next step. To be called on every rank, between two steps."""
        with self._holding_up():
            self.wait()  # a state at a time, in memory too
            self._submit([])

    def wait(self):
        """Until all files are written. Raises InputError where one cannot be."""
        self.writer.wait()

    def epoch(self, probabilities, best, values, valid):
        """End an epoch: keep its validation, as the `best` so far with the weights that gave it; its row of log.csv, from the means
        of its steps, `values` and `valid`; and the state. -> the means."""
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
        with self._holding_up():
            self.wait()
            if self.writes:
                self._points("validation", {"macro_f1": values["macro_f1"], **valid})
                self.catch_up()
                self.board.flush()
            self._submit(self._validation(probabilities, best) if self.writes else [])
        return means

    def _validation(self, probabilities, best):
        """What writes an epoch's validation: a list of functions."""
        trainer, epoch = self.trainer, self.trainer.progress.epoch
        jobs = [lambda: write_epoch(self.run, epoch, probabilities)]
        if best:
            weights = trainer.evaluated.state_dict()
            state = {
                "config": trainer.config.to_dict(),
                "model": weights,
                "epoch": epoch,
                "score": trainer.progress.score,
            }
            jobs.append(self._checkpoint(self.run / "best.pt", state))
            ids, classes = self.valid_rows["Id"], trainer.config.class_names
            jobs.append(lambda: write_predictions(self.run / "oof.csv", ids, probabilities, classes))
        return jobs

    def _submit(self, jobs):
        """Have `jobs` done, then the logs and last.pt written, as all of it is now."""
        trainer = self.trainer
        trainer.check_finite()
        state = trainer.state()
        if self.writes:
            log, steps = list(trainer.progress.log), list(trainer.progress.steps)
            for job in [*jobs, lambda: self._write_logs(log, steps), self._checkpoint(self.last, state)]:
                self.writer.submit(job)
        self.saved_step, self.saved_at = trainer.progress.step, time.monotonic()

    def _checkpoint(self, path, state):
        copied, wait = checkpoint.snapshot(state, self.trainer.device)

        def write():
            wait()
            checkpoint.save(path, copied)

        return write

    @contextlib.contextmanager
    def _holding_up(self):
        clock = time.monotonic()
        yield
        self.seconds += time.monotonic() - clock

    def left_out(self, trouble, rows):
        """Take note of a batch of the training `rows` that nothing was learned from. Raises InputError once there are more of them
        than --skip-nan allows."""
        trainer, ids = self.trainer, self.train_rows["Id"].iloc[rows]
        where = f"{trouble} at step {trainer.progress.step:,} (epoch {trainer.progress.epoch}) on the images {listing(ids, show=16)}"
        trainer.progress.left_out += 1
        if trainer.progress.left_out <= trainer.config.skip_nan:
            print(
                f"{where}: batch {trainer.progress.left_out} of at most {trainer.config.skip_nan} that are left out",
                flush=True,
            )
            return
        self.wait()
        last = f"{self.last} holds step {self.saved_step:,}" if self.saved_step else "nothing was saved yet"
        raise InputError(
            f"{where}; {last}; leave such batches out with --skip-nan {trainer.progress.left_out + 4}, or train anew (--overwrite) with a "
            "lower --lr or --amp off"
        )

    def _settle(self):
        """Take back what a killed process has left behind after it had saved the state to go on from."""
        done = self.trainer.progress.epoch - (self.trainer.progress.position > 0)
        later = [path for epoch, path in epoch_files(self.run) if epoch > done]
        for path in [
            *self.run.glob(".*.part"),
            *(self.run / EPOCHS_FOLDER).glob(".*.part"),
            *later,
        ]:
            path.unlink(missing_ok=True)
        self._write_logs(self.trainer.progress.log, self.trainer.progress.steps)

    def _write_logs(self, log, steps):
        for name, rows in (("log.csv", log), ("steps.csv", steps)):
            if rows:
                write_csv(self.run / name, pd.DataFrame(rows))
            else:
                (self.run / name).unlink(missing_ok=True)

    def _points(self, group, values):
        self.points += [(f"{group}/{name}", value, self.trainer.progress.step) for name, value in values.items()]

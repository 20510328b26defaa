"""What a training leaves in its run directory while it goes on. (What is there is read by utils/runs.py.)"""

import numpy as np
import pandas as pd

from utils import checkpoint
from utils.board import Board
from utils.files import write_csv
from utils.predictions import write_epoch, write_predictions


class Record:
    """The files of one run. Among ranks that train together (utils/ranks.py) only the first writes, the others' calls do nothing.

    ids: of the validation rows, in the order of all probabilities given (N, classes).
    """

    def __init__(self, run, trainer, ids, writes=True):
        self.run, self.trainer, self.ids, self.writes, self.rows = run, trainer, ids, writes, []
        self.board = Board(run / "tensorboard", purge_step=trainer.step + 1) if writes else None

    def step(self, curves):
        """Note the curves of the step just made."""
        self.rows.append({"epoch": self.trainer.epoch, "step": self.trainer.step} | curves)
        if self.writes:
            self._points("train", curves)

    def validation(self, probabilities, best):
        """Keep an epoch's validation; as the `best` so far with the weights that gave it."""
        trainer = self.trainer
        if not self.writes:
            return
        write_epoch(self.run, trainer.epoch, probabilities)
        if best:
            weights = trainer.evaluated.state_dict()
            state = {"config": trainer.config, "model": weights, "epoch": trainer.epoch, "score": trainer.score}
            checkpoint.save(self.run / "best.pt", state)
            write_predictions(self.run / "oof.csv", self.ids, probabilities, trainer.config["class_names"])

    def epoch(self, values, valid):
        """End an epoch's row of log.csv, from the means of its steps, `values` and `valid`; -> the means. last.pt comes last: it says
        that the rest is there."""
        trainer = self.trainer
        means = {name: float(np.mean([row[name] for row in self.rows])) for name in ["loss", *trainer.curves]}
        trainer.log.append({"epoch": trainer.epoch, "step": trainer.step, "lr": trainer.lr, **means, **values, **valid})
        trainer.steps += self.rows
        self.rows = []
        if self.writes:
            self._points("validation", {"macro_f1": values["macro_f1"], **valid})
            self.board.flush()
            write_csv(self.run / "steps.csv", pd.DataFrame(trainer.steps))
            write_csv(self.run / "log.csv", pd.DataFrame(trainer.log))
            checkpoint.save(self.run / "last.pt", trainer.state())
        return means

    def close(self):
        if self.writes:
            self.board.close()

    def _points(self, group, values):
        for name, value in values.items():
            self.board.add_scalar(f"{group}/{name}", value, self.trainer.step)

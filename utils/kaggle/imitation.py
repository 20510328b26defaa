"""Kaggle's folders imitated at home: a few simulated images in place of the competition's, and the data set as it would be uploaded."""

import contextlib
import io
import shutil
from pathlib import Path

from utils.kaggle import COMPETITION, upload
from utils.parallel import cores
from utils.simulator.plan import Settings
from utils.simulator.write import write_atlas

SETTINGS = Settings(800, 40, size=64, seed=4, power=0.5)


def imitate(kaggle, settings=SETTINGS):
    """Make `kaggle`/input with the competition's files, simulated, and the kit's data set, as Kaggle mounts them, all files read-only;
    and an empty `kaggle`/working. The folder `kaggle` is made anew each time. No wheels: at home nothing is lacking."""
    kaggle = Path(kaggle)
    competition, dataset = kaggle / "input/competitions" / COMPETITION, kaggle / "input/datasets/you/hpa-kit"
    shutil.rmtree(kaggle, ignore_errors=True)
    with contextlib.redirect_stderr(io.StringIO()):
        write_atlas(competition, settings, workers=cores())
    upload.build(kaggle / "upload", "you", "hpa-kit", with_wheels=False)
    dataset.parent.mkdir(parents=True, exist_ok=True)
    (kaggle / "upload/dataset").rename(dataset)
    (dataset / "dataset-metadata.json").unlink()  # the client keeps it
    shutil.rmtree(kaggle / "upload")
    (kaggle / "working").mkdir()
    for path in (kaggle / "input").rglob("*"):
        if path.is_file():
            path.chmod(0o444)

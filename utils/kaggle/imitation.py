"""Imitate Kaggle's folders: the data set to upload, and a few simulated images as the competition's files."""

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
    """Replace the folder `kaggle`: read-only input/ (competition, data set without wheels) and empty working/."""
    kaggle = Path(kaggle)
    shutil.rmtree(kaggle, ignore_errors=True)
    with contextlib.redirect_stderr(io.StringIO()):
        write_atlas(kaggle / "input/competitions" / COMPETITION, settings, workers=cores())
    upload.build(kaggle / "upload", "you", "hpa-kit", with_wheels=False)
    (kaggle / "upload/dataset/dataset-metadata.json").unlink()  # Kaggle's client does not upload it
    (kaggle / "input/datasets/you").mkdir(parents=True)
    (kaggle / "upload/dataset").rename(kaggle / "input/datasets/you/hpa-kit")
    shutil.rmtree(kaggle / "upload")
    (kaggle / "working").mkdir()
    for path in (kaggle / "input").rglob("*"):
        if path.is_file():
            path.chmod(0o444)

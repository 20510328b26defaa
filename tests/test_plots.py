"""python -m utils.plots: the paper's figures from any run."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

NAMES = ["figure2.png", "figure5.png", "figure6.png", "figure7.png", "figure8.png", "figure9.png", "table1.csv"]


def draw(*arguments):
    return succeed("utils.plots.__main__", *arguments).out


@pytest.fixture
def fold(run, tmp_path):
    return shutil.copytree(run / "fold0", tmp_path / "own" / "fold0")


def test_every_figure_of_every_fold(run, tmp_path):
    own = shutil.copytree(run, tmp_path / "own")
    draw(own)
    for number in (0, 1):
        folder = own / f"fold{number}" / "figures"
        assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
        for name in NAMES[:-1]:
            picture = cv2.imread(str(folder / name))
            assert min(picture.shape[:2]) > 300 and picture.std() > 10
    table = pd.read_csv(own / "fold0/figures/table1.csv")
    assert table["class"].tolist()[:2] == ["All", "Nucleoplasm"] and len(table) == 29
    assert table[["raw", "smoothed"]].to_numpy().min() >= 0 and table[["raw", "smoothed"]].to_numpy().max() <= 1


def test_a_person_is_drawn_beside_the_machine(fold, tmp_path):
    oof = pd.read_csv(fold / "oof.csv", dtype=str)
    pd.DataFrame({"Id": oof["Id"][:8], "Target": "0 25"}).to_csv(tmp_path / "human.csv", index=False)
    draw(fold, "-o", tmp_path / "alone")
    draw(fold, "-o", tmp_path / "both", "--human", tmp_path / "human.csv")
    alone, both = (cv2.imread(str(tmp_path / name / "figure9.png")) for name in ("alone", "both"))
    assert alone.shape != both.shape or not np.array_equal(alone, both)
    for name in NAMES[:5]:
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "both" / name).read_bytes()


def test_what_is_missing_or_damaged_is_named_before_anything_is_drawn(fold, tmp_path):
    refuse("utils.plots.__main__", tmp_path, says="no log.csv")
    other = shutil.copytree(fold, tmp_path / "own" / "fold1")
    refuse("utils.plots.__main__", fold, other, "-o", tmp_path / "x", says="cannot share one --out")
    (other / "steps.csv").write_text("step,epoch\n1,1\n")
    refuse("utils.plots.__main__", tmp_path / "own", says=["steps.csv", "loss"])
    shutil.copy(fold / "steps.csv", other / "steps.csv")
    np.save(other / "validation/epoch001.npy", np.zeros((3, 3)))
    np.save(other / "validation/epoch002.npy", np.zeros((3, 3)))
    refuse("utils.plots.__main__", other, says="validation/epoch00")
    shutil.rmtree(other / "validation")
    refuse("utils.plots.__main__", other, says="validation/")
    assert not list(tmp_path.rglob("figure*.png"))

"""Each fold of earlier kernels is copied from the source with the most progress."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import refuse, stop_in_epoch, train_options

from utils.errors import InputError
from utils.kaggle import earlier_runs


@pytest.fixture(scope="module")
def unfinished(atlas, folds, tmp_path_factory):
    """Two outputs of one training of four epochs: stopped in the second, and in the fourth."""
    made = []
    for epoch in (2, 4):
        folder = tmp_path_factory.mktemp(f"stopped{epoch}")
        with pytest.MonkeyPatch.context() as patch:
            stop_in_epoch(patch, epoch, train_options(atlas, folds, folder / "runs", epochs=4))
        made.append(folder)
    return made


def test_of_each_fold_what_is_furthest_is_taken_over(unfinished, tmp_path, capsys):
    early, late = unfinished
    working = tmp_path / "runs"
    assert earlier_runs.take_over([early, late], working, ["mini"]) == [late]
    assert (working / "mini/fold0/last.pt").read_bytes() == (late / "runs/mini/fold0/last.pt").read_bytes()
    assert f"mini/fold0 copied from {late}: epoch 3" in capsys.readouterr().out
    assert earlier_runs.take_over([early, late], working, ["mini"]) == []  # it is as far already
    assert earlier_runs.take_over([early], working, ["other"]) == []
    assert earlier_runs.progress(working / "mini/fold0").epoch == 3
    assert sorted(path.name for path in (working / "mini").iterdir()) == ["fold0"]


def test_a_damaged_output_is_refused_and_nothing_is_copied(unfinished, tmp_path):
    broken = shutil.copytree(unfinished[1], tmp_path / "broken")
    content = (broken / "runs/mini/fold0/last.pt").read_bytes()
    (broken / "runs/mini/fold0/last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="broken.*last.pt.*detach that input"):
        earlier_runs.take_over([broken, unfinished[0]], tmp_path / "runs", ["mini"])
    assert not (tmp_path / "runs").exists()


def test_training_does_not_go_on_with_an_output_of_other_options(unfinished, atlas, folds, tmp_path):
    earlier_runs.take_over(unfinished, tmp_path, ["mini"])
    refuse("train", *train_options(atlas, folds, tmp_path, epochs=4, lr=0.5), says=["other options", "lr 0.001 -> 0.5"])


def test_a_copy_that_fails_keeps_what_was_there(unfinished, tmp_path, monkeypatch):
    early, late = unfinished
    earlier_runs.take_over([early], tmp_path, ["mini"])
    before = (tmp_path / "mini/fold0/last.pt").read_bytes()
    real = shutil.copyfile

    def full(source, place, **_):
        if Path(source).name == "steps.csv":
            raise OSError(28, "No space left on device")
        return real(source, place)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match="cannot copy .*space"):
        earlier_runs.take_over([late], tmp_path, ["mini"])
    assert (tmp_path / "mini/fold0/last.pt").read_bytes() == before
    assert [path.name for path in (tmp_path / "mini").iterdir()] == ["fold0"]


def test_thresholds_are_fitted_on_the_labels_of_all_folds(run, folds, tmp_path):
    earlier_runs.write_validation_labels(run.parent, ["mini"], tmp_path / "labels.csv")
    found = pd.read_csv(tmp_path / "labels.csv", dtype=str, keep_default_na=False).set_index("Id")["Target"]
    table = pd.read_csv(folds, dtype=str, keep_default_na=False).set_index("Id")
    wanted = table.loc[table["fold"].isin(["0", "1"]), "Target"]
    assert found.sort_index().to_dict() == wanted.sort_index().to_dict() and len(wanted) > 20

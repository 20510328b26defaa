"""What is attached to a kernel is found by its content and checked."""

import json
import os
from pathlib import Path

import pytest

from utils.errors import InputError
from utils.kaggle import COMPETITION, attached

PLACES = {
    "before 2024": (COMPETITION, "hpa-kit", "hpa-kit-kernel"),
    "since": (f"competitions/{COMPETITION}", "datasets/you/hpa-kit", "notebooks/you/hpa-kit-kernel"),
    "renamed": ("hpa", "datasets/you/my-kit", "out"),
}


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def attach(top, competition, dataset, output):
    """Kaggle's input folder with empty files: the competition, the data set and an output at these places."""
    files = ("train.csv", "sample_submission.csv", "train/a_red.png", "test/b_red.png")
    touch(*(top / competition / name for name in files))
    touch(top / dataset / "upload.json", top / dataset / "kit/train.py")
    touch(top / output / "runs/chen/fold0/last.pt", top / output / "folds.csv")


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_what_is_attached_is_found_without_opening_folders_of_images(tmp_path, places, monkeypatch):
    attach(tmp_path, *places)
    touch(tmp_path / "more/train/c_red.png", tmp_path / "more/test/d_red.png")  # somebody's images, no competition
    real, opened = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda folder: (opened.append(Path(folder).name), real(folder))[1])
    competition, dataset, output = (tmp_path / place for place in places)
    assert attached.find(tmp_path) == (competition, dataset, (output,))
    assert opened and not {"train", "test", "kit", "runs"} & set(opened)


def test_a_folder_of_very_many_files_is_not_listed_to_its_end(tmp_path):
    touch(*(tmp_path / "images" / f"{number:04}" for number in range(attached.MAX_ENTRIES + 50)))
    found = {folder.name: len(names) for folder, names in attached.look(tmp_path)}
    assert found["images"] == attached.MAX_ENTRIES


def test_what_is_missing_or_attached_twice_is_named(tmp_path):
    with pytest.raises(InputError, match=f"files of the competition .*are not below .*attach .*{COMPETITION}"):
        attached.find(tmp_path)
    attach(tmp_path, COMPETITION, "kit", "out")
    (tmp_path / "kit/upload.json").unlink()
    with pytest.raises(InputError, match="the kit is not below .*utils.kaggle.upload"):
        attached.find(tmp_path)
    for name in ("one", "two"):
        touch(tmp_path / name / "upload.json", tmp_path / name / "kit/train.py")
    with pytest.raises(InputError, match="the kit is attached more than once, in .*one, .*two; detach"):
        attached.find(tmp_path)


def test_a_data_set_that_has_not_arrived_whole_is_refused(tmp_path):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit/train.py").write_text("print()")
    (tmp_path / "upload.json").write_text(json.dumps({"files": attached.sizes_below(tmp_path)}))
    attached.check_arrived(tmp_path)
    (tmp_path / "kit/train.py").write_text("print(1)")
    with pytest.raises(InputError, match="1 file .*kit/train.py; upload the data set again"):
        attached.check_arrived(tmp_path)
    (tmp_path / "upload.json").write_text("[]")
    with pytest.raises(InputError, match="upload.json is not the list"):
        attached.check_arrived(tmp_path)

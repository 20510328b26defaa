"""What the Kaggle kernel and its upload are made of, one by one; tests/kaggle/test_kernel.py runs them together."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, refuse, stop_in_epoch, train_options

from utils import device
from utils.engine import resume
from utils.errors import InputError
from utils.kaggle import COMPETITION, attached, earlier_runs, imitation, kernel, manifest, wheels
from utils.simulator.plan import Settings


def says(*parts):
    """The error that a block must raise: one sentence that holds all parts."""
    return pytest.raises(InputError, match="(?s)" + "".join(f"(?=.*{part})" for part in map(str, parts)))


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def attach(top, competition, dataset, output):
    """Kaggle's input folder with empty files: the competition, the data set and an output at these places."""
    touch(
        *(
            top / competition / name
            for name in ("train.csv", "sample_submission.csv", "train/a_red.png", "test/b_red.png")
        )
    )
    touch(top / dataset / "upload.json", top / dataset / "kit/train.py")
    touch(top / output / "runs/chen/fold0/last.pt", top / output / "folds.csv")


PLACES = {
    "as ever": (COMPETITION, "hpa-kit", "hpa-kit-kernel"),
    "as of late": (f"competitions/{COMPETITION}", "datasets/you/hpa-kit", "notebooks/you/hpa-kit-kernel"),
    "renamed": ("hpa", "datasets/you/my-kit", "out"),
}


@pytest.mark.parametrize("where", PLACES.values(), ids=PLACES)
def test_what_is_attached_is_found_without_opening_folders_of_images(tmp_path, where, monkeypatch):
    attach(tmp_path, *where)
    touch(tmp_path / "more/train/c_red.png", tmp_path / "more/test/d_red.png")  # somebody's images, no competition
    real, opened = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda folder: (opened.append(Path(folder).name), real(folder))[1])
    competition, dataset, output = (tmp_path / place for place in where)
    assert attached.find_competition(tmp_path) == competition
    assert attached.find_dataset(tmp_path) == dataset
    assert attached.find_outputs(tmp_path) == [output]
    assert opened and not {"train", "test", "kit", "runs"} & set(opened)


def test_a_folder_of_very_many_files_is_not_listed_to_its_end(tmp_path, monkeypatch):
    touch(*(tmp_path / "images" / f"{number:04}" for number in range(attached.MOST + 50)))
    seen = {folder.name: len(names) for folder, names in attached.look(tmp_path)}
    assert seen["images"] == attached.MOST


def test_what_is_missing_or_there_twice_is_named(tmp_path):
    with says("files of the competition", "not below", COMPETITION):
        attached.find_competition(tmp_path)
    with says("the kit is not below", "utils.kaggle.upload"):
        attached.find_dataset(tmp_path)
    for name in ("one", "two"):
        touch(tmp_path / name / "upload.json", tmp_path / name / "kit/train.py")
    with says("the kit: found more than once", "one", "two", "detach"):
        attached.find_dataset(tmp_path)


def test_a_data_set_that_has_not_arrived_whole_is_refused(tmp_path):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit/train.py").write_text("print()")
    (tmp_path / "upload.json").write_text(json.dumps({"files": manifest.sizes_below(tmp_path)}))
    manifest.check_arrived(tmp_path)
    (tmp_path / "kit/train.py").write_text("print(1)")
    with says("1 file of the data set", "kit/train.py", "anew"):
        manifest.check_arrived(tmp_path)
    (tmp_path / "upload.json").write_text("[]")
    with says("upload.json is not the list"):
        manifest.check_arrived(tmp_path)


# ---- earlier outputs


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
    assert f"mini/fold0 taken over from {late}: epoch 3" in capsys.readouterr().out
    assert earlier_runs.take_over([early, late], working, ["mini"]) == []  # it is as far already
    assert earlier_runs.take_over([early], working, ["other"]) == []
    assert sorted(path.name for path in (working / "mini").iterdir()) == ["fold0"]


def test_what_is_further_in_the_working_folder_stays(unfinished, tmp_path):
    early, late = unfinished
    shutil.copytree(late / "runs", tmp_path / "runs")
    assert earlier_runs.take_over([early], tmp_path / "runs", ["mini"]) == []
    assert earlier_runs.progress(tmp_path / "runs/mini/fold0").epoch == 3


def test_a_damaged_output_is_refused_and_nothing_is_copied(unfinished, tmp_path):
    broken = shutil.copytree(unfinished[1], tmp_path / "broken")
    content = (broken / "runs/mini/fold0/last.pt").read_bytes()
    (broken / "runs/mini/fold0/last.pt").write_bytes(content[: len(content) // 2])
    with says(broken, "last.pt", "detach that input"):
        earlier_runs.take_over([broken, unfinished[0]], tmp_path / "runs", ["mini"])
    assert not (tmp_path / "runs").exists()


def test_an_output_of_other_options_is_not_gone_on_with(unfinished, atlas, folds, tmp_path):
    earlier_runs.take_over(unfinished, tmp_path, ["mini"])
    refuse("train", *train_options(atlas, folds, tmp_path, epochs=4, lr=0.5), says=["other options", "lr 0.001 -> 0.5"])


def test_a_copy_that_fails_leaves_what_was_there(unfinished, tmp_path, monkeypatch):
    early, late = unfinished
    earlier_runs.take_over([early], tmp_path, ["mini"])
    before = (tmp_path / "mini/fold0/last.pt").read_bytes()

    real = shutil.copyfile

    def full(source, place, **_):
        if Path(source).name == "steps.csv":
            raise OSError(28, "No space left on device")
        return real(source, place)

    monkeypatch.setattr(shutil, "copyfile", full)
    with says("cannot copy", "space"):
        earlier_runs.take_over([late], tmp_path, ["mini"])
    assert (tmp_path / "mini/fold0/last.pt").read_bytes() == before
    assert [path.name for path in (tmp_path / "mini").iterdir()] == ["fold0"]


def test_thresholds_are_fitted_on_the_labels_of_all_folds(run, folds, tmp_path):
    import pandas as pd

    earlier_runs.validation_labels(run.parent, ["mini"], tmp_path / "labels.csv")
    found = pd.read_csv(tmp_path / "labels.csv", dtype=str, keep_default_na=False).set_index("Id")["Target"]
    table = pd.read_csv(folds, dtype=str, keep_default_na=False).set_index("Id")
    wanted = table.loc[table["fold"].isin(["0", "1"]), "Target"]
    assert found.sort_index().to_dict() == wanted.sort_index().to_dict() and len(wanted) > 20


# ---- time, processes, GPUs


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A session with an hour left, and the commands that are run in it."""
    commands = []
    monkeypatch.setattr(kernel, "run", lambda *words: commands.append([str(word) for word in words]))
    found = kernel.Session(tmp_path / "c", tmp_path / "d", (), tmp_path / "working", tmp_path / "s", time.time() + 3600)
    return found, commands


def test_training_gets_the_time_that_is_left_and_what_the_user_adds_wins(session):
    found, commands = session
    kernel.train(found, "chen", 3, "mine", '--epochs 5 --loss "1:bce 3:soft_f1"', gpus=1)
    (words,) = commands
    assert words[0] == "train.py" and 3590 <= int(words[words.index("--time-limit") + 1][:-1]) <= 3600
    assert words[-4:] == ["--epochs", "5", "--loss", "1:bce 3:soft_f1"]
    assert words[words.index("--runs") + 1] == str(found.working / "runs")


def test_two_gpus_are_trained_on_by_torchrun(session):
    found, commands = session
    kernel.train(found, "chen", 0, "mine", gpus=2)
    assert commands[0][:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]


def test_too_little_time_is_not_begun_with(session, capsys):
    found, commands = session
    kernel.train(kernel.Session(*[getattr(found, name) for name in ("competition", "dataset", "outputs", "working", "scratch")],
                                time.time() + kernel.LEAST - 1), "chen", 0, "mine")  # fmt: skip
    assert not commands and "too little: this kernel only predicts" in capsys.readouterr().out


def test_a_finished_fold_is_not_trained_again(session, run, capsys):
    found, commands = session
    shutil.copytree(run, found.runs / "mini")
    kernel.train(found, "gapnet_pl", 0, "mini")
    assert not commands and "trained already" in capsys.readouterr().out


def test_at_the_end_what_is_no_output_goes_after_the_last_use_of_its_packages(session, unfinished, monkeypatch, capsys):
    found, _ = session
    shutil.copytree(unfinished[0] / "runs", found.runs)
    touch(found.scratch / "packages/munch.py", found.working / "submission.csv")
    real = earlier_runs.progress
    monkeypatch.setattr(
        earlier_runs, "progress", lambda folder: real(folder) if found.scratch.exists() else pytest.fail("too late")
    )
    monkeypatch.chdir(found.working)
    kernel.close(found, ["mini"])
    out = capsys.readouterr().out
    assert not found.scratch.exists() and "submission.csv" in out and "best.safetensors" in out
    assert "mini/fold0 is not finished (epoch 1, step 2)" in out and "attach this kernel's output" in out


def test_a_fold_that_is_not_finished_is_predicted_with_all_the_same(session, unfinished):
    found, commands = session
    found.working.mkdir()
    shutil.copytree(unfinished[0] / "runs", found.runs)
    assert kernel.submit(found, ["mini"], "--device cpu --lr 1", gpus=2) == found.working / "submission.csv"
    assert [next(word for word in words if word.endswith(".py")) for words in commands] == [
        "predict.py",
        "threshold.py",
        "ensemble.py",
    ]
    assert commands[0][:2] == ["-m", "torch.distributed.run"] and commands[0][-2:] == ["--device", "cpu"]
    assert commands[1][2:] == ["--labels", str(found.working / "labels.csv")]


def test_several_runs_are_combined_by_their_out_of_fold_predictions(session, run):
    found, commands = session
    found.working.mkdir()
    for name in ("a", "b"):
        shutil.copytree(run, found.runs / name)
    kernel.submit(found, ["a", "b"])
    assert [words[0] for words in commands] == ["predict.py", "predict.py", "ensemble.py"]
    assert commands[2][3:6] == ["--oof", str(found.runs / "a"), str(found.runs / "b")]


def test_without_a_finished_epoch_there_is_no_submission(session, run, capsys):
    found, commands = session
    shutil.copytree(run, found.runs / "a")
    assert kernel.submit(found, ["a", "b"]) is None and not commands
    assert "no epoch of b is finished yet" in capsys.readouterr().out


@pytest.mark.parametrize("mode, name, options, told", [
    ("Train", "chen", "", "MODE"), ("train", "chen gapnet_pl", "", "2 runs"), ("predict", " ", "", "NAME"),
    ("train", "../chen", "", "folder's name"), ("predict", "chen", '--loss "1:bce', "quotation"),
])  # fmt: skip
def test_settings_that_would_only_show_hours_later_are_refused(mode, name, options, told):
    with says(told):
        kernel.check_settings(mode, name, options)
    kernel.check_settings("predict", "chen gapnet_pl", '--loss "1:bce 3:focal"')


@pytest.mark.parametrize("reserve", ["9h", "10h"])
def test_a_reserve_of_the_whole_session_is_refused(tmp_path, reserve):
    with says("RESERVE", "leaves nothing of SESSION"):
        kernel.open_session(tmp_path, 0, "9h", reserve)


@pytest.mark.parametrize(
    "options, expected", [("", "auto"), ("--device cpu --epochs 3", "cpu"), ("--lr 1 --device=cuda:1", "cuda:1")]
)
def test_the_device_is_read_from_the_options(options, expected):
    assert kernel.device_of(options) == expected


def test_an_imitation_is_found_as_kaggles_folders_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(tempfile, "tempdir", None)
    imitation.imitate(tmp_path / "kaggle", Settings(4, 2, size=32))
    files = [path for path in (tmp_path / "kaggle/input").rglob("*") if path.is_file()]
    assert len(files) > 4 * 6 + 100 and {path.stat().st_mode & 0o777 for path in files} == {0o444}
    touch(tmp_path / "kaggle/input/datasets/you/hpa-kit/weights/net.pth")
    found = kernel.open_session(tmp_path / "kaggle", 10_000.0, "2h", "30min")
    assert found.competition.name == COMPETITION and found.dataset.name == "hpa-kit" and found.outputs == ()
    assert Path.cwd() == found.scratch / "kit" and Path("input/weights/net.pth").is_file()
    assert os.access("train.py", os.W_OK) and (found.scratch / "kit/utils/kaggle/kernel.py").is_file()
    assert found.ends == 10_000 + 90 * 60 - kernel.BEFORE
    assert str(found.competition) in capsys.readouterr().out


def test_scratch_is_outside_the_output_where_that_can_be_written(tmp_path):
    (tmp_path / "working").mkdir()
    assert kernel.pick_scratch(tmp_path) == tmp_path / "temp" / kernel.SCRATCH
    shutil.rmtree(tmp_path / "temp")
    (tmp_path / "temp").write_text("no folder can be here")
    assert kernel.pick_scratch(tmp_path).parent == tmp_path / "working"


def mocked(monkeypatch, capability, built):
    for name, value in {"is_available": True, "device_count": 1, "current_device": 0}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built.split())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100-PCIE-16GB")


NEW = "sm_70 sm_75 sm_80 sm_86 sm_90 sm_100 sm_120"  # of torch for CUDA 12.8


BUILT = [((7, 5), NEW), ((8, 9), NEW), ((7, 2), NEW), ((6, 1), "sm_60"), ((9, 0), "sm_90a"), ((10, 3), "sm_100f"),
         ((12, 1), "sm_80 compute_90"), ((6, 0), "gfx90a"), ((6, 0), "")]  # fmt: skip


@pytest.mark.parametrize("capability, built", BUILT)
def test_a_gpu_that_torch_was_built_for_is_taken(monkeypatch, capability, built):
    mocked(monkeypatch, capability, built)
    device.check_built_for("cuda")


@pytest.mark.parametrize("capability, built", [((6, 0), NEW), ((6, 0), "sm_61"), ((5, 2), "sm_60"), ((12, 0), "sm_90a compute_90a"),
                                               ((12, 0), "sm_100f"), ((7, 0), "sm_80 compute_80")])  # fmt: skip
def test_a_gpu_that_torch_was_not_built_for_is_refused_where_it_is_picked(monkeypatch, capability, built):
    mocked(monkeypatch, capability, built)
    with says("not built for Tesla P100-PCIE-16GB", f"sm_{capability[0]}{capability[1]}", "T4 x2", "--device cpu"):
        device.pick_device("cuda")


def test_a_kit_without_git_knows_its_commit(tmp_path):
    assert resume._commit(tmp_path) is None
    (tmp_path / "commit.txt").write_text("0123abc\n")
    assert resume._commit(tmp_path) == "0123abc"


def test_a_package_without_a_wheel_is_named_with_the_mend(tmp_path):
    (tmp_path / "requirements.txt").write_text(
        "numpy>=1.26.4,<2.5\nhpa-nothing>=1,<2  # a comment\nmunch-nothing>=1,<2\n"
    )
    assert wheels.lacking(tmp_path / "requirements.txt") == ["hpa-nothing", "munch-nothing"]
    touch(tmp_path / "munch_nothing-1.0-py3-none-any.whl")
    with says("lacks hpa-nothing,", "--wheel hpa-nothing"):
        wheels.install(tmp_path / "requirements.txt", tmp_path, tmp_path / "target")


def test_a_package_that_is_too_old_is_replaced_where_there_is_a_wheel(tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy>=99,<100\n")
    touch(tmp_path / "numpy-99.0-py3-none-any.whl")
    with says("pip cannot install numpy", "upload the wheels anew"):  # it tries: the wheel is empty
        wheels.install(tmp_path / "requirements.txt", tmp_path, tmp_path / "target")


def test_opencv_counts_under_any_of_its_names(monkeypatch):
    from utils.opencv import cv2

    def absent(name):
        raise wheels.PackageNotFoundError(name)

    monkeypatch.setattr(wheels, "version", absent)
    assert wheels.installed("opencv-python-headless") == cv2.__version__
    assert wheels.installed("hpa-nothing") is None


def test_versions_outside_the_bounds_are_told_and_used(tmp_path, capsys):
    (tmp_path / "requirements.txt").write_text(
        "numpy>=1.0,<1.1\ntorch>=2.6,<99\npytest>=1,<2\nopencv-python-headless>=1,<2\n"
    )
    wheels.install(tmp_path / "requirements.txt", tmp_path, tmp_path / "target")
    out = capsys.readouterr().out
    assert "the image has every package" in out and f"numpy {__import__('numpy').__version__} (1.0 to 1.1)" in out
    assert "torch" not in out and "pytest" not in out and "opencv-python-headless" in out


def test_every_bound_of_the_kit_is_read():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert len(wheels.bounds(ROOT / "requirements.txt")) == len(lines) > 20


def test_class_names_of_a_row_are_at_most_three_lines():
    classes = list("abcdef")
    assert kernel.names_of("", classes) == "" and kernel.names_of("2 0", classes) == "c\na"
    assert kernel.names_of("0 1 2 3 4", classes) == "a\nb\nand 3 more"

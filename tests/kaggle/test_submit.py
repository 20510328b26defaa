"""From a run's folds to the command that submits it; and all of it by run.sh."""

import os
import shutil
import subprocess

import pandas as pd
import torch
from conftest import ROOT, lay_out_kit, refuse, succeed

from utils.kaggle import COMPETITION


def test_which_folds_are_to_be_trained(run, folds, tmp_path):
    call = ["utils.kaggle.submit", run, "--list", "--folds"]
    assert succeed(*call, folds, "--wanted", 3).out.split() == ["0", "1", "2"]
    refuse(*call, folds, "--wanted", 5, says=["3 folds, not 5", "delete it"])
    table = pd.read_csv(folds, dtype=str)
    own = tmp_path / "folds.csv"
    table.assign(fold=table["fold"].replace("1", "0")).to_csv(own, index=False)
    refuse(*call, own, says=["fold1", "delete or move"])
    table.assign(fold="-1").to_csv(own, index=False)
    refuse(*call, own, says=["no fold to validate on", "make_folds.py"])


def test_which_folds_are_trained_to_the_end(run, folds, tmp_path):
    options = ["--trained", "--folds", folds]
    refuse("utils.kaggle.submit", run, *options, says=["1 fold of 3 unfinished (2)", "to resume"])
    assert "fold0: trained" in succeed("utils.kaggle.submit", run, *options, "--fold", 0).out
    copy = tmp_path / "run/fold0"
    copy.mkdir(parents=True)
    state = torch.load(run / "fold0/last.pt", weights_only=True)
    torch.save(state | {"finished": False}, copy / "last.pt")
    call = ["utils.kaggle.submit", copy.parent, *options, "--fold", 0]
    refuse(*call, says=["1 fold of 1 unfinished (0)"])
    config = state["config"] | {"max_minutes": state["spent"] / 60}  # no time left for one more epoch
    torch.save(state | {"finished": False, "config": config}, copy / "last.pt")
    assert "--max-minutes used up" in succeed(*call).out


def test_a_submission_of_other_rows_is_not_offered(run, thresholds, predictions, atlas, folds, tmp_path):
    sample, submission = atlas / "sample_submission.csv", tmp_path / "submission.csv"
    succeed("ensemble", predictions, "--thresholds", thresholds, "--sample", sample, "-o", submission)
    shutil.copytree(run, tmp_path / "run")
    call = ["utils.kaggle.submit", tmp_path / "run", "--file", submission, "--sample", sample, "--folds", folds]
    refuse(*call, says=["thresholds.json", "threshold.py"])
    shutil.copy(thresholds, tmp_path / "run/thresholds.json")
    line = succeed(*call).out.strip()
    assert line.startswith(f"kaggle competitions submit -c {COMPETITION} -f {submission} -m 'run, 2 folds, macro F1 0.")
    table = pd.read_csv(submission, dtype=str)
    table.iloc[::-1].to_csv(submission, index=False)
    refuse(*call, says=["differ in rows or their order", "ensemble.py --sample"])
    table.assign(Predicted="28").to_csv(submission, index=False)
    refuse(*call, says=["class numbers 0 to 27"])


def test_a_step_of_run_sh_is_done_again_if_one_of_its_sources_is_newer(tmp_path):
    text = (ROOT / "run.sh").read_text()
    once = text[text.index("once() {") : text.index("# From a run's trained folds")]
    start = f'set -euo pipefail\nstep() {{ "$@"; }}\ntyped() {{ echo; }}\n{once}\n'

    def call(*sources):
        words = ["once", "made", *sources, "--", "cp", "new", "made"]
        subprocess.run(["bash", "-c", start + " ".join(words)], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        return (tmp_path / "made").read_text()

    def write(name, text, time):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (time, time))

    for name, time in (("new", 0), ("older", 100), ("newer", 300)):
        write(name, name, time)
    assert call("older") == "new"  # made does not exist yet
    write("made", "old", 200)
    assert call("older", "nowhere*") == "old" and call() == "old"
    assert call("older", "newer") == "new"


def test_nothing_is_fetched_if_train_py_refuses_its_options(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/requirements.installed").write_text("")
    (tmp_path / "requirements.txt").write_text("")
    shutil.copy(ROOT / "run.sh", tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.write_text('#!/bin/sh\necho "$@" >> asked\necho "error: --sizee" >&2\nexit 2\n')
    python.chmod(0o755)
    done = subprocess.run(["bash", "run.sh", "real", "--sizee", "32"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: --sizee\n"
    assert (tmp_path / "asked").read_text() == "train.py --recipe chen --sizee 32 --fold 0 --check\n"


def test_all_folds_of_the_real_competition_in_one_command(atlas, python, tmp_path):
    kit = lay_out_kit(tmp_path / "kit", python)
    options = ["--size=32", "--fit=resize", "--batch-size=8", "--epochs=1", "--weights=none", "--workers=0"]
    options.append("--name=mine")

    def call(*words):
        environment = os.environ | {"FOLDS": "2", "OMP_NUM_THREADS": "1"}
        return subprocess.run(["bash", kit / "run.sh", "real", *words], env=environment, capture_output=True, text=True)

    large = call("gapnet_pl", *options[2:])  # whose crops of 1024² do not fit into Kaggle's 512²
    assert large.returncode == 2 and "--size 512" in large.stderr and not (kit / "input").exists()
    (kit / "input").mkdir()
    for name in ("train", "test"):
        shutil.make_archive(kit / "input" / name, "zip", atlas / name)
    for name in ("train.csv", "sample_submission.csv"):
        shutil.copy(atlas / name, kit / "input")
    done = call("gapnet_pl", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"--trained --folds input/folds.csv --fold {fold}" in done.stdout for fold in (0, 1))
    line = done.stdout.splitlines()[-1]
    submission = "runs/mine/submission.csv"
    assert line.startswith(f"kaggle competitions submit -c {COMPETITION} -f {submission} -m 'mine, 2 folds, macro F1")
    ids = [pd.read_csv(path)["Id"].tolist() for path in (kit / submission, atlas / "sample_submission.csv")]
    assert ids[0] == ids[1]

"""A training that ends in whatever way goes on as if nothing had happened."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import ROOT, kit, refuse, start_forked, submission_of, succeed, train_options
from hypothesis import given
from hypothesis import strategies as st
from kills import KINDS, attack, differences
from nan_batches import poison
from torchrun import together, torchrun

from utils.cli import UNITS, clock, parse_span
from utils.engine import inference, resume
from utils.engine.interrupt import Stop
from utils.engine.learning_rate import scheduled_rate
from utils.engine.trainer import Trainer
from utils.errors import InputError


@pytest.fixture(scope="module")
def words(atlas, folds):
    """The options of a short training with all that has to be remembered, for a run folder."""

    def options(runs, **more):
        remembered = {
            "ema": 0.9,
            "loss": "1:bce 2:soft_f1+bce",
            "plateau": "step",
            "patience": 0.1,
            "batch-size": 8,
            "epochs": 3,
        }
        return train_options(atlas, folds, runs, **(remembered | more))

    return options


@pytest.fixture(scope="module")
def undisturbed(words, tmp_path_factory):
    runs = tmp_path_factory.mktemp("undisturbed")
    succeed("train", *words(runs))
    return runs / "mini/fold0"


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment_a_training_ends_as_if_it_had_not_been(kind, atlas, folds, tmp_path):
    data = {"folds": folds, "images": atlas / "train"}
    assert attack(kind, 12, random.Random(0), tmp_path, data) == 0


def test_stopped_after_every_step_a_training_ends_as_if_it_had_not_been(words, undisturbed, tmp_path):
    """A time limit that is over before the first step."""
    lives, steps = 0, []
    while "best epoch" not in (out := succeed("train", *words(tmp_path), "--time-limit", "0.001s").out):
        assert "stopped at the time limit after" in out and "the same command goes on" in out
        steps.append(torch.load(tmp_path / "mini/fold0/last.pt", weights_only=True)["step"])
        lives += 1
    per_epoch = len(pd.read_csv(undisturbed / "steps.csv")) // 3
    assert lives == 3 * (per_epoch + 1) - 1, "every life makes one step, or one validation"
    assert sorted(set(steps)) == list(range(1, 3 * per_epoch + 1))
    assert differences(undisturbed, tmp_path / "mini/fold0") == []


def test_cosine_and_groups_of_weights_go_on_within_the_warm_up_and_after(words, tmp_path):
    """Stopped after each of the first four steps, three of which are the warm-up; the rates are those of the steps."""
    more = {"plateau": "none", "lr-schedule": "cosine", "warmup": 0.7, "weight-decay": 0.1, "optimiser": "adamw"}
    more |= {"accumulate": 2, "keep": "last", "drop-channels": 0.5}
    succeed("train", *words(tmp_path, name="whole", **more), "--no-decay-norms")
    parts = [*words(tmp_path, name="parts", **more), "--no-decay-norms"]
    for _ in range(4):
        assert "stopped at the time limit" in succeed("train", *parts, "--time-limit", "0.001s").out
    succeed("train", *parts)
    assert differences(tmp_path / "whole/fold0", tmp_path / "parts/fold0") == []
    log, steps = (pd.read_csv(tmp_path / f"whole/fold0/{name}.csv") for name in ("log", "steps"))
    config = SimpleNamespace(lr=0.001, epochs=3, warmup=0.7, lr_schedule="cosine")
    for table in (log, steps):
        rates = [scheduled_rate(step, config, len(steps) // 3) for step in table["step"]]
        assert table["lr"].tolist() == pytest.approx(rates, rel=1e-12)
    assert log["lr"].iloc[-1] == 0
    refuse("train", *words(tmp_path, name="parts", **more | {"epochs": 4}), "--no-decay-norms", says="epochs 3 -> 4")
    refuse("train", *words(tmp_path, name="parts", **more), says="decay_norms False -> True")


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_training_between_two_steps(words, undisturbed, tmp_path, monkeypatch, which):
    real, started = Trainer.train_step, []

    def interrupted(self, batch, *more):
        if self.progress.step == 4:
            started.append(os.kill(os.getpid(), which))
            time.sleep(0.2)  # until it was heard
        return real(self, batch, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        result = kit("train", *words(tmp_path))
    name = "Ctrl+C" if which is signal.SIGINT else which.name
    assert started and result.code == 0 and f"stopped by {name} after step 5" in result.out
    assert torch.load(tmp_path / "mini/fold0/last.pt", weights_only=True)["step"] == 5
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "a script that goes on can be stopped"
    assert "going on from" in succeed("train", *words(tmp_path)).out
    assert differences(undisturbed, tmp_path / "mini/fold0") == []


def test_a_second_ctrl_c_ends_a_training_at_once_and_harms_nothing(words, undisturbed, tmp_path):
    real, reached = Trainer.train_step, multiprocessing.Event()

    def hangs(self, batch, *more):
        if self.progress.step == 4:
            reached.set()
            time.sleep(600)
        return real(self, batch, *more)

    options = [*words(tmp_path), "--save-every", "0.001s"]
    process, result = start_forked("train", *options, before=lambda: setattr(Trainer, "train_step", hangs))
    assert reached.wait(60)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGINT)  # the same one again, as `timeout` and torchrun send it
    process.join(1.5)
    assert process.is_alive(), "it waits for the step"
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    process.kill()  # where it has not ended
    done = result()
    assert done.code == 130 and "Ctrl+C again stops at once" in done.err and "Traceback" not in done.err
    assert torch.load(tmp_path / "mini/fold0/last.pt", weights_only=True)["step"] == 4
    succeed("train", *words(tmp_path), "--save-every", 0)
    assert differences(undisturbed, tmp_path / "mini/fold0") == []


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Stop(time.time()) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.2)
            assert stop.reason is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_has_one_writer(words, tmp_path):
    run = tmp_path / "mini/fold0"
    with resume.lock_run(run):
        refuse("train", *words(tmp_path), says=[str(run), "another process", "--name"])
        refuse("train", *words(tmp_path), "--overwrite", says="another process")
        assert [path.name for path in run.iterdir()] == [".lock"]
        with pytest.raises(InputError, match="another process"), resume.lock_run(run):
            pass
    assert not (tmp_path / "mini").exists(), "nothing was trained"
    run.mkdir(parents=True)
    (run / ".lock").touch()  # what a killed process leaves
    succeed("train", *words(tmp_path, epochs=1))
    assert not (run / ".lock").exists()


def test_a_run_that_was_renamed_goes_on_under_its_new_name(words, undisturbed, atlas, folds, tmp_path):
    succeed("train", *words(tmp_path), "--time-limit", "0.001s")
    (tmp_path / "mini").rename(tmp_path / "other")
    assert "going on from" in succeed("train", *words(tmp_path, name="other")).out
    assert differences(undisturbed, tmp_path / "other/fold0") == [] and not (tmp_path / "mini").exists()
    config = json.loads((tmp_path / "other/fold0/config.json").read_text())
    assert config["name"] == "other"
    (tmp_path / "other").rename(tmp_path / "third")
    assert "is trained already" in succeed("train", *words(tmp_path, name="third")).out
    succeed("threshold", tmp_path / "third", "--repeats", 1)
    (tmp_path / "third").rename(tmp_path / "fourth")
    run, test, cuts = tmp_path / "fourth", tmp_path / "test.csv", tmp_path / "fourth/thresholds.json"
    succeed("predict", run, "--images", atlas / "test", "-o", test, "--workers", 0)
    succeed("threshold", run, "-o", tmp_path / "t.json", "--repeats", 1)
    succeed("ensemble", *submission_of(test, cuts, atlas, tmp_path / "s.csv"))
    words = ["--labels", folds, "--thresholds", cuts, "-o", tmp_path / "e.json"]
    for path, in_sample in (
        (run / "fold0/oof.csv", True),
        (shutil.copy(run / "fold0/oof.csv", tmp_path / "oof.csv"), False),
    ):
        succeed("utils.tools.evaluate", path, *words)
        assert json.loads((tmp_path / "e.json").read_text())["in_sample"] is in_sample


def test_what_a_killed_process_left_after_saving_is_taken_back(words, undisturbed, tmp_path):
    run = tmp_path / "mini/fold0"
    succeed("train", *words(tmp_path), "--time-limit", "0.001s")
    for name in (".oof.csv.part", "log.csv", "validation/epoch009.npy", "validation/.epoch001.npy.part"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(b"half")
    succeed("train", *words(tmp_path))
    assert differences(undisturbed, run) == []


def test_a_finished_run_without_its_state_is_kept(words, tmp_path):
    succeed("train", *words(tmp_path))
    run = tmp_path / "mini/fold0"
    for gone, says in (("last.pt", "no last.pt to continue from"), ("best.safetensors", "checkpoints are gone")):
        (run / gone).unlink()
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        refuse("train", *words(tmp_path), says=[str(run), says, "--overwrite"])
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "best epoch" in succeed("train", *words(tmp_path), "--overwrite").out


def test_who_starts_anew_is_told_how_not_to(words, tmp_path):
    for _ in range(2):
        out = succeed("train", *words(tmp_path), "--overwrite", "--time-limit", "0.001s").out
        assert "after step 1 " in out and "the same command without --overwrite goes on" in out
    assert "going on from" in succeed("train", *words(tmp_path)).out


def test_a_signal_in_a_validation_that_was_gone_on_with_ends_it(words, undisturbed, tmp_path, monkeypatch):
    per_epoch = len(pd.read_csv(undisturbed / "steps.csv")) // 3
    for _ in range(per_epoch):
        succeed("train", *words(tmp_path), "--time-limit", "0.001s")
    real, calls = inference.tta_probabilities, []

    def interrupted(*arguments):
        calls.append(os.kill(os.getpid(), signal.SIGTERM) if not calls else None)
        time.sleep(0.2)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(inference, "tta_probabilities", interrupted)
        out = succeed("train", *words(tmp_path)).out
    assert f"stopped by SIGTERM after step {per_epoch} (batch {per_epoch} of {per_epoch} of epoch 1)" in out
    assert not (tmp_path / "mini/fold0/log.csv").exists()
    succeed("train", *words(tmp_path))
    assert differences(undisturbed, tmp_path / "mini/fold0") == []


def test_a_training_goes_on_where_its_terminal_has_gone_away(words, undisturbed, tmp_path):
    ours, its = os.openpty()

    def on_the_terminal():
        os.close(ours)
        for number in (1, 2):
            os.dup2(its, number)

    _, result = start_forked("train", *words(tmp_path), before=on_the_terminal)
    os.close(ours)
    os.close(its)
    assert result().code == 0
    assert differences(undisturbed, tmp_path / "mini/fold0") == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("letters", [1, 100_000], ids=["at the end", "meanwhile"])
def test_a_full_disk_under_what_is_printed_is_no_error(letters):
    program = f"from utils.cli import run_script\nrun_script(lambda: print({letters} * 'a'))"
    command, environment = [sys.executable, "-c", program], os.environ | {"PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr


def test_a_damaged_or_foreign_state_is_refused_and_kept(words, run, tmp_path):
    succeed("train", *words(tmp_path), "--time-limit", "0.001s")
    path = tmp_path / "mini/fold0/last.pt"
    whole = torch.load(path, weights_only=True)
    for change, says in [
        ({"model": {}}, "do not fit the network"),
        ({"parts": whole["parts"] | {"optimiser": {"state": {}, "param_groups": []}}}, "damaged or of another network"),
        ({"parts": {}}, "damaged"),
        ({"steps": {"step": torch.zeros(2), "loss": torch.zeros(1)}}, "damaged"),
        ({"random": [{"cpu": torch.zeros(3, dtype=torch.uint8)}]}, "damaged"),
        ({"step": "many"}, "its step is not"),
        ({"position": -1}, "damaged"),
        ({"position": 99}, "damaged"),
        ({"stage": 2}, "damaged"),
        ({"log": [{"seconds": "long"}]}, "its log is not"),
        ({"log": [{"epoch": 1}]}, "its log is not"),
        ({"score": "high"}, "its score is not"),
        ({"parts": whole["parts"] | {"optimiser": other_shapes(whole["parts"]["optimiser"])}}, "damaged"),
    ]:
        torch.save(whole | change, path)
        before = path.read_bytes()
        refuse("train", *words(tmp_path), says=[str(path), says, "--overwrite"])
        assert path.read_bytes() == before


def other_shapes(optimiser):
    return optimiser | {"state": {number: {"exp_avg": torch.zeros(7)} for number in optimiser["state"]}}


def test_a_loss_that_is_no_number_is_told_with_its_images(words, tmp_path, monkeypatch):
    poison(monkeypatch, 3)
    message = refuse(
        "train", *words(tmp_path), "--save-every", "0.001s", says=["the loss became nan at step 3 (epoch 1)"]
    )
    run = tmp_path / "mini/fold0"
    assert f"{run / 'last.pt'} holds step 2" in message and "--skip-nan" in message
    rows = pd.read_csv(run / "rows.csv")
    named = [id_ for id_ in rows["Id"][rows["part"] == "train"] if id_ in message]
    assert len(named) == 8 and not any(id_ in message for id_ in rows["Id"][rows["part"] == "valid"])


def test_without_a_step_saved_a_loss_that_is_no_number_leaves_nothing(words, tmp_path, monkeypatch):
    poison(monkeypatch, 1)
    refuse("train", *words(tmp_path), says=["at step 1", "nothing is saved yet"])
    assert not (tmp_path / "mini").exists()


def test_batches_that_are_no_numbers_can_be_left_out(words, undisturbed, tmp_path, monkeypatch):
    poison(monkeypatch, 3, 4)
    out = succeed("train", *words(tmp_path), "--skip-nan", 2).out
    assert "batch 1 of at most 2" in out and "batch 2 of at most 2" in out
    run = tmp_path / "mini/fold0"
    steps = pd.read_csv(run / "steps.csv")["step"].tolist()
    assert steps == [step for step in pd.read_csv(undisturbed / "steps.csv")["step"] if step not in (3, 4)]
    state = torch.load(run / "last.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state["model"].values()), "batch norm's statistics among them"
    assert state["left_out"] == 2


def test_a_batch_more_than_may_be_left_out_ends_the_training(words, tmp_path, monkeypatch):
    poison(monkeypatch, 3, 4)
    refuse("train", *words(tmp_path), "--skip-nan", 1, says=["at step 4", "--skip-nan 6"])


def test_a_rate_that_is_too_high_ends_in_a_sentence(words, tmp_path):
    refuse("train", *words(tmp_path, optimiser="sgd", lr=1e9), says=["became", "lower --lr"])


def test_weights_that_are_no_numbers_are_not_saved(words, tmp_path, monkeypatch):
    real = Trainer.train_step

    def overflows(self, batch, *more):
        curves = real(self, batch, *more)
        if self.progress.step == 3:
            next(self.network.parameters()).data.fill_(float("inf"))
        return curves

    monkeypatch.setattr(Trainer, "train_step", overflows)
    refuse("train", *words(tmp_path), "--save-every", "0.001s", says="weights became infinite or NaN")
    assert torch.load(tmp_path / "mini/fold0/last.pt", weights_only=True)["step"] == 2


def test_two_processes_go_on_in_mid_epoch_and_one_may_take_over(words, tmp_path):
    together("train", *words(tmp_path / "whole"))
    for runs in ("parts", "fewer"):
        out = together("train", *words(tmp_path / runs), "--time-limit", "0.001s")
        assert "stopped at the time limit after step 1 (batch 1 of" in out
    out = together("train", *words(tmp_path / "parts"))
    assert "going on from" in out
    assert differences(tmp_path / "whole/mini/fold0", tmp_path / "parts/mini/fold0") == []
    assert "going on from" in succeed("train", *words(tmp_path / "fewer")).out


def test_torchrun_hands_a_signal_on(words, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", ROOT / "train.py",
               *map(str, words(tmp_path, epochs=2000))]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path
    )
    for line in process.stdout:
        if line.startswith("1/2000"):
            process.send_signal(signal.SIGTERM)
            break
    out = process.communicate(timeout=120)[0]
    assert "stopped by SIGTERM after" in out, out
    assert torch.load(tmp_path / "mini/fold0/last.pt", weights_only=True)["step"] > 0


def test_odd_options_are_refused_at_once_or_gone_on_with(words, folds, tmp_path):
    refuse("train", *words(tmp_path), "--loss", "1:bce\n2:soft_f1", says=["--loss", "not one line of text"])
    table = tmp_path / "ex\u3000p é" / "folds.csv"
    table.parent.mkdir()
    shutil.copy(folds, table)
    options = [*words(tmp_path), "--folds", table]
    succeed("train", *options, "--time-limit", "0.001s")
    assert "going on from" in succeed("train", *options).out


def test_where_one_process_is_refused_the_others_end_without_a_word(words, tmp_path):
    with resume.lock_run(tmp_path / "mini/fold0"):
        done = torchrun(ROOT / "train.py", *words(tmp_path))
    assert done.returncode and done.stderr.count("error: ") == 1 and "another process is training" in done.stderr
    assert "[rank" not in done.stderr and "gloo" not in done.stderr, done.stderr


@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from(sorted(UNITS))), min_size=1, max_size=4))
def test_spans_of_time_add_up(parts):
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_span("--x", text) == sum(number * UNITS[unit] for number, unit in parts)


@pytest.mark.parametrize("text", ["", "10", "8h30", "h", "-1h", "1 h", "1e3s", "nan", "inf", "1h;2m", "١s"])
def test_no_span_of_time_is_refused(text):
    with pytest.raises(InputError, match="--x .* is not a duration; give one such as"):
        parse_span("--x", text)


def test_a_clock_and_a_limit():
    assert [clock(seconds) for seconds in (0, 59.6, 3599, 3600)] == ["0:00", "1:00", "59:59", "1:00:00"]
    assert Stop(time.time(), 3600).reason is None and Stop(time.time()).reason is None
    assert Stop(time.time() - 10, 5).reason == "at the time limit"

"""train.py: what a run leaves behind, and that it can be repeated and gone on with."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import kit, refuse, stop_in_epoch, succeed, train_options
from sklearn import metrics as sk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from utils.data import augment, sampling
from utils.engine import checkpoint, losses, trainer
from utils.engine.recipes import RECIPES
from utils.runs.config import RunConfig
from utils.runs.predictions import read_predictions
from utils.runs.run_folder import WEIGHTS
from utils.scoring.metrics import best_global_threshold


def weights_of(folder, name="last.pt"):
    return checkpoint.load(folder / name)["model"]


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_directory_holds_what_the_readme_says(run, folds, atlas):
    folder = run / "fold0"
    files = "config.json image_statistics.json last.pt best.safetensors log.csv steps.csv oof.csv rows.csv tensorboard validation"
    assert {path.name for path in folder.iterdir()} == set(files.split())
    config = json.loads((folder / "config.json").read_text())
    assert config["model"] == "gapnet_pl" and len(config["class_names"]) == 28 and config["versions"]["torch"]
    log, steps = pd.read_csv(folder / "log.csv"), pd.read_csv(folder / "steps.csv")
    assert log["epoch"].tolist() == [1, 2] and len(steps) == log["step"].iloc[-1]
    assert {"loss", "bce", "weighted_bce", "positive_bce", "focal", "soft_f1", "precision", "recall", "lr"} <= set(
        steps
    )
    assert any((folder / "tensorboard").iterdir())
    table = pd.read_csv(folds, dtype=str, keep_default_na=False)
    rows = pd.read_csv(folder / "rows.csv", dtype=str, keep_default_na=False).set_index("Id")
    assert rows["Target"].to_dict() == table.set_index("Id")["Target"].to_dict()
    assert set(rows.index[rows["part"] == "valid"]) == set(table["Id"][table["fold"] == "0"])


def test_oof_is_the_validation_fold_at_the_best_epoch(run, folds, atlas):
    for fold in (0, 1):
        table = pd.read_csv(folds, dtype=str, keep_default_na=False)
        oof = read_predictions(run / f"fold{fold}" / "oof.csv")
        assert oof.index.tolist() == table["Id"][table["fold"] == str(fold)].tolist()
        truth = train.encode(table.set_index("Id")["Target"].loc[oof.index], oof.columns)
        best = checkpoint.load(run / f"fold{fold}" / WEIGHTS)
        assert best_global_threshold(truth, oof.to_numpy())[1] == pytest.approx(best["score"])
        log = pd.read_csv(run / f"fold{fold}" / "log.csv")
        assert best["epoch"] == log["epoch"][log["macro_f1"].idxmax()]


def test_every_epochs_validation_is_kept_and_told(run, folds):
    """Half-precision predictions of each epoch; log.csv's macro and class F1 and focal loss are what they say."""
    for fold in (0, 1):
        folder = run / f"fold{fold}"
        oof, log = read_predictions(folder / "oof.csv"), pd.read_csv(folder / "log.csv")
        epochs = [np.load(folder / f"validation/epoch{epoch:03}.npy") for epoch in log["epoch"]]
        assert all(values.dtype == np.float16 and values.shape == oof.shape for values in epochs)
        best = log["macro_f1"].idxmax()
        assert epochs[best].astype(float) == pytest.approx(oof.to_numpy(), rel=2**-11, abs=1e-7)
        targets = pd.read_csv(folds, dtype=str, keep_default_na=False).set_index("Id")["Target"]
        truth = train.encode(targets.loc[oof.index], oof.columns)
        f1 = sk.f1_score(truth, oof >= log["threshold"][best], average=None, zero_division=0)
        assert log.loc[best, [f"f1 {name}" for name in oof.columns]].to_numpy(float) == pytest.approx(f1)
        assert log["macro_f1"][best] == pytest.approx(f1.mean())
        p_t = np.where(truth == 1, oof, 1 - oof)
        focal = (np.where(truth == 1, 0.25, 0.75) * (1 - p_t) ** 5 * -np.log(p_t)).mean()
        assert log["valid_focal"][best] == pytest.approx(focal, rel=1e-3)


def test_tensorboard_has_the_nine_curves_and_the_validation(run):
    board = EventAccumulator(str(run / "fold0" / "tensorboard"))
    board.Reload()
    steps, log = (pd.read_csv(run / "fold0" / name) for name in ("steps.csv", "log.csv"))
    for name in ("loss", "bce", "weighted_bce", "positive_bce", "focal", "soft_f1", "precision", "recall", "lr"):
        points = board.Scalars(f"train/{name}")
        assert [point.step for point in points] == steps["step"].tolist()
        assert [point.value for point in points] == pytest.approx(steps[name].tolist(), rel=1e-6)
    tags = [tag for tag in board.Tags()["scalars"] if tag.startswith("validation/")]
    assert {"validation/macro_f1", "validation/valid_focal"} <= set(tags) and sum("/f1 " in tag for tag in tags) == 28
    assert [p.value for p in board.Scalars("validation/macro_f1")] == pytest.approx(log["macro_f1"].tolist(), rel=1e-6)


def test_predict_repeats_the_oof(run, atlas, tmp_path):
    """The same images through predict.py, without flips: the very probabilities of the validation."""
    oof = read_predictions(run / "fold0" / "oof.csv")
    oof.reset_index()[["Id"]].to_csv(tmp_path / "ids.csv", index=False)
    words = ["--images", atlas / "train", "--ids", tmp_path / "ids.csv", "-o", tmp_path / "again.csv"]
    succeed("predict", run / "fold0", *words, "--tta", 1, "--workers", 0)
    again = read_predictions(tmp_path / "again.csv")
    assert again.index.tolist() == oof.index.tolist() and again.to_numpy() == pytest.approx(oof.to_numpy(), abs=1e-6)


def test_the_same_seed_gives_the_same_weights_twice(atlas, folds, tmp_path):
    for name, seed, workers in (("a", 0, 0), ("b", 0, 2), ("c", 1, 0)):
        options = {"seed": seed, "workers": workers, "fit": "crop", "normalise": "image"}
        succeed("train", *train_options(atlas, folds, tmp_path, name, **options))
    first, second, third = (weights_of(tmp_path / name / "fold0") for name in "abc")
    assert same(first, second), "whatever the number of workers"
    assert not same(first, third)


def test_gone_on_with_it_ends_as_if_never_stopped(atlas, folds, tmp_path, monkeypatch):
    """Stop after two of four epochs, over changes of loss and augmentation and a halved rate, and run the command again."""
    options = dict(
        epochs=4, loss="1:bce 3:soft_f1+weighted_bce", augment="1:chen 4:chen_strong", optimiser="sgd", lr=0.05
    )
    options |= {"plateau": "step", "patience": 0, "min-gain": 1}
    succeed("train", *train_options(atlas, folds, tmp_path, "whole", **options))
    stop_in_epoch(monkeypatch, 3, train_options(atlas, folds, tmp_path, "parts", **options))
    assert "going on from" in succeed("train", *train_options(atlas, folds, tmp_path, "parts", **options)).out
    whole, parts = tmp_path / "whole" / "fold0", tmp_path / "parts" / "fold0"
    assert same(weights_of(whole), weights_of(parts)) and same(
        weights_of(whole, "best.safetensors"), weights_of(parts, "best.safetensors")
    )
    assert (whole / "oof.csv").read_bytes() == (parts / "oof.csv").read_bytes()
    assert (whole / "steps.csv").read_bytes() == (parts / "steps.csv").read_bytes()
    for epoch in range(1, 5):
        name = f"validation/epoch{epoch:03}.npy"
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    rate = pd.read_csv(whole / "steps.csv")["lr"]  # two steps an epoch; stopped after the fourth
    assert rate[3] < rate[0] and rate[7] < rate[4], "the rate was halved before and after the stop"
    clock = ["images_per_second", "seconds", "peak_gb"]
    assert pd.read_csv(whole / "log.csv").drop(columns=clock).equals(pd.read_csv(parts / "log.csv").drop(columns=clock))


def test_a_finished_run_is_kept_and_other_options_are_refused(atlas, folds, tmp_path):
    command = train_options(atlas, folds, tmp_path)
    succeed("train", *command)
    before = (tmp_path / "mini/fold0/last.pt").read_bytes()
    assert "trained already" in succeed("train", *command).out
    refuse("train", *command, "--lr", 0.01, says=["other options", "lr 0.001 -> 0.01"])
    assert (tmp_path / "mini/fold0/last.pt").read_bytes() == before
    succeed("train", *command, "--lr", 0.01, "--overwrite")
    assert (tmp_path / "mini/fold0/last.pt").read_bytes() != before


def test_limit_makes_it_small(atlas, folds, tmp_path):
    succeed("train", *train_options(atlas, folds, tmp_path, limit=5, epochs=1))
    assert len(read_predictions(tmp_path / "mini/fold0/oof.csv")) == 5


@pytest.mark.parametrize("optimiser", trainer.OPTIMISERS)
def test_every_optimiser_lowers_the_loss(atlas, folds, tmp_path, optimiser):
    lr = {"adadelta": 1.0, "sgd": 0.05}.get(optimiser, 0.001)
    succeed("train", *train_options(atlas, folds, tmp_path, optimiser=optimiser, lr=lr, epochs=4, l1=1e-6))
    log = pd.read_csv(tmp_path / "mini/fold0/log.csv")
    assert log["bce"].iloc[-1] < log["bce"].iloc[0]


def test_se_resnext50_trains_on_three_mixed_planes(atlas, folds, tmp_path):
    options = {"model": "se_resnext50_32x4d", "weights": "none", "channels": "rgb+y/3", "epochs": 1, "limit": 16}
    succeed("train", *train_options(atlas, folds, tmp_path, **options))
    assert weights_of(tmp_path / "mini/fold0")["layer0.conv1.weight"].shape == (64, 3, 7, 7)


def test_bfloat16_trains(atlas, folds, tmp_path):
    succeed("train", *train_options(atlas, folds, tmp_path, amp="bf16", epochs=1))
    assert np.isfinite(pd.read_csv(tmp_path / "mini/fold0/log.csv")["loss"]).all()


def test_the_loss_switches_when_the_schedule_says(atlas, folds, tmp_path):
    succeed("train", *train_options(atlas, folds, tmp_path, epochs=3, loss="1:bce 2:soft_f1+2*weighted_bce"))
    steps = pd.read_csv(tmp_path / "mini/fold0/steps.csv")
    first, later = steps[steps["epoch"] == 1], steps[steps["epoch"] > 1]
    assert first["loss"].to_numpy() == pytest.approx(first["bce"].to_numpy(), abs=1e-6)
    assert later["loss"].to_numpy() == pytest.approx(
        (later["soft_f1"] + 2 * later["weighted_bce"]).to_numpy(), abs=1e-5
    )


def make_trainer(steps_per_epoch=5, **options):
    config = RunConfig(**RECIPES["chen"] | options, class_names=["a", "b", "c"], mean=[0.0], std=[1.0])
    data = type("Data", (), {"channels": type("C", (), {"mix": None}), "targets": np.ones((8, 3), np.uint8)})
    schedule = losses.parse_schedule(config.loss)
    return trainer.Trainer(torch.nn.Linear(4, 3), data, config, schedule, torch.device("cpu"), None, steps_per_epoch)


def test_the_plateau_starts_anew_when_the_loss_switches():
    """The old loss's best value must not halve the rate under the new one; the rate itself stays."""
    subject = make_trainer(loss="1:bce 3:soft_f1", patience=1, plateau="epoch")
    finished_after(subject, [0.9, 0.5])
    assert subject.plateau.scheduler.num_bad_epochs == 1 and subject.lr == 0.1
    subject.begin_epoch()
    assert (
        subject.plateau.scheduler.num_bad_epochs == 0
        and subject.plateau.scheduler.best == -float("inf")
        and subject.lr == 0.1
    )
    subject.end_epoch(0.2)
    assert subject.lr == 0.1
    finished_after(subject, [0.1, 0.1])
    assert subject.lr == 0.05


def test_patience_of_a_plateau_by_steps_is_counted_in_epochs():
    assert make_trainer(plateau="step", patience=4.0).plateau.scheduler.patience == 20
    assert make_trainer(plateau="epoch", patience=4.0).plateau.scheduler.patience == 4


def rates(subject, f1s):
    """The learning rate at each step of a run whose batches have these soft F1s."""
    subject.optimiser.step = lambda *a, **k: None
    subject.normaliser = lambda _: torch.ones(1, 4)
    steps = iter(f1s)

    def soft_f1(inputs):
        return 0 * inputs.logits.sum() + 1 - next(steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(losses.LOSSES, "soft_f1", losses.Loss(soft_f1, separable=False))
        batch = {"targets": torch.tensor([[1.0, 0.0, 0.0]]), "images": None, "rows": torch.tensor([0])}
        return [subject.train_step(batch)["lr"] for _ in f1s]


def test_the_rate_halves_by_steps_when_the_running_mean_of_soft_f1_stands_still():
    """Patience 2 epochs = 10 steps: the first value that counts is that of step 5, ten more do not beat it, the next halves."""
    subject = make_trainer(loss="1:soft_f1", patience=2, plateau="step", min_gain=1e-4)  # 5 steps an epoch
    subject.begin_epoch()
    assert rates(subject, [0.3] * 28) == [0.1] * 16 + [0.05] * 11 + [0.025]


def test_a_plateau_counts_from_the_end_of_the_warm_up():
    """Ten steps of it, of five an epoch, then as without. An epoch that ends within it does not count either."""
    options = {"loss": "1:soft_f1", "patience": 2, "min_gain": 1e-4, "warmup": 2.0}
    subject = make_trainer(plateau="step", **options)
    subject.begin_epoch()
    expected = [0.1 * (step / 10) for step in range(1, 11)] + [0.1] * 16 + [0.05] * 2
    assert rates(subject, [0.3] * 28) == expected
    subject = make_trainer(plateau="epoch", **options | {"patience": 0})
    finished_after(subject, [0.9, 0.8])
    assert subject.plateau.scheduler.best == -float("inf")
    finished_after(subject, [0.3, 0.2])
    assert subject.lr == 0.05


def test_cosine_and_warm_up_are_the_rate_of_all_groups_of_weights():
    options = {"loss": "1:soft_f1", "plateau": "none", "epochs": 2, "warmup": 0.4, "lr_schedule": "cosine"}
    subject = make_trainer(decay_norms=False, **options)
    subject.begin_epoch()
    found = rates(subject, [0.3] * 10)
    cosine = [0.05 * (1 + np.cos(np.pi * step / 8)) for step in range(1, 9)]
    assert found == pytest.approx([0.05, 0.1, *cosine]) and found[-1] == 0
    assert [group["lr"] for group in subject.optimiser.param_groups] == [0, 0]


def test_noise_neither_halves_the_rate_of_a_rising_mean_nor_saves_that_of_a_falling_one():
    noise = np.random.default_rng(0).normal(0, 0.1, 400)
    for slope, halved in ((0.001, False), (-0.0005, True)):
        subject = make_trainer(loss="1:soft_f1", patience=20, plateau="step", min_gain=1e-4)  # 100 steps
        subject.begin_epoch()
        found = rates(subject, (0.4 + noise + slope * np.arange(400)).tolist())
        assert (found[-1] < 0.1) == halved, slope


def test_a_lucky_first_batch_is_not_the_best_for_long():
    """The mean of the first steps is one batch's value; only from step 50 (or the end of epoch 1) does the plateau look."""
    subject = make_trainer(loss="1:soft_f1", patience=1, plateau="step", min_gain=1e-4, steps_per_epoch=60)
    subject.begin_epoch()
    assert set(rates(subject, [0.9] + [0.2 + 0.002 * k for k in range(160)])) == {0.1}


def test_soft_f1_that_drops_at_a_switch_and_then_rises_keeps_the_rate():
    """Neither the old loss's best value nor its running mean may count as the new one's."""
    subject = make_trainer(loss="1:bce 2:soft_f1", patience=2, plateau="step", min_gain=1e-4, steps_per_epoch=60)
    subject.begin_epoch()
    assert set(rates(subject, [0.6] * 60)) == {0.1}
    subject.end_epoch(0.0)
    subject.begin_epoch()
    assert set(rates(subject, [0.3 + 0.0005 * k for k in range(400)])) == {0.1}


def test_stages_beyond_the_last_epoch_are_told_and_do_not_hold_up_the_early_stop(atlas, folds, tmp_path):
    more = {"loss": "1:bce 9:soft_f1", "augment": "1:d4 7:chen", "epochs": 2}
    out = succeed("train", *train_options(atlas, folds, tmp_path, **more)).out
    assert "never reached in 2 epochs: loss 9:soft_f1" in out and "never reached in 2 epochs: augment 7:chen" in out
    subject = make_trainer(loss="1:bce 30:soft_f1", early_stop=2, epochs=10)
    for score in (0.5, 0.1, 0.1):
        subject.begin_epoch()
        subject.end_epoch(score)
    assert subject.finished


@pytest.mark.parametrize("term", losses.LOSSES)
def test_every_term_of_the_loss_trains(atlas, folds, tmp_path, term):
    single = ["--single-label", "--fold", 1] if term == losses.EXCLUSIVE else []
    succeed("train", *train_options(atlas, folds, tmp_path, loss=f"1:2*{term}", epochs=1, limit=16), *single)
    if single:
        (tmp_path / "mini/fold1").rename(tmp_path / "mini/fold0")
    steps = pd.read_csv(tmp_path / "mini/fold0/steps.csv")
    assert steps["loss"].to_numpy() == pytest.approx(2 * steps[term].to_numpy(), rel=1e-5)


def finished_after(subject, scores):
    """Whether a training has finished after each of these epochs of five steps."""
    ended = []
    for score in scores:
        subject.begin_epoch()
        for _ in range(5):
            subject.enter_stage()
            subject.progress.step += 1
        subject.end_epoch(score)
        ended.append(subject.finished)
    return ended


def test_early_stop_counts_from_the_stage_that_is_reached():
    """Not from the last one of the schedule: flat epochs under the first loss end a training, too."""
    later = {"loss": "1:bce 3:soft_f1 30:focal", "early_stop": 3, "epochs": 50}
    assert finished_after(make_trainer(**later), [0.5, 0.1, 0.1, 0.1, 0.1]) == [False] * 4 + [True]
    first = {"loss": "1:bce 30:focal", "early_stop": 3, "epochs": 50}
    assert finished_after(make_trainer(**first), [0.5, 0.1, 0.1, 0.1]) == [False] * 3 + [True]
    # From step 12, which is in epoch 3: that epoch counts.
    by_step = {"loss": "1:bce step12:focal", "early_stop": 3, "epochs": 50}
    assert finished_after(make_trainer(**by_step), [0.5, 0.1, 0.1, 0.1, 0.1]) == [False] * 4 + [True]


def test_the_last_epoch_is_kept_if_asked_for(atlas, folds, tmp_path, monkeypatch):
    """Though each epoch is worse than the one before; who reads the run takes the same epoch."""
    scores = iter([0.9, 0.8, 0.7])
    monkeypatch.setattr(train, "scored", lambda *_: (0.5, next(scores)))
    command = train_options(atlas, folds, tmp_path, epochs=3, keep="last")
    refuse("train", *command, "--early-stop", 2, says=["--keep last", "--early-stop 2", "add --early-stop 0"])
    assert "last epoch 3 of 3" in succeed("train", *command).out
    folder = tmp_path / "mini/fold0"
    kept = checkpoint.load(folder / WEIGHTS)
    assert (kept["epoch"], kept["score"]) == (3, 0.7) and same(kept["model"], weights_of(folder))
    last = np.load(folder / "validation/epoch003.npy")
    assert last.astype(float) == pytest.approx(read_predictions(folder / "oof.csv").to_numpy(), rel=2**-11, abs=1e-7)
    assert "smooth over 3 epochs" in succeed("threshold", folder, "--repeats", 1, "-o", tmp_path / "t.json").out
    assert "macro F1 0.7000 in the last epoch" in succeed("train", *command).out


def test_gain_relative_to_the_best_or_as_it_is():
    """F1 that rises as .78 (1 − exp(−epoch/40)), patience 30: a gain of .01 as it is halves the rate at epoch 189, relative never."""
    halved = {}
    for mode in ("abs", "rel"):
        subject = make_trainer(plateau="epoch", patience=30, min_gain=0.01, min_gain_mode=mode)
        rates = []
        for epoch in range(1, 201):
            subject.plateau.after_epoch(0.78 * (1 - np.exp(-epoch / 40)))
            rates.append(subject.lr)
        halved[mode] = next((number + 1 for number, rate in enumerate(rates) if rate < 0.1), None)
    assert halved == {"abs": 189, "rel": None}


def test_the_loss_switches_at_a_step_within_an_epoch(atlas, folds, tmp_path, monkeypatch):
    """And so after an interruption."""
    options = {"loss": "1:bce step2:focal step6:2*bce", "batch-size": 8, "epochs": 2, "save-every": 0}
    succeed("train", *train_options(atlas, folds, tmp_path, **options))
    steps = pd.read_csv(tmp_path / "mini/fold0/steps.csv")
    expected = [*steps["bce"][:2], *steps["focal"][2:6], *2 * steps["bce"][6:]]
    assert steps["step"].tolist() == list(range(1, 9)) and steps["loss"].tolist() == pytest.approx(expected, abs=1e-6)
    again = train_options(atlas, folds, tmp_path, name="again", **options)
    stop_in_epoch(monkeypatch, 2, again)
    succeed("train", *again)
    assert pd.read_csv(tmp_path / "again/fold0/steps.csv").equals(steps)


def test_scored_at_a_half_and_with_the_views_of_the_test(atlas, folds, tmp_path):
    """log.csv against scikit-learn, oof.csv against predict.py, which takes the run's number of views."""
    views = {"valid-tta": 4, "tta": 4, "score-threshold": 0.5}
    more = views | {"limit": 30, "lr": 0.01, "plateau": "none"}
    out = succeed("train", *train_options(atlas, folds, tmp_path, **more)).out
    assert "valid_tta=4" in out and "score_threshold=0.5" in out
    folder = tmp_path / "mini/fold0"
    oof, log = read_predictions(folder / "oof.csv"), pd.read_csv(folder / "log.csv")
    targets = pd.read_csv(folds, dtype=str, keep_default_na=False).set_index("Id")["Target"]
    truth = train.encode(targets.loc[oof.index], oof.columns)
    best = log.loc[log["macro_f1"].idxmax()]
    assert best["macro_f1"] == pytest.approx(sk.f1_score(truth, oof >= 0.5, average="macro", zero_division=0))
    assert best["valid_accuracy"] == pytest.approx(1 - sk.hamming_loss(truth, oof >= 0.5))
    assert log["accuracy"].between(0.5, 1).all() and (log["threshold"] == 0.5).all()
    oof.reset_index()[["Id"]].to_csv(tmp_path / "ids.csv", index=False)
    words = ["--images", atlas / "train", "--ids", tmp_path / "ids.csv", "-o", tmp_path / "p.csv", "--workers", 0]
    assert "4 TTA views" in succeed("predict", tmp_path / "mini", *words).out
    assert read_predictions(tmp_path / "p.csv").to_numpy() == pytest.approx(oof.to_numpy(), abs=1e-6)
    one = json.loads((folder / "config.json").read_text()) | {"tta": 1}
    shutil.copytree(folder, tmp_path / "other/fold1")
    (tmp_path / "other/fold1/config.json").write_text(json.dumps(one))
    refuse("predict", folder, tmp_path / "other", *words, says="differ in their number of TTA views (1, 4); give --tta")


def test_a_network_of_exclusive_classes_predicts_a_softmax(run, atlas, folds, tmp_path):
    """Rumetshofer et al., section 3.2: the last layer trained again on images of one class."""
    start = {"weights": run / "fold1/best.safetensors", "layers": "last", "loss": "1:cross_entropy", "fold": 1}
    words = train_options(atlas, folds, tmp_path, **start, epochs=1)
    refuse("train", *words, says="is for images of exactly one class; add --single-label")
    succeed("train", *words, "--single-label")
    oof = read_predictions(tmp_path / "mini/fold1/oof.csv")
    assert oof.sum(axis=1).to_numpy() == pytest.approx(np.ones(len(oof)), abs=1e-5)
    steps = pd.read_csv(tmp_path / "mini/fold1/steps.csv")
    assert steps["loss"].equals(steps["cross_entropy"])
    predict = ["--images", atlas / "test", "-o", tmp_path / "p.csv", "--workers", 0]
    succeed("predict", tmp_path / "mini", *predict, "--tta", 4)
    assert read_predictions(tmp_path / "p.csv").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    refuse("predict", tmp_path / "mini", run, *predict, says="was trained with another activation than")


def test_prediction_cannot_reach_training_augmentation(run, atlas, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("augmentation in prediction")

    monkeypatch.setattr(augment.Augmentation, "__call__", never)
    assert json.loads((run / "fold0" / "config.json").read_text())["augment"] == "d4"
    succeed("predict", run / "fold0", "--images", atlas / "test", "-o", tmp_path / "p.csv", "--workers", 0)


def test_only_the_last_layer_on_single_label_images(run, atlas, folds, tmp_path):
    """Rumetshofer et al., section 3.2: from a trained run, all but the last layer as it was."""
    start = run / "fold1" / "best.safetensors"
    options = train_options(atlas, folds, tmp_path, fold=1, weights=start, layers="last", epochs=2, lr=0.01)
    out = succeed("train", *options, "--single-label").out
    assert "only the last layer trained" in out
    before, after = weights_of(start.parent, "best.safetensors"), weights_of(tmp_path / "mini/fold1")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"head.weight", "head.bias"}
    rows = pd.read_csv(tmp_path / "mini/fold1/rows.csv", dtype=str, keep_default_na=False)
    table = pd.read_csv(folds, dtype=str, keep_default_na=False)
    assert set(rows["Id"]) == set(table["Id"][table["Target"].str.split().str.len() == 1])
    words = train_options(atlas, folds, tmp_path, "none")
    refuse("train", *words, "--single-label", says="no image of exactly one class in fold 0")


def test_batch_norm_of_what_is_not_trained_stays(atlas, folds, tmp_path):
    """The statistics too: validation would otherwise see another network than the one that was kept."""
    options = dict(model="liimatainen_fcn", layers="last", epochs=1)
    succeed("train", *train_options(atlas, folds, tmp_path, "first", **options | {"layers": "all"}))
    start = tmp_path / "first/fold0/best.safetensors"
    succeed("train", *train_options(atlas, folds, tmp_path, **options, weights=start))
    before, after = weights_of(start.parent, "best.safetensors"), weights_of(tmp_path / "mini/fold0")
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"maps.weight", "maps.bias"}


def test_a_time_limit_ends_a_run_and_more_time_goes_on(atlas, folds, tmp_path):
    """One epoch always; the longer run ends with the weights of one that never stopped."""
    options = train_options(atlas, folds, tmp_path, epochs=3)
    out = succeed("train", *options, "--max-minutes", 0.00001).out
    assert "used up" in out and len(pd.read_csv(tmp_path / "mini/fold0/log.csv")) == 1
    succeed("train", *options, "--max-minutes", 60)
    succeed("train", *train_options(atlas, folds, tmp_path, "whole", epochs=3))
    assert same(weights_of(tmp_path / "mini/fold0"), weights_of(tmp_path / "whole/fold0"))


def test_a_network_with_two_outputs_is_trained_on_both(atlas, folds, tmp_path):
    """Convolutional MIL: the noisy-AND's threshold only moves through the second output."""
    options = train_options(atlas, folds, tmp_path, model="conv_mil", epochs=2, lr=0.01)
    succeed("train", *options)
    assert weights_of(tmp_path / "mini/fold0")["threshold"].abs().max() > 0


def test_unfit_networks_are_refused_before_any_image_is_read(atlas, folds, tmp_path):
    options = train_options(atlas, folds, tmp_path, images=tmp_path)
    for more, says in (({"model": "m_cnn"}, "--size 128"), ({"model": "gapnet"}, "no network is called 'gapnet'")):
        words = train_options(atlas, folds, tmp_path, images=tmp_path, **more)
        refuse("train", *words, says=says)
        refuse("train", *words, "--check", says=says)
    one = {"model": "se_resnext50_32x4d", "weights": "none", "batch-size": 1}
    words = train_options(atlas, folds, tmp_path, images=tmp_path, **one)
    says = ["batch norm of se_resnext50_32x4d", "a batch of one image at --size 32", "--batch-size 2 or more, or"]
    refuse("train", *words, says=says)
    says = "--batch-size 2 or more, and more than one image to train on"
    refuse("train", *words, "--batch-size", 8, "--limit", 1, says=says)
    refuse("train", *options, says="without an image")
    refuse("train", *options, "--max-minutes", -1, says="--max-minutes")
    refuse("train", *options, "--layers", "last", says="needs pretrained weights; give --weights")


def test_a_run_from_before_an_option_existed_goes_on(atlas, folds, tmp_path):
    options = train_options(atlas, folds, tmp_path)
    succeed("train", *options)
    path = tmp_path / "mini/fold0/last.pt"
    state = torch.load(path, weights_only=True)
    for key in ("layers", "single_label", "max_minutes"):
        del state["config"][key]
    torch.save({key: state[key] for key in ("config", "model", "epoch", "score", "finished")}, path)
    assert "trained already" in succeed("train", *options).out
    torch.save(state | {"finished": False}, path)
    assert "going on from" in succeed("train", *options).out


def test_starting_weights_that_have_seen_the_validation_images_are_refused(run, atlas, folds, tmp_path):
    """Fold 1 of one run was trained on fold 0."""
    options = train_options(atlas, folds, tmp_path, weights=run / "fold1/best.safetensors", epochs=1)
    refuse("train", *options, says=["best.safetensors was trained on", "to validate", "same fold"])
    succeed("train", *train_options(atlas, folds, tmp_path, weights=run / "fold0/best.safetensors", epochs=1))


def test_layers_that_stay_see_what_they_were_trained_on(run, atlas, folds, tmp_path):
    """Mean and spread of the images come along, though they are now measured on fewer."""
    before = json.loads((run / "fold1/config.json").read_text())
    words = train_options(
        atlas, folds, tmp_path, fold=1, weights=run / "fold1/best.safetensors", layers="last", epochs=1
    )
    succeed("train", *words, "--single-label")
    after = json.loads((tmp_path / "mini/fold1/config.json").read_text())
    assert after["normalise"] == "dataset" and (after["mean"], after["std"]) == (before["mean"], before["std"])


def test_killed_between_the_best_and_the_last_checkpoint_an_epoch_is_repeated_whatever_the_time(
    atlas, folds, tmp_path, monkeypatch
):
    options = [*train_options(atlas, folds, tmp_path, epochs=3), "--max-minutes", 60]
    real, epochs = checkpoint.save, []

    def dies(path, state):
        if path.name == "last.pt":
            epochs.append(1)
            if len(epochs) == 2:
                raise KeyboardInterrupt
        real(path, state)

    monkeypatch.setattr(checkpoint, "save", dies)
    monkeypatch.setattr(trainer.Trainer, "end_epoch", always_better)
    assert kit("train", *options).code == 130
    monkeypatch.setattr(checkpoint, "save", real)
    folder = tmp_path / "mini/fold0"
    best, last = (checkpoint.load(folder / name)["epoch"] for name in (WEIGHTS, "last.pt"))
    assert (best, last) == (2, 1)
    succeed("train", *options[:-1], 0.00001)
    best, last = (checkpoint.load(folder / name)["epoch"] for name in (WEIGHTS, "last.pt"))
    assert (best, last) == (2, 2) and len(pd.read_csv(folder / "log.csv")) == 2


def always_better(self, score, real=trainer.Trainer.end_epoch):
    return real(self, float(self.progress.epoch))


def test_an_epoch_is_as_long_as_its_sampler_says(atlas, folds, tmp_path, monkeypatch):
    """Steps and stages by step count draws, not images."""
    monkeypatch.setitem(sampling.SAMPLERS, "repeat", lambda targets, done: np.full(len(targets), 1.5))
    words = train_options(atlas, folds, tmp_path, sampler="repeat", limit=20, **{"batch-size": 8})
    out = succeed("train", *words, "--loss", "1:bce step3:focal 2:bce").out
    assert "20 images to train on" in out and "sampler repeat: 30 draws an epoch" in out
    steps = pd.read_csv(tmp_path / "mini/fold0/steps.csv")
    assert len(steps) == 2 * 4 and (steps["loss"] == steps["focal"]).tolist() == [False] * 3 + [True] + [False] * 4

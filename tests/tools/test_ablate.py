"""python -m utils.tools.ablate: its table of arms, what it runs, and what it concludes."""

import functools
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import kit, refuse, succeed
from scipy import stats
from sklearn.metrics import average_precision_score

import predict
from utils import models
from utils.data.labels import HPA_CLASSES, encode
from utils.engine.recipes import RECIPES
from utils.errors import InputError
from utils.files import write_json
from utils.tools.ablate import __main__ as ablate
from utils.tools.ablate import outcome, tasks
from utils.tools.ablate.experiments import EXPERIMENTS, OWN_DATA, Arm, Experiment, take_apart, verdict
from utils.tools.ablate.places import HEP2, find_place

ABLATE = "utils.tools.ablate.__main__"
SCORES = ("average_precision", "f1")


def plant(out, on, experiment, arm, scores, f1=0.0):
    """Scores of finished networks, seed after seed."""
    for seed, value in enumerate(scores):
        path = tasks.result_file(out, on, experiment, experiment.arms[arm], seed)
        write_json(path.with_suffix(".json"), {"average_precision": value, "f1": f1 + value**2, "minutes": 2.0 + seed})


def arms_everywhere():
    for name, experiment in EXPERIMENTS.items():
        for on in experiment.places:
            yield name, experiment, on


def test_every_arm_has_options_that_train_and_predict_take(tmp_path, monkeypatch):
    """A wrong line of the table would end hours of work."""
    monkeypatch.chdir(tmp_path)
    HEP2.mkdir(parents=True)
    (HEP2 / "classes.csv").write_text("class,name\n0,Golgi\n1,Homogeneous\n")
    monkeypatch.setattr(models, "build", functools.cache(models.build))
    for name, experiment, on in arms_everywhere():
        place = find_place(on, tmp_path / "data", 1.0, [])
        for title, arm in experiment.arms.items():
            task = tasks.make_task(tmp_path, on, place, experiment, arm, 0, [])
            result = kit("train", *task.train[2:], "--check")
            assert result.code == 0 and f"run={task.run}" in result.out, (name, title, result.err)
            monkeypatch.setattr(sys, "argv", *task.predict.values())
            predict.parse_args()


def test_arms_of_an_experiment_differ_and_equal_options_are_one_network(tmp_path):
    for _, experiment, on in arms_everywhere():
        files = {tasks.result_file(tmp_path, on, experiment, arm, 0) for arm in experiment.arms.values()}
        assert len(files) == len(experiment.arms)
    views, losses = EXPERIMENTS["E8"], EXPERIMENTS["E1"]
    runs = {tasks.result_file(tmp_path, "atlas", views, arm, 3).parent for arm in views.arms.values()}
    assert runs == {tasks.result_file(tmp_path, "atlas", losses, Arm(), 3).parent}
    assert tasks.slug('--loss "1:bce 4:.5*focal(2)+lovasz" --ema 0.99') == "loss_1:bce_4:.5*focal(2)+lovasz_ema_0.99"


def test_the_rule():
    """Two standard errors for, one against; a single seed has none."""
    assert verdict((0.02, 0.01)) == "adopt" and verdict((0.0199, 0.01)) == "simpler stays"
    assert verdict((0.02, 0.01), None) == "adopt if no loss on HEp-2"
    assert verdict((0.02, 0.01), (-0.005, 0.005)) == "adopt"
    assert verdict((0.02, 0.01), (-0.0051, 0.005)) == "simpler stays: loss on HEp-2"
    assert verdict((0.0, 0.0)) == verdict((-0.02, 0.01)) == "simpler stays"
    assert verdict((0.3, np.nan)) == "no verdict from one seed"
    assert verdict((0.02, 0.01), (0.1, np.nan)) == "adopt if no loss on HEp-2"


def test_gains_are_those_of_the_paired_t_test(tmp_path):
    """The seeds' own level, which is larger than any gain, cancels; rows of arms without networks are shown too."""
    experiment, rng = EXPERIMENTS["E1"], np.random.default_rng(0)
    base, (name, veto, *rest) = next(iter(experiment.arms)), list(experiment.arms)[1:]
    level = rng.uniform(0.1, 0.6, 5)
    planted = {base: level, name: level + 0.02 + rng.normal(0, 0.004, 5), veto: level + 0.03}
    for arm, scores in planted.items():
        plant(tmp_path, "atlas", experiment, arm, scores)
        plant(tmp_path, "hep2", experiment, arm, scores if arm != veto else level - 0.001 * np.arange(1, 6))
    shown = succeed(ABLATE, "E1", "--plan", "-o", tmp_path).out
    found = pd.read_csv(tmp_path / "gains.csv").set_index("arm")
    for column, power in (("average_precision", 1), ("f1", 2)):
        test = stats.ttest_rel(planted[name] ** power, level**power)
        row = found.loc[name]
        assert row[f"gain_{column}"] / row[f"error_{column}"] == pytest.approx(test.statistic)
        assert row[f"gain_{column}"] == pytest.approx(np.mean(planted[name] ** power - level**power))
    assert found.loc[name, "verdict"] == "adopt" and found.loc[veto, "verdict"] == "simpler stays: loss on HEp-2"
    assert found.loc[base, "minutes"] == 4 and list(found.loc[rest, "seeds"]) == [0] * len(rest)
    assert all(arm in shown for arm in experiment.arms) and "adopt: in the first figure" in shown
    assert len(pd.read_csv(tmp_path / "seeds.csv")) == 15
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "gains.png").unlink()
    with warnings.catch_warnings():  # of E2 only the baseline, E1's, is finished
        warnings.simplefilter("error")
        assert "gains.png" not in succeed(ABLATE, "E2", "--plan", "-o", tmp_path).out
        succeed(ABLATE, "E1", "E2", "--plan", "-o", tmp_path)


def test_seeds_that_only_one_of_the_pair_has_do_not_count():
    experiment = Experiment("loss", 3, {"plain": Arm(), "other": Arm("--loss 1:focal")})
    score = {
        seed: {"average_precision": value, "f1": 0.0, "minutes": 1.0} for seed, value in enumerate((0.1, 0.2, 0.6))
    }
    other = {seed: score[seed] | {"average_precision": 0.3} for seed in (0, 1)}
    row = outcome.tabulate(experiment, {"plain": score, "other": other}).iloc[1]
    assert row["seeds"] == 2 and row["gain_average_precision"] == pytest.approx(0.15)
    assert row["verdict"] == "2 of 3 seeds"
    off = outcome.tabulate(experiment._replace(taken_off=True, seeds=2), {"plain": score, "other": other}).iloc[1]
    assert off["gain_average_precision"] == pytest.approx(-0.15) and off["verdict"] == "leave out"


def in_process(words):
    """Call the kit's script or module of a command in this process."""
    module = words[2] if words[1] == "-m" else Path(words[1]).stem
    return kit(f"{module}.__main__" if words[1] == "-m" else module, *words[3 if words[1] == "-m" else 2 :])


@pytest.fixture
def here(monkeypatch):
    """Commands run in this process: -> list of those that were run."""
    ran = []

    def run(words):
        result = in_process(words)
        assert result.code == 0, result.err
        ran.append(words)

    def one_after_another(jobs, slots):
        for position, job in enumerate(jobs):
            for words, _ in job:
                run(words)
            yield position

    monkeypatch.setattr(ablate, "side_by_side", one_after_another)
    return ran


def test_stopped_and_gone_on_it_trains_each_network_once(tmp_path, here, monkeypatch):
    trial = ["E8", "--arms", "4, mean", "--seeds", 2, "--fraction", 0.005, "--options", "--epochs 1 --size 32"]
    trial += ["-o", tmp_path / "out"]
    real, calls = ablate.steps, []

    def stops(task):
        calls.append(task)
        if len(calls) == 2:
            raise KeyboardInterrupt
        yield from real(task)

    with monkeypatch.context() as patch:
        patch.setattr(ablate, "steps", stops)
        stopped = kit(ABLATE, *trial)
    assert stopped.code == 130 and "1 of 2:" in stopped.out and "gain in AP" in stopped.out
    succeed(ABLATE, *trial)
    scripts = [Path(words[1]).stem for words in here]
    assert scripts.count("train") == 2 and scripts.count("predict") == 4 and scripts.count("make_folds") == 1
    seeds = pd.read_csv(tmp_path / "out/seeds.csv")
    run = tmp_path / "out/atlas_gapnet_pl/plain_1"
    table = pd.read_csv(run / "tta_4.csv", index_col="Id")
    truth = pd.read_csv(tmp_path / "out/data/atlas_test/train.csv", index_col="Id", dtype=str)["Target"]
    truth = encode(truth[table.index], HPA_CLASSES)
    expected = [average_precision_score(own, table.to_numpy()[:, k]) for k, own in enumerate(truth.T) if own.any()]
    row = seeds[(seeds["arm"] == "4, mean") & (seeds["seed"] == 1)].iloc[0]
    assert row["average_precision"] == pytest.approx(np.mean(expected))
    assert not set(table.index) & set(pd.read_csv(run / "fold0/rows.csv")["Id"])
    here.clear()
    assert "left: 0 networks" in succeed(ABLATE, *trial).out and not here
    refuse(ABLATE, *trial, "--fraction", 0.5, says=["settings", "choose another -o"])


def test_a_recipe_taken_apart(folds, atlas, tmp_path, monkeypatch):
    """Only what a recipe has can be left out, and is then left out."""
    best = {"augment": "gain", "fit": "zoom", "head": "avg_max", "decay_norms": False, "ema": 0.999, "keep": "last"}
    monkeypatch.setitem(RECIPES, "best", RECIPES["chen"] | best)
    for name, recipe in RECIPES.items():
        arms = {}
        with suppress(InputError):
            arms = take_apart(name).arms
        assert ("without its loss" in arms) == (recipe["loss"] != "1:bce"), name
        assert ("without TTA views" in arms) == (recipe["tta"] > 1), name
        assert ("without clipping" in arms) == (recipe["clip"] > 0), name
        assert ("without its augmentation" in arms) == (recipe["augment"] not in ("none", "d4")), name
    assert set(take_apart("best").arms) >= {
        f"without {name}" for name in ("zoom crop", "its head", "decay groups", "moving average")
    }
    assert not {"without zoom crop", "without decay groups", "without mixing"} & set(take_apart("gapnet_pl").arms)
    with pytest.raises(InputError, match="mylavarapu_1 has none of"):
        take_apart("mylavarapu_1")
    options = ["--folds", str(folds), "--images", str(atlas / "train")]
    place = find_place(OWN_DATA, tmp_path, 1.0, options)
    rows = pd.read_csv(folds)["fold"].value_counts()
    assert place.images == (rows[1] + rows[2], rows[0], rows[0])
    assert place.predict == ["--images", str(atlas / "train"), "--ids", folds, "--fold", 0]
    assert find_place(OWN_DATA, tmp_path, 1.0, [f"--folds={folds}", f"--images={atlas / 'train'}"]) == place


def test_ablate_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "LITE0", "no_such_package")
    refuse(ABLATE, "E99", says="no experiment is called 'E99'")
    refuse(ABLATE, "E1", "--arms", "nothing", says=["no arm 'nothing'", "BCE"])
    refuse(ABLATE, "E1", "--fraction", 0, says="--fraction")
    refuse(ABLATE, "E6", "--on", "hep2", says="E6 cannot be measured on hep2")
    refuse(ABLATE, "E1", "--on", "hep2", says="input/hep2/train.csv does not exist")
    refuse(ABLATE, "E1b", says="pip install")
    refuse(ABLATE, "--on", "fold0", says="give --recipe")
    refuse(ABLATE, "--on", "fold0", "--recipe", "chen", "--fraction", 0.5, says="--limit N")
    refuse(ABLATE, "E1", "--recipe", "chen", says="--recipe is for --on fold0")
    assert not list(tmp_path.iterdir())

"""Combining networks: means, greedy weights, the stack, what is measured, and ensemble.py --oof."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import random_table, refuse, submission_of, succeed, write_labels
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import gmean, rankdata

from utils.data.labels import decode
from utils.runs.predictions import write_predictions
from utils.scoring import blending, ensembling, stacking
from utils.scoring.calibration import logit, sigmoid
from utils.scoring.cross_fit import deal
from utils.scoring.metrics import best_thresholds, macro_f1


def networks(seed=0, rows=300, classes=4, skills=(1.5, 1.0), rare=0.1):
    """Labels (N, C) and what several networks of different skill say of them (M, N, C), errors of their own."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((rows, classes)) < rare).astype(np.uint8)
    truth[:2] = 1
    members = np.stack([sigmoid(rng.normal(-2, 1, truth.shape) + skill * truth) for skill in skills])
    return truth, members


@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([None, 3]))
@settings(max_examples=25, deadline=None)
def test_means_are_the_arithmetic_the_geometric_and_that_of_ranks(seed, count, levels):
    members = np.stack([random_table(seed + m, 30, 3, levels)[1] for m in range(count)])
    assert ensembling.Mean().fit(None, members).apply(members) == pytest.approx(np.mean(members, axis=0))
    odds = gmean(np.clip(members, 1e-7, 1 - 1e-7) / (1 - np.clip(members, 1e-7, 1 - 1e-7)), axis=0)
    assert ensembling.LogitMean().fit(None, members).apply(members) == pytest.approx(odds / (1 + odds))
    ranks = np.mean([rankdata(member, axis=0) for member in members], axis=0)
    assert ensembling.RankMean().fit(None, members).apply(members) * 30 + 0.5 == pytest.approx(ranks)


def test_ranks_of_new_images_are_among_those_fitted_on():
    fitted = ensembling.RankMean().fit(None, np.array([[[0.1], [0.3], [0.5], [0.7]]]))
    assert fitted.apply(np.array([[[0.0], [0.4], [0.5], [0.9]]]))[:, 0].tolist() == [0, 0.5, 0.625, 1]


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_greedy_weights_lie_on_the_simplex_and_are_no_worse_than_the_best_network(seed, count):
    truth, _ = random_table(seed, 40, 3)
    members = np.stack([random_table(seed + m, 40, 3)[1] for m in range(count)])
    fitted = ensembling.Weighted().fit(truth, members)
    assert fitted.weights.sum() == pytest.approx(1) and (fitted.weights >= 0).all()
    best = max(best_thresholds(truth, member)[1].mean() for member in members)
    assert best_thresholds(truth, fitted.apply(members))[1].mean() >= best - 1e-12


def test_greedy_weights_leave_noise_out():
    truth, members = networks(skills=(3.0, 0.0), rows=2000)
    assert ensembling.Weighted().fit(truth, members).weights[1] < 0.15


def test_stack_is_the_highest_posterior():
    """Against scipy's minimiser on the stated posterior of one class: own views drawn to the common weights, others to 0."""
    truth, members = networks(rows=150, classes=2, rare=0.3)
    fitted = stacking.Stack().fit(truth, members)

    def standardised(*columns):
        columns = np.stack(columns, axis=1)
        return (columns - columns.mean(axis=0)) / columns.std(axis=0)

    logits, roots = np.clip(np.log(members / (1 - members)), -6, 6), np.sqrt(members)
    own = np.stack([standardised(*logits[:, :, c], *roots[:, :, c]) for c in range(2)], axis=1)
    others = standardised(*(roots[m, :, c] for m in range(2) for c in range(2)))
    inputs = np.concatenate([own[:, 1], others], axis=1)
    # The common weights: the mean over both classes of a ridge of precision 1.

    def posterior(weights, x, target, towards, precision):
        scores = x @ weights[:-1] + weights[-1]
        usual = np.log((target.sum() + 0.5) / (len(target) - target.sum() + 0.5))
        prior = (precision * (weights[:-1] - towards) ** 2).sum() / 2 + 1e-3 * (weights[-1] - usual) ** 2 / 2
        return (np.logaddexp(0, scores) - target * scores).sum() + prior

    def best(x, target, towards, precision):
        start = np.zeros(x.shape[1] + 1)
        return minimize(posterior, start, (x, target, towards, precision), options={"gtol": 1e-8}).x

    common = np.mean([best(own[:, c], truth[:, c], 0.0, 1.0)[:-1] for c in range(2)], axis=0)
    towards = np.concatenate([common, np.zeros(others.shape[1])])
    precision = np.concatenate([np.full(len(common), stacking.OWN), np.full(others.shape[1], stacking.OTHERS)])
    expected = best(inputs, truth[:, 1], towards, precision)
    assert np.append(fitted.weights[1], fitted.intercepts[1]) == pytest.approx(expected, abs=2e-3)


def test_stack_holds_a_rare_class_to_what_the_common_ones_do():
    """A class with one positive: its weights stay near the common ones, whatever that image looks like."""
    truth, members = networks(rows=800, classes=5, rare=0.2)
    truth[:, 4] = 0
    truth[0, 4] = 1
    fitted = stacking.Stack().fit(truth, members)
    own = fitted.weights[:, :4]
    assert np.abs(own[4] - own[:4].mean(axis=0)).max() < 0.2


def test_fits_on_different_rows_are_comparable_on_one_scale():
    """A rare class loses half of its positives with other rows left out: its scores keep their scale."""
    truth, members = networks(rows=1000, classes=3)
    truth[:, 2] = 0
    truth[:4, 2] = 1
    whole = stacking.Stack().fit(truth, members)
    part = stacking.Stack().fit(truth[2:], members[:, 2:], whole)
    apart, like = (
        np.abs(logit(fit.apply(members)) - logit(whole.apply(members)))[:, 2].mean()
        for fit in (part, part.scaled_like(whole))
    )
    assert like < apart / 2


@pytest.mark.parametrize("sure", [False, True])
def test_starting_from_another_fit_changes_nothing(sure):
    """Also where a network says only 0 or 1, from which Newton's method without a halved step would run away."""
    truth, members = networks(rows=400)
    members[1] = members[1] >= 0.5 if sure else members[1]
    alone = stacking.Stack().fit(truth[40:], members[:, 40:])
    started = stacking.Stack().fit(truth[40:], members[:, 40:], stacking.Stack().fit(truth, members))
    assert started.apply(members) == pytest.approx(alone.apply(members), abs=1e-4)


@pytest.mark.parametrize("way", ensembling.WAYS)
def test_no_way_fits_labels_that_mean_nothing(way):
    """The probe for leaks: if a row's own label, or its fifth's, reached its score or threshold, this would exceed chance."""
    rng = np.random.default_rng(0)
    truth = (rng.random((1200, 12)) < 0.03).astype(np.uint8)
    members = rng.random((2, 1200, 12))
    *_, held_out = ensembling.fit_and_decide(ensembling.WAYS[way], truth, members, repeats=1)
    assert macro_f1(truth, held_out[0]) < macro_f1(truth, np.ones_like(truth)) + 0.015


def test_neither_score_nor_threshold_of_a_row_has_seen_its_fifth():
    """A spy for a combination: what decides about a fifth was fitted without it; what its thresholds are fitted on was
    scored without the row that is scored."""
    truth, members = networks(rows=50)
    part = deal(truth, 1, 0)[0]
    rows_of = {value: row for row, value in enumerate(members[0, :, 0])}
    log = []

    class Spy(ensembling.Mean):
        def fit(self, truth, members, start=None):
            self.rows = {rows_of[value] for value in members[0, :, 0]}
            return self

        def apply(self, members):
            log.append((self.rows, {rows_of[value] for value in members[0, :, 0]}))
            return members[0]

    ensembling.fit_and_decide(Spy, truth, members, repeats=1)
    parts = [set(np.flatnonzero(part == k)) for k in range(5)]
    for place, (fitted_on, scored) in enumerate(log[:25]):
        held_out, inner = divmod(place, 5)
        assert scored == parts[inner] and fitted_on == set(range(50)) - parts[held_out] - parts[inner]


def test_the_stack_beats_the_best_network_where_each_knows_another_class():
    rng = np.random.default_rng(3)
    truth = (rng.random((1500, 4)) < 0.15).astype(np.uint8)
    skills = np.array([[3, 3, 0, 0], [0, 0, 3, 3]])
    members = sigmoid(rng.normal(-2, 1, (2, *truth.shape)) + skills[:, None] * truth)
    found = blending.compare(["a", "b"], truth, members, repeats=1, leave_out=True)
    best = max(way.figures["cross_fitted"] for way in found.alone.values())
    assert found.taken == "stack" and found.ways["stack"].figures["cross_fitted"] > best + 0.1
    assert min(found.losses) > 0.1


def test_of_ways_that_are_nearly_as_good_the_simplest_is_taken():
    truth, members = networks(rows=600, skills=(2.0,))
    better = np.abs(members[0] >= 0.5)
    changed = better.copy()
    changed[0] = ~changed[0]
    assert blending.simplest_of_the_best(truth, {"mean": [changed], "stack": [better]}) == "mean"
    assert blending.simplest_of_the_best(truth, {"mean": [~better], "stack": [better]}) == "stack"


# ensemble.py --oof

NAMES = ["first", "second", "third", "fourth"]


@pytest.fixture
def two(tmp_path):
    """Two networks' out-of-fold predictions, labels, classes: a folder and the words after --oof that are always there."""
    truth, members = networks(rows=200)
    ids = [f"i{n:03}" for n in range(200)]
    pd.DataFrame({"class": range(4), "name": NAMES}).to_csv(tmp_path / "classes.csv", index=False)
    write_labels(tmp_path / "train.csv", dict(zip(ids, decode(truth))))
    for name, member in zip("ab", members):
        write_predictions(tmp_path / f"{name}.csv", ids, member, NAMES)
        write_predictions(tmp_path / f"{name}_test.csv", ids[:50], member[:50], NAMES)
    pd.DataFrame({"Id": ids[:50][::-1], "Predicted": "0"}).to_csv(tmp_path / "sample.csv", index=False)
    fitting = [
        "--labels",
        tmp_path / "train.csv",
        "--classes",
        tmp_path / "classes.csv",
        "--repeats",
        1,
        "--report",
        tmp_path / "r.json",
    ]
    deciding = ["--sample", tmp_path / "sample.csv", "-o", tmp_path / "s.csv"]
    return tmp_path, truth, members, fitting, deciding


def test_oof_alone_compares_and_writes_no_submission(two):
    folder, _, _, words, _ = two
    out = succeed("ensemble", "--oof", folder / "a.csv", folder / "b.csv", *words, "--leave-out").out
    for title in ("a.csv", "b.csv", *blending.TITLES.values()):
        assert title in out
    found = json.loads((folder / "r.json").read_text())
    assert set(found["ways"]) == set(ensembling.WAYS) and sum(found["greedy_weights"]) == pytest.approx(1)
    assert len(found["loses_without"]) == 2 and found["rows"] == 200 and not (folder / "s.csv").exists()


@pytest.mark.parametrize("way", ensembling.WAYS)
def test_submission_is_the_combination_at_its_thresholds(two, way):
    folder, truth, members, fitting, deciding = two
    succeed("ensemble", folder / "a_test.csv", folder / "b_test.csv", "--oof", folder / "a.csv", folder / "b.csv", *fitting,
            *deciding, "--combine", way, "--empty", "leave")  # fmt: skip
    thresholds = json.loads((folder / "r.json").read_text())["combined_thresholds"]
    scores = ensembling.WAYS[way]().fit(truth, members).apply(members[:, :50])
    table = pd.read_csv(folder / "s.csv", dtype=str, keep_default_na=False)
    assert table["Predicted"].tolist() == decode(scores >= thresholds)[::-1]


def test_rows_are_matched_by_id_and_those_not_in_all_left_out(two):
    folder, _, _, words, _ = two
    call = ["ensemble", "--oof", folder / "a.csv", folder / "b.csv", *words]
    succeed(*call)
    straight = (folder / "r.json").read_text()
    table = pd.read_csv(folder / "b.csv", dtype=str)
    table.sample(frac=1, random_state=1).to_csv(folder / "b.csv", index=False)
    succeed(*call)
    assert (folder / "r.json").read_text() == straight
    table.iloc[20:].to_csv(folder / "b.csv", index=False)
    assert "180 rows that all have, of 200" in succeed(*call).out
    table.assign(Id="x" + table["Id"]).to_csv(folder / "b.csv", index=False)
    refuse(*call, says="0 Ids in all of")


def test_one_network_can_be_stacked(two):
    folder, _, _, fitting, deciding = two
    out = succeed(
        "ensemble", folder / "a_test.csv", "--oof", folder / "a.csv", *fitting, *deciding, "--combine", "stack"
    ).out
    assert "stacked" in out and len(pd.read_csv(folder / "s.csv")) == 50


def test_a_run_of_two_folds_is_one_network(atlas, run, predictions, tmp_path):
    """Each row by the fold that did not see it; the test predictions are those of both folds."""
    words = ["--sample", atlas / "sample_submission.csv", "--repeats", 1, "-o", tmp_path / "s.csv"]
    out = succeed("ensemble", predictions, "--oof", run, *words).out
    assert "over 32 rows" in out and len(pd.read_csv(tmp_path / "s.csv")) == 16
    refuse("ensemble", "--oof", run, "--report", run / "fold0/oof.csv", says="would be overwritten")


def test_wrong_words_are_refused(two):
    folder, _, _, fitting, deciding = two
    both = ["--oof", folder / "a.csv", folder / "b.csv"]
    test = [folder / "a_test.csv", folder / "b_test.csv"]
    refuse("ensemble", test[0], *both, *fitting, *deciding, says="1 prediction file, but 2 networks")
    refuse("ensemble", *both, *fitting[2:], says="--labels")
    refuse("ensemble", *both, *fitting, *deciding, says="--sample is for deciding")
    refuse("ensemble", *both, *fitting, "--match-calls", says="--match-calls is for deciding")
    refuse("ensemble", "--oof", folder / "a.csv", "--oof", folder / "a.csv", *fitting, says="named for two networks")
    refuse("ensemble", "--oof", folder / "no.csv", *fitting, says="no.csv does not exist")
    refuse("ensemble", "--thresholds", "0.5", says="nothing to decide")
    for words in (["--combine", "stack"], ["--labels", folder / "train.csv"], ["--seed", 0], ["--leave-out"]):
        refuse(
            "ensemble",
            test[0],
            "--thresholds",
            "0.5",
            *words,
            says=f"{words[0]} is for fitting a combination; add --oof",
        )
    refuse("ensemble", *both, *fitting, "--repeats", 0, says="--repeats 0")
    refuse("ensemble", test[0], test[0], *both, *fitting, *deciding, says="given twice")
    refuse("ensemble", *test, *both, *fitting, *deciding, "--report", folder / "s.csv", says="two outputs")
    refuse("ensemble", *test, *both, *fitting, *deciding, "-o", folder / "train.csv", says="would be overwritten")
    refuse("ensemble", "--oof", folder / "a.csv", *fitting, "--leave-out", says="two networks or more")
    table = pd.read_csv(test[1]).rename(columns={"first": "other"})
    table.to_csv(test[1], index=False)
    refuse("ensemble", *test, *both, *fitting, *deciding, says="other classes")
    assert not (folder / "s.csv").exists() and not (folder / "r.json").exists()


def test_thresholds_of_a_combination_are_no_use_to_anything_else(two):
    folder, _, _, fitting, deciding = two
    succeed("ensemble", "--oof", folder / "a.csv", *fitting)
    refuse(
        "ensemble", folder / "a_test.csv", "--thresholds", folder / "r.json", *deciding, says="not a thresholds.json"
    )


def test_networks_of_one_name_are_told_apart():
    assert blending.tails(["runs/a/oof.csv", "runs/b/oof.csv"]) == ["a/oof.csv", "b/oof.csv"]
    assert blending.tails(["x/one.csv", "x/two.csv"]) == ["one.csv", "two.csv"]
    told = blending.tails([f"{'long' * 10}{n}/{'long' * 10}.csv" for n in range(3)])
    assert len(set(told)) == 3 and max(map(len, told)) <= 26


def test_calls_are_matched_to_those_out_of_fold(atlas, predictions, thresholds, tmp_path):
    """Predictions that are all lower by the same logit are decided alike, image by image in their order."""
    table = pd.read_csv(predictions, dtype={"Id": str}).set_index("Id")
    write_predictions(tmp_path / "dark.csv", table.index, sigmoid(logit(table.to_numpy(), 1e-12) - 2), table.columns)
    told = []
    for name in (predictions, tmp_path / "dark.csv"):
        succeed(
            "ensemble", *submission_of(name, thresholds, atlas, tmp_path / "s.csv"), "--match-calls", "--empty", "leave"
        )
        told.append((tmp_path / "s.csv").read_text())
    assert told[0] == told[1]
    called = np.array(json.loads(thresholds.read_text())["per_class"]["called"])
    rows = pd.read_csv(tmp_path / "s.csv", dtype=str, keep_default_na=False)["Predicted"].str.split()
    counts = np.array([sum(str(c) in row for row in rows) for c in range(28)])
    assert np.abs(counts - called * 16).max() <= 0.5 + 1e-9
    refuse(
        "ensemble",
        *submission_of(predictions, "0.5", atlas, tmp_path / "t.csv"),
        "--match-calls",
        says="needs a thresholds.json",
    )
    content = json.loads(thresholds.read_text())
    for called in ([0.1] * 27, [0.1] * 29, [2] * 28, ["0.1"] * 28, None):
        content["per_class"]["called"] = called
        (tmp_path / "wrong.json").write_text(json.dumps(content))
        words = submission_of(predictions, tmp_path / "wrong.json", atlas, tmp_path / "t.csv")
        refuse("ensemble", *words, "--match-calls", says=["wrong.json", "how often"])

"""A run's validation images one by one."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import random_table, succeed

from utils.engine import grad_cam
from utils.errors import InputError
from utils.notebook import blanking, inspection
from utils.tools.confusion import beyond_chance, taken_for


@pytest.fixture(scope="module")
def judged(run, thresholds):
    return inspection.read_judged(run, thresholds)


def test_rows_are_those_of_the_files(run, thresholds, judged, atlas):
    oof = pd.concat([pd.read_csv(run / f"fold{k}/oof.csv", dtype={"Id": str}).set_index("Id") for k in (0, 1)])
    labels = pd.read_csv(atlas / "train.csv", dtype=str, keep_default_na=False).set_index("Id")["Target"]
    assert judged.ids == oof.index.tolist() and np.array_equal(judged.probabilities, oof.to_numpy())
    assert [set(np.flatnonzero(row)) for row in judged.truth] == [
        set(map(int, labels[id_].split())) for id_ in judged.ids
    ]
    assert judged.fold.tolist() == [k for k in (0, 1) for _ in pd.read_csv(run / f"fold{k}/oof.csv").index]
    assert judged.names == ("red", "green", "blue", "yellow")
    assert all(
        path.name.startswith(f"{id_}_") for id_, paths in zip(judged.ids, judged.files, strict=True) for path in paths
    )
    one = inspection.read_judged(run / "fold1", thresholds)
    assert one.ids == [id_ for id_, fold in zip(judged.ids, judged.fold, strict=True) if fold == 1]
    assert inspection.default_thresholds(run / "fold1") == inspection.default_thresholds(run) == run / "thresholds.json"


def test_thresholds_of_other_predictions_and_a_wrong_class_are_refused(run, thresholds, judged, tmp_path):
    content = json.loads(thresholds.read_text())
    content["per_class"]["f1_in_sample"][0] += 0.01
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="t.json was not fitted on the predictions"):
        inspection.read_judged(run, tmp_path / "t.json")
    content["per_class"]["positives"] = content["per_class"]["positives"][:-1]
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="t.json lacks .* no list of 28 numbers"):
        inspection.read_judged(run, tmp_path / "t.json")
    with pytest.raises(InputError, match="'Nucleus' is not a class"):
        inspection.samples_of(judged, "Nucleus")


def test_thresholds_for_other_shares_are_taken(run, thresholds, tmp_path):
    """Their F1 are those of thresholds fitted without them, and say nothing of the file's own."""
    classes = json.loads(thresholds.read_text())["classes"]
    pd.DataFrame({"class": classes, "share": 0.2}).to_csv(tmp_path / "shares.csv", index=False)
    succeed("threshold", run, "--shares", tmp_path / "shares.csv", "--repeats", 1, "-o", tmp_path / "t.json")
    both = [inspection.read_judged(run, path).thresholds for path in (tmp_path / "t.json", thresholds)]
    assert not np.allclose(*both)


def test_a_stack_is_applied(run, tmp_path):
    """Reading checks that its decisions have the F1 that threshold.py wrote."""
    succeed("threshold", run, "--stack", "--repeats", 1, "-o", tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text())
    judged = inspection.read_judged(run, tmp_path / "t.json")
    assert judged.thresholds.tolist() == content["thresholds"]
    content["stack"] = None
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="t.json was not fitted on the predictions"):
        inspection.read_judged(run, tmp_path / "t.json")


def test_without_a_positive_prediction_no_map_is_tried(judged):
    none = judged._replace(thresholds=np.full(len(judged.classes), 2.0))
    assert blanking.describe_blanking(inspection.blank_hits(none, inspection.load_networks(none))).startswith(
        "all 0 maps"
    )


def test_an_image_is_found_missed_or_wrongly_predicted():
    truth, values = np.array([1, 1, 1, 0, 0, 0, 1]), np.array([0.5, 0.9, 0.1, 0.7, 0.2, 0.8, 0.3])
    assert [rows.tolist() for rows in inspection.rows_by_kind(truth, values, 0.5).values()] == [[1, 0], [2, 6], [5, 3]]


def test_samples_are_the_surest_of_their_kind_with_what_they_truly_are(judged):
    column = int(judged.truth.sum(axis=0).argmax())
    name, threshold, groups = inspection.samples_of(judged, judged.classes[column], count=3)
    values = judged.probabilities[:, column]
    assert name == judged.classes[column] and threshold == judged.thresholds[column]
    found, missed, wrong = groups.values()
    assert found or missed
    assert [one.probability for one in found] == sorted(values[(judged.truth[:, column] > 0) & (values >= threshold)])[
        ::-1
    ][:3]
    assert [one.probability for one in missed] == sorted(values[(judged.truth[:, column] > 0) & (values < threshold)])[
        :3
    ]
    assert all(name in one.true_classes for one in found + missed) and not any(
        name in one.true_classes for one in wrong
    )
    numbers = [int(kind.rsplit("(")[1][:-1].replace(",", "")) for kind in groups]
    assert sum(numbers[:2]) == judged.truth[:, column].sum()
    assert sum(numbers[::2]) == (values >= threshold).sum()


def test_each_image_has_the_map_of_the_network_that_did_not_train_on_it(judged):
    networks = inspection.load_networks(judged)
    rows = [int(np.flatnonzero(judged.fold == fold)[0]) for fold in (1, 0)]
    maps = inspection.maps_of_rows(judged, networks, rows, 0)

    def by_networks(order):
        pairs = zip(order, rows, strict=True)
        return [grad_cam.sample_maps(*networks[k], [judged.files[row]], [0])[0][0] for k, row in pairs]

    own, other = by_networks((1, 0)), by_networks((0, 1))
    np.testing.assert_allclose(maps, own, rtol=1e-4, atol=1e-7)
    assert not np.allclose(maps, other, rtol=0.01, atol=1e-7)
    _, _, groups = inspection.samples_of(judged, "Nucleoplasm", 1, networks)
    one = next(part[0] for part in groups.values() if part)
    assert one.map.shape == (32, 32) and one.protein.shape == one.image.shape[:2] == (64, 64)
    falls = inspection.blank_hits(judged, networks, most=20)
    hits = ((judged.truth > 0) & (judged.probabilities >= judged.thresholds)).sum()
    assert all(len(fall) == min(20, hits) for fall in falls.values()) and np.isfinite(falls["marked"]).any()


def test_rare_classes_by_rank(judged):
    found = inspection.rarest(judged, count=4, most=2)
    positives = judged.truth.sum(axis=0)
    assert [one.positives for one in found] == sorted(count for count in positives if count)[:4]
    for one in found:
        column = judged.classes.index(one.name)
        values = judged.probabilities[:, column]
        assert len(set(values)) == len(values), "ranks without ties"
        order = sorted(range(len(values)), key=lambda row, values=values: -values[row])
        ranks = [place + 1 for place, row in enumerate(order) if judged.truth[row, column]]
        assert one.ranks == ranks and len(one.samples) == min(2, len(ranks))
        precision = [(number + 1) / rank for number, rank in enumerate(ranks)]
        assert one.average_precision == pytest.approx(np.mean(precision))
        rank, wrong = one.false_positive
        assert rank == min(set(range(1, len(values) + 1)) - set(ranks)) and one.name not in wrong.true_classes
        assert wrong.probability == values[order[rank - 1]]
    table = inspection.rare_table(found, len(judged.ids))
    assert table["class"].tolist() == [one.name for one in found]
    assert table.iloc[0, 2] == ", ".join(map(str, found[0].ranks))


def test_images_that_are_alike_all_have_to_be_looked_at(judged):
    alike = judged._replace(probabilities=np.full_like(judged.probabilities, 0.5))
    assert inspection.rarest(alike, count=1)[0].ranks[0] == len(judged.ids)


def test_wrong_classes_are_counted_for_missed_ones():
    truth, values = random_table(0, 300, 6)
    decided = values >= 0.4
    names = "abcdef"
    counts, missed, wrong = taken_for(truth, decided)
    lacking = {name: sum(name not in {names[c] for c in np.flatnonzero(row)} for row in truth) for name in names}
    expected, chance = np.zeros((6, 6)), np.zeros((6, 6))
    for row, call in zip(truth, decided, strict=True):
        has, predicted = ({names[c] for c in np.flatnonzero(part)} for part in (row, call))
        for a in has - predicted:
            for b in predicted - has:
                expected[names.index(a), names.index(b)] += 1
            for b in set(names) - has:
                chance[names.index(a), names.index(b)] += wrong[names.index(b)] / lacking[b]
    assert expected.sum() > 50 and np.array_equal(counts, expected)
    assert missed.tolist() == [((truth[:, c] > 0) & ~decided[:, c]).sum() for c in range(6)]
    assert wrong.tolist() == [((truth[:, c] == 0) & decided[:, c]).sum() for c in range(6)]
    table = beyond_chance(truth, decided, names, most=36)
    for pair in table.itertuples():
        place = names.index(pair.missed), names.index(pair[2])
        assert pair.images == expected[place] and pair[4] == pytest.approx(chance[place])
    assert (np.diff(table["images"] - table["by chance"]) <= 1e-9).all()

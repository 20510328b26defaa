"""A run's validation images one by one, and the notebook that shows them."""

import json
import shutil

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, random_table, succeed

from utils import plots
from utils.errors import InputError
from utils.notebook import grad_cam, inspection
from utils.notebook.inspection import Rare, Sample
from utils.plots import samples
from utils.tools.confusion import beyond_chance, taken_for
from utils.tools.plot import read_run


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
    assert inspection.thresholds_beside(run / "fold1") == inspection.thresholds_beside(run) == run / "thresholds.json"


def test_thresholds_of_other_predictions_and_a_wrong_class_are_refused(run, thresholds, judged, tmp_path):
    content = json.loads(thresholds.read_text())
    content["per_class"]["f1_in_sample"][0] += 0.01
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="t.json was fitted on other predictions"):
        inspection.read_judged(run, tmp_path / "t.json")
    content["per_class"]["positives"] = content["per_class"]["positives"][:-1]
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="t.json lacks .* no list of 28 numbers"):
        inspection.read_judged(run, tmp_path / "t.json")
    with pytest.raises(InputError, match="'Nucleus' is no class"):
        inspection.samples_of(judged, "Nucleus")


def test_thresholds_for_other_shares_are_taken(run, thresholds, tmp_path):
    """Their F1 are those of thresholds fitted without them, and say nothing of the file's own."""
    classes = json.loads(thresholds.read_text())["classes"]
    pd.DataFrame({"class": classes, "share": 0.2}).to_csv(tmp_path / "shares.csv", index=False)
    succeed("threshold", run, "--shares", tmp_path / "shares.csv", "-o", tmp_path / "t.json")
    both = [inspection.read_judged(run, path).thresholds for path in (tmp_path / "t.json", thresholds)]
    assert not np.allclose(*both)


def test_where_nothing_is_called_no_map_is_tried(judged):
    none = judged._replace(thresholds=np.full(len(judged.classes), 2.0))
    assert grad_cam.say_blanking(inspection.blanked(none, inspection.load_networks(none))).startswith("none of 0 maps")


def test_an_image_is_found_missed_or_called_by_mistake():
    truth, said = np.array([1, 1, 1, 0, 0, 0, 1]), np.array([0.5, 0.9, 0.1, 0.7, 0.2, 0.8, 0.3])
    assert [rows.tolist() for rows in inspection.kinds_of(truth, said, 0.5).values()] == [[1, 0], [2, 6], [5, 3]]


def test_samples_are_the_surest_of_their_kind_with_what_they_truly_are(judged):
    column = int(judged.truth.sum(axis=0).argmax())
    name, threshold, groups = inspection.samples_of(judged, judged.classes[column], count=3)
    said = judged.probabilities[:, column]
    assert name == judged.classes[column] and threshold == judged.thresholds[column]
    found, missed, wrong = groups.values()
    assert found or missed
    assert [one.probability for one in found] == sorted(said[(judged.truth[:, column] > 0) & (said >= threshold)])[
        ::-1
    ][:3]
    assert [one.probability for one in missed] == sorted(said[(judged.truth[:, column] > 0) & (said < threshold)])[:3]
    assert all(name in one.truly for one in found + missed) and not any(name in one.truly for one in wrong)
    numbers = [int(kind.rsplit("(")[1][:-1].replace(",", "")) for kind in groups]
    assert sum(numbers[:2]) == judged.truth[:, column].sum()
    assert sum(numbers[::2]) == (said >= threshold).sum()


def test_each_image_has_the_map_of_the_network_that_did_not_train_on_it(judged):
    networks = inspection.load_networks(judged)
    rows = [int(np.flatnonzero(judged.fold == fold)[0]) for fold in (1, 0)]
    maps = inspection.maps_of(judged, networks, rows, 0)
    own, other = ([grad_cam.sample_maps(*networks[k], [judged.files[row]], [0])[0][0] for k, row in zip(order, rows, strict=True)]
                  for order in ((1, 0), (0, 1)))  # fmt: skip
    np.testing.assert_allclose(maps, own, rtol=1e-4, atol=1e-7)
    assert not np.allclose(maps, other, rtol=0.01, atol=1e-7)
    _, _, groups = inspection.samples_of(judged, "Nucleoplasm", 1, networks)
    one = next(part[0] for part in groups.values() if part)
    assert one.map.shape == (32, 32) and one.protein.shape == one.picture.shape[:2] == (64, 64)
    falls = inspection.blanked(judged, networks, most=20)
    hits = ((judged.truth > 0) & (judged.probabilities >= judged.thresholds)).sum()
    assert all(len(fall) == min(20, hits) for fall in falls.values()) and np.isfinite(falls["marked"]).any()


def test_rare_classes_by_rank(judged):
    found = inspection.rarest(judged, count=4, most=2)
    positives = judged.truth.sum(axis=0)
    assert [one.positives for one in found] == sorted(count for count in positives if count)[:4]
    for one in found:
        column = judged.classes.index(one.name)
        said = judged.probabilities[:, column]
        assert len(set(said)) == len(said), "ranks without ties"
        order = sorted(range(len(said)), key=lambda row, said=said: -said[row])
        ranks = [place + 1 for place, row in enumerate(order) if judged.truth[row, column]]
        assert one.ranks == ranks and len(one.samples) == min(2, len(ranks))
        precision = [(number + 1) / rank for number, rank in enumerate(ranks)]
        assert one.average_precision == pytest.approx(np.mean(precision))
        rank, alarm = one.alarm
        assert rank == min(set(range(1, len(said) + 1)) - set(ranks)) and one.name not in alarm.truly
        assert alarm.probability == said[order[rank - 1]]
    table = inspection.rare_table(found, len(judged.ids))
    assert table["class"].tolist() == [one.name for one in found]
    assert table.iloc[0, 2] == ", ".join(map(str, found[0].ranks))


def test_images_that_are_alike_all_have_to_be_looked_at(judged):
    alike = judged._replace(probabilities=np.full_like(judged.probabilities, 0.5))
    assert inspection.rarest(alike, count=1)[0].ranks[0] == len(judged.ids)


def test_what_is_called_in_the_place_of_what():
    truth, said = random_table(0, 300, 6)
    decided = said >= 0.4
    names = "abcdef"
    counts, missed, wrong = taken_for(truth, decided)
    lacking = {name: sum(name not in {names[c] for c in np.flatnonzero(row)} for row in truth) for name in names}
    expected, chance = np.zeros((6, 6)), np.zeros((6, 6))
    for row, call in zip(truth, decided, strict=True):
        has, called = ({names[c] for c in np.flatnonzero(part)} for part in (row, call))
        for a in has - called:
            for b in called - has:
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


def texts(figure):
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text().strip()]


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    for module in (samples, plots.comparison, plots.training, plots.tables):
        monkeypatch.setattr(module, "save", lambda figure, path, dpi=0: figures.append(figure))
    return figures


def test_pages_say_probability_threshold_and_truth(drawn):
    picture = np.zeros((4, 4, 3))
    hit = Sample(0.75, ["Nuclear bodies", "Cytosol"], picture, np.zeros((4, 4)), np.eye(2))
    miss = Sample(1e-5, ["Nuclear bodies"], picture, np.zeros((4, 4)), np.zeros((2, 2)))
    groups = {"found (1)": [hit], "missed (1)": [miss], "called by mistake (0)": []}
    plots.class_samples("Nuclear bodies", 0.3, groups, "x")
    plots.class_maps("Nuclear bodies", 0.3, groups, "x")
    rare = Rare("Nuclear bodies", 0.3, 2, 0.5, 0.2, [3, 117], [hit, miss], (1, hit._replace(truly=["Cytosol"])))
    plots.rare_classes([rare], 200, "x")
    for figure in drawn[:2]:
        said = texts(figure)
        assert {"0.750 ≥ 0.300", "1e-05 < 0.300", "✓ Nuclear bodies", "Cytosol", "no images", "missed (1)"} <= set(said)
    assert "marks nothing" in texts(drawn[1]) and texts(drawn[1]).count("map") == 1
    assert {"rank 3: 0.750", "rank 117: 1e-05", "rank 1: 0.750"} <= set(texts(drawn[2]))
    framed = [axis for axis in drawn[2].axes if axis.axison]
    assert len(framed) == 1 and "rank 1:" in framed[0].get_title(loc="left")


def test_a_map_lies_over_the_protein_where_it_is_high():
    protein = np.full((40, 40), 0.5)
    grey = samples.over_protein(protein, np.zeros((5, 5), np.float32))
    assert np.allclose(grey, 0.5)
    map_ = np.zeros((5, 5), np.float32)
    map_[1, 3] = 7
    over = samples.over_protein(protein, map_)
    changed = np.abs(over - 0.5).max(axis=2)
    y, x = np.unravel_index(changed.argmax(), changed.shape)
    assert (y // 8, x // 8) == (1, 3) and np.all(changed[20:] == 0) and np.all(changed[:, :12] == 0)
    assert over[12, 28, 0] > over[12, 28, 2] + 0.3, "the map's colour, not grey"


def test_only_classes_with_mistakes_are_in_the_matrix(drawn):
    truth, decided = np.zeros((5, 4), int), np.zeros((5, 4), int)
    truth[:3, 1] = decided[:2, 3] = 1  # b missed three times, twice d in its place; once a for nothing
    decided[4, 0] = 1
    plots.mistakes(*taken_for(truth, decided), list("abcd"), "x")
    axis = drawn[0].axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["b (3)"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["a (1)", "d (2)"]
    assert [text.get_text() for text in axis.texts] == ["2"]
    assert axis.images[0].get_array().tolist() == [[0, pytest.approx(2 / 3)]]


def test_a_class_without_images_is_drawn_last(drawn):
    counts = np.array([[1, 0, 1], [1, 0, 0]], np.uint8).sum(axis=0)
    log = pd.DataFrame(np.full((2, 4), 0.5), columns=["macro_f1", "f1 a", "f1 b", "f1 c"]).assign(epoch=[1, 2])
    plots.class_curves(log, list("abc"), counts, [], "x")
    assert [axis.get_title(loc="left")[0] for axis in drawn[0].axes[:3]] == ["a", "c", "b"]
    plots.thresholds(list("abc"), counts, np.full(3, 0.5), np.zeros(3), np.zeros(3), "x")
    assert [text.get_text()[0] for text in drawn[1].axes[0].get_yticklabels()] == ["a", "c", "b"]


def execute(place):
    """Execute a copy of the notebook where the kit seems to lie: its text output and number of pictures."""
    (place / "notebooks").mkdir(parents=True, exist_ok=True)
    for name in ("train.py", "make_folds.py", "threshold.py", "utils"):
        (place / name).symlink_to(ROOT / name)
    cells = nbformat.read(ROOT / "notebooks/inspect_run.ipynb", as_version=4)
    client = nbclient.NotebookClient(cells, timeout=300, resources={"metadata": {"path": str(place / "notebooks")}})
    outputs = [output for cell in client.execute().cells for output in cell.get("outputs", [])]
    pictures = sum("image/jpeg" in output.get("data", {}) for output in outputs)
    return "".join(output.get("text", "") for output in outputs), pictures


def test_the_notebook_trains_a_tiny_network_when_there_is_none(tmp_path):
    text, pictures = execute(tmp_path / "kit")
    assert "$ python train.py" in text and "$ python threshold.py runs/inspect" in text
    assert pictures == 13 and "10% black, logit falls by" in text


def test_the_notebook_shows_a_run_of_yours(run, thresholds, tmp_path):
    shutil.copytree(run, tmp_path / "kit/runs/demo")
    shutil.copy(thresholds, tmp_path / "kit/runs/demo/thresholds.json")
    text, pictures = execute(tmp_path / "kit")
    assert "$ python" not in text and pictures == 13
    assert "32 validation images" in text and "2 folds" in text


def test_the_curves_come_with_the_step_at_which_the_loss_changes(run, tmp_path):
    fold = shutil.copytree(run / "fold0", tmp_path / "fold0")
    config = json.loads((fold / "config.json").read_text())
    (fold / "config.json").write_text(json.dumps(config | {"loss": "1:bce 2:soft_f1+bce 9:soft_f1"}))
    steps = pd.read_csv(fold / "steps.csv")
    ((step, loss),) = read_run(fold)["first_steps"]
    assert step == steps["step"][steps["epoch"] == 2].iloc[0] > 1 and "soft_f1" in loss

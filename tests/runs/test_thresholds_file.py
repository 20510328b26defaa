"""thresholds.json: where it is found, and the held-out F1 in it."""

import json

import numpy as np
import pytest

from utils.errors import InputError
from utils.runs.thresholds_file import find_thresholds, read_held_out_f1, read_rule

CLASSES = ["a", "b", "c"]


def write(path, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"classes": CLASSES, "thresholds": [0.5] * 3} | more))
    return path


def test_held_out_f1_is_unknown_where_it_was_not_measured(tmp_path):
    known = {"positives": [9, 0, 4], "f1_cross_fitted": [0.8, 0.0, 0.0]}
    path = tmp_path / "t.json"
    write(path, per_class=known)
    np.testing.assert_equal(read_held_out_f1(path, CLASSES), [0.8, np.nan, 0.0])
    for more in (
        {},
        {"per_class": {"positives": [9, 0, 4]}},
        {"per_class": known, "shares": [0.1] * 3},
        {"per_class": 3},
    ):
        write(path, **more)
        assert np.isnan(read_held_out_f1(path, CLASSES)).all(), more
        assert read_rule(path, CLASSES).thresholds.tolist() == [0.5] * 3
    assert np.isnan(read_held_out_f1("0.5", CLASSES)).all()
    write(path, per_class=known | {"f1_cross_fitted": [0.8]})
    with pytest.raises(InputError, match="lacks per_class figures"):
        read_held_out_f1(path, CLASSES)


def test_predictions_by_number_get_the_names_of_the_file(tmp_path):
    assert read_rule(write(tmp_path / "t.json"), ["0", "1", "2"]).classes == ("a", "b", "c")
    assert read_rule("0.5", ["0", "1", "2"]).classes == ("0", "1", "2")


def test_thresholds_lie_in_the_runs_folder(tmp_path):
    for fold in ("fold0", "fold1"):
        (tmp_path / "chen" / fold).mkdir(parents=True)
        (tmp_path / "chen" / fold / "best.safetensors").touch()
    run = tmp_path / "chen"
    with pytest.raises(InputError, match=rf"fold1 has no thresholds.json; run python threshold.py {run}, or"):
        find_thresholds([run / "fold1"])
    own = write(run / "thresholds.json")
    for names in ([run], [run / "fold0", run / "fold1"], [run / "fold0/best.safetensors"]):
        assert find_thresholds(names) == own
    assert find_thresholds([write(run / "fold0/thresholds.json").parent]) == run / "fold0/thresholds.json"
    with pytest.raises(InputError, match="thresholds of their own"):
        find_thresholds([run / "fold0", run / "fold1"])

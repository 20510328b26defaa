"""Tables of locations by name."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from utils.errors import InputError
from utils.runs import location_table

CLASSES = ("Nucleoplasm", "Golgi apparatus", "Cytosol")
CALLS = location_table.call(
    CLASSES,
    np.array([[0.6, 0.2, 0.1], [0.4, 0.04, 0.1], [0.5, 0.9, 0.75]]),
    np.array([0.5, 0.05, 0.7]),
    np.array([0.9, np.nan, 0.6]),
)


def test_one_row_per_location_the_furthest_above_its_threshold_first(tmp_path):
    """The rare class at .2 of .05 comes before the common one at .6 of .5. At the threshold is above it."""
    assert location_table.log_odds_above(0.2, 0.05) == pytest.approx(logit(0.2) - logit(0.05))
    location_table.write(tmp_path / "t.csv", CALLS, ["a", "b", "c"], unlike=[0.5, 0.25, 1.0])
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "Id,location,probability,threshold,held_out_f1,unlike",
        "a,Golgi apparatus,0.2,0.05,,0.5",
        "a,Nucleoplasm,0.6,0.5,0.9,0.5",
        "b,,,,,0.25",
        "c,Golgi apparatus,0.9,0.05,,1.0",
        "c,Cytosol,0.75,0.7,0.6,1.0",
        "c,Nucleoplasm,0.5,0.5,0.9,1.0",
    ]


def test_fields_of_one_well_are_averaged_before_they_are_decided(tmp_path):
    wells = pd.Series(["B1", "A1", "B1"], name="well")
    location_table.write(tmp_path / "t.csv", CALLS, ["a", "b", "c"], wells, unlike=[0.5, 0.25, 1.0])
    found = pd.read_csv(tmp_path / "t.csv")
    assert found.columns.tolist() == ["well", *location_table.COLUMNS, "fields", "unlike"]
    assert found["well"].tolist() == ["B1", "B1", "A1"], "in the order of their first image"
    assert found["location"].tolist()[:2] == ["Golgi apparatus", "Nucleoplasm"] and found["location"].isna()[2]
    assert found["probability"].tolist()[:2] == pytest.approx([0.55, 0.55]), "and cytosol at .425 is below .7"
    assert found["fields"].tolist() == [2, 2, 1] and found["unlike"].tolist() == [0.75, 0.75, 0.25]


def test_every_image_needs_a_value_of_the_column(tmp_path):
    path = tmp_path / "images.csv"
    path.write_text("Id,well,location\na,A1,x\nb, B1 ,y\nc,,z\n")
    groups = location_table.read_groups(path, "well", ["b", "a"])
    assert groups.tolist() == ["B1", "A1"] and groups.name == "well"
    for column, ids, says in (
        ("well", ["a", "c"], "1 Id without a well: c"),
        ("well", ["a", "d"], "lacks 1 Id of the images: d"),
        ("plate", ["a"], "lacks the column plate"),
        ("location", ["a"], "two columns of this name"),
    ):
        with pytest.raises(InputError, match=says):
            location_table.read_groups(path, column, ids)

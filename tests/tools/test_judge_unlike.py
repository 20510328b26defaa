"""utils.tools.judge_unlike: damages, and the table."""

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

from utils.tools.judge_unlike import damage, damages

JUDGE = "utils.tools.judge_unlike"


@pytest.mark.parametrize("channels", [("red", "green", "blue", "yellow"), ("green",)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_damage_changes_the_image_and_keeps_its_form(channels, dtype):
    rng = np.random.default_rng(0)
    image = rng.gamma(2, 20, (93, 128, len(channels))).clip(0, 255)
    image = image.astype(np.uint8) if dtype is np.uint8 else (image / 255).astype(np.float32)
    found = damages(channels)
    assert ("no nuclei" in found) == ("red and blue swapped" in found) == (len(channels) == 4)
    for name, function in found.items():
        first, second = (damage(image, function, np.random.default_rng(1)) for _ in range(2))
        assert first.shape == image.shape and first.dtype == dtype and np.array_equal(first, second), name
        assert not np.array_equal(first, image), name


def test_table_of_halves(atlas, tmp_path):
    """Statistics of 24 images, the other 24 damaged; the test images count as others."""
    command = ["--images", atlas / "train", "--others", atlas / "test", "--size", 64, "-o", tmp_path / "t.csv"]
    out = succeed(JUDGE, *command).out
    assert "fitted on 24 images; false-alarm rate set to 4.00%" in out
    table = pd.read_csv(tmp_path / "t.csv").set_index("images")
    assert table["count"].tolist() == [24] * (len(table) - 1) + [16] and table.index[-1] == "others"
    assert table.loc["clean", "marked"] < 0.3 < 0.9 < table.loc["brightfield", "marked"]
    assert table.loc["brightfield", "auc"] == 1 and np.isnan(table.loc["clean", "auc"])
    assert (table["low"] <= table["marked"]).all() and (table["marked"] <= table["high"]).all()
    assert f"{table['marked'][1:-1].mean():.1%}" in out.splitlines()[-2]


def test_what_cannot_be_measured_is_refused(atlas, tmp_path):
    refuse(JUDGE, "--images", atlas / "train", "--write", says="--write needs the folder of a fold")
    refuse(JUDGE, tmp_path, "--images", atlas / "train", says="config.json")
    (tmp_path / "few").mkdir()
    refuse(JUDGE, "--images", tmp_path / "few", says="0 images to measure")

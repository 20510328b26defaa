"""The figure of locations by group of cells."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from utils.plots.cell_groups import locations_by_group


def wilson(count, total, z=1.959963985):
    """Wilson 1927, the two roots of (count / total - p)² = z² p (1 - p) / total."""
    share = count / total
    return np.sort(np.roots([1 + z**2 / total, -(2 * share + z**2 / total), share**2]))


def test_fractions_intervals_and_counts_stand_beside_their_location(monkeypatch, tmp_path):
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: saved.append(figure))
    names = ["Nucleoli", "Cytosol", "Golgi apparatus"]
    counts = {"truth": np.array([[10, 0], [4, 3], [0, 12]]), "network": np.array([[40, 12], [1, 11], [7, 0]])}
    locations_by_group(names, {"large": 40, "small": 12, "none": 0}, counts, tmp_path / "figure.png")
    (figure,) = saved
    figure.canvas.draw()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["large: 40 cells", "small: 12 cells"]
    for axis, table in zip(figure.axes, counts.values(), strict=True):
        for group, total in enumerate((40, 12)):
            points, _, (bars,) = axis.containers[group]
            assert points.get_xdata() == pytest.approx(table[:, group] / total)
            assert np.round(points.get_ydata()).tolist() == [0, 1, 2]
            for count, bar in zip(table[:, group], bars.get_segments(), strict=True):
                assert bar[:, 0] == pytest.approx(wilson(count, total), abs=1e-6)
        assert [text.get_text() for text in axis.texts] == [str(count) for count in table.T.ravel()]
        boxes = [text.get_window_extent() for text in axis.texts]
        assert not [(a, b) for place, a in enumerate(boxes) for b in boxes[:place] if a.overlaps(b)]

"""Common style of the kit's figures, and writing them."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.text import Text

from utils.files import whole_file

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#999999"  # Okabe and Ito's colour-blind-safe palette
COLOURS = [BLUE, ORANGE, "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442"]
# Legend above the panel:
ABOVE = dict(loc="lower right", bbox_to_anchor=(1.02, 0.995), ncols=2, frameon=False, fontsize=9)


def save(figure, path, dpi=110):
    """Write a figure as JPEG if the file name ends in .jpg or .jpeg, else as PNG."""
    kind = "jpg" if Path(path).suffix in (".jpg", ".jpeg") else "png"
    _disable_formulas(figure)
    with whole_file(path, "wb") as file:
        figure.savefig(file, format=kind, dpi=dpi, bbox_inches="tight")
    plt.close(figure)


def arrange_and_save(figure, path, dpi=110, **spacing):
    """Call `tight_layout` with the options `spacing`, then `save`."""
    _disable_formulas(figure)
    figure.tight_layout(**spacing)
    save(figure, path, dpi)


def _disable_formulas(figure):
    """Draw $ in names literally, except for numbers on log axes, which matplotlib writes as formulas."""
    axes = [axis for part in figure.axes for axis in (part.xaxis, part.yaxis)]
    numbers = {text for axis in axes if axis.get_scale() == "log" for text in axis.findobj(Text)}
    for text in figure.findobj(Text):
        text.set_parse_math(text in numbers)


def tidy(axis, grid="both", title=None, size=None, **properties):
    """Remove the frame above and at the right, and draw a faint grid behind the data. properties: of `Axes.set`."""
    axis.set(**properties)
    if title:
        axis.set_title(title, loc="left", fontsize=size)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, alpha=0.3)
    axis.set_axisbelow(True)


def title(figure, text, size=10):
    """Write a title at the top left of the figure."""
    figure.suptitle(text, x=0.01, y=1 - 0.05 / figure.get_figheight(), ha="left", va="top", fontsize=size)


def panels(count, columns, width, height, extra=0.0, **options):
    """Make a grid of panels of width x height inches, with `extra` inches above: -> (figure, `count` axes)."""
    columns = min(count, columns)
    rows = -(-count // columns)
    size = width * columns, height * rows + extra
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
    for axis in axes.ravel()[count:]:
        axis.axis("off")
    return figure, axes.ravel()[:count]


def common_first(counts):
    """-> class numbers in descending order of image counts (stable)."""
    return np.argsort(-np.asarray(counts, int), kind="stable")


def with_counts(names, counts):
    return [f"{name} ({int(count):,})" for name, count in zip(names, counts, strict=True)]


def name_rows(axis, names, **font):
    """Label the rows 0, 1, … from top to bottom."""
    axis.set_yticks(range(len(names)), names, **font)
    axis.set_ylim(len(names) - 0.5, -0.5)


def rows(names, width, columns=1, height=0.27):
    """Make panels side by side with common row labels, from top to bottom: -> (figure, axis, …)."""
    figure, axes = plt.subplots(1, columns, figsize=(width, height * len(names) + 1.4), sharey=True, squeeze=False)
    name_rows(axes[0, 0], names)
    return figure, *axes[0]


def draw_matrix(axis, table, texts, rows, columns, shades="Blues", top=1, **font):
    """Draw a table as a heat map from 0 to `top`, with row and column labels. texts: {(row, column): text}."""
    drawn = axis.imshow(table, cmap=shades, vmin=0, vmax=top, aspect="auto")
    for (y, x), text in texts.items():
        colour = "white" if table[y, x] > 0.55 * top else "black"
        axis.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
    axis.set_xticks(range(len(columns)), columns, **{"rotation": 90, "fontsize": 8.5} | font)
    name_rows(axis, rows, fontsize=8.5)
    return drawn


def log_bars(axis, values, shift=0.0, height=0.8, room=3.0, **options):
    """Draw horizontal bars of image counts on a log axis, each with its count at the end, shifted by `shift` rows. The
    axis ends at `room` times the largest value."""
    axis.barh(np.arange(len(values)) + shift, values, height, **options)
    for place, value in enumerate(values):
        axis.text(max(value, 1) * 1.1, place + shift, f"{int(value):,}", va="center", fontsize=9 if height > 0.5 else 8)
    axis.set(xscale="log", xlim=(0.8, max(axis.get_xlim()[1], 2, room * np.max(values))))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    tidy(axis, "x", xlabel="images (log scale)")

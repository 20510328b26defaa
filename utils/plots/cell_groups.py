"""Locations of groups of cells."""

import numpy as np
from scipy.stats import binomtest

from utils.plots import style

MARKERS = "os^Dv"


def locations_by_group(names, totals, panels, path):
    """Draw the fraction of each group's cells that have a location, with its 95 % interval (Wilson 1927) and its count.

    names: of L locations. totals: {group: its number of cells}. panels: {title: (L, groups) how many of them}, one beside the
    other. The intervals take the cells for independent.
    """
    figure, *axes = style.rows(names, 4.1 * len(panels) + 1.8, len(panels), height=0.2 * len(totals) + 0.14)
    shifts = 0.26 * (np.arange(len(totals)) - (len(totals) - 1) / 2)
    for axis, (title, counts) in zip(axes, panels.items(), strict=True):
        for group, (name, total) in enumerate(totals.items()):
            if total:
                _draw_group(axis, np.asarray(counts)[:, group], total, shifts[group], group, f"{name}: {total:,} cells")
        style.tidy(axis, "x", title, 10, xlabel="fraction of the group's cells (and how many)", xlim=(-0.03, 1.16))
        axis.set_xticks(np.linspace(0, 1, 6))
        axis.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
        axis.tick_params(which="minor", length=0)
        axis.grid(axis="y", which="minor", alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), **style.ABOVE | {"bbox_to_anchor": (0.99, 0.99)})
    style.arrange_and_save(figure, path, w_pad=2)


def _draw_group(axis, counts, total, shift, number, label):
    colour = style.COLOURS[number]
    limits = [binomtest(int(count), int(total)).proportion_ci(method="wilson") for count in counts]
    low, high = np.clip([(limit.low, limit.high) for limit in limits], 0, 1).T
    places, values = np.arange(len(counts)) + shift, counts / total
    bars = np.maximum([values - low, high - values], 0)
    axis.errorbar(values, places, xerr=bars, fmt=MARKERS[number], ms=5, color=colour, label=label)
    for place, end, count in zip(places, high, counts, strict=True):
        axis.text(end + 0.025, place, f"{int(count):,}", va="center", fontsize=8)

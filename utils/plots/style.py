"""How every figure of the kit looks, and how it is written."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.text import Text

from utils.files import whole_file

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#999999"  # from Okabe and Ito's colours, told apart by colour-blind eyes
COLOURS = [BLUE, ORANGE, "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442"]  # in this order
ABOVE = dict(loc="lower right", bbox_to_anchor=(1.02, 0.995), ncols=2, frameon=False, fontsize=9)  # legend off the data


def save(figure, path, dpi=110):
    """Write a figure as PNG, or as JPEG where the file's name says so."""
    kind = "jpg" if Path(path).suffix in (".jpg", ".jpeg") else "png"
    take_literally(figure)
    with whole_file(path, "wb") as file:
        figure.savefig(file, format=kind, dpi=dpi, bbox_inches="tight")
    plt.close(figure)


def arrange(figure, **options):
    """matplotlib's tight layout, for names that may hold anything."""
    take_literally(figure)
    figure.tight_layout(**options)


def take_literally(figure):
    """No formulas: names come from files, and a $ in one is a $. The numbers of logarithmic axes are formulas of matplotlib's."""
    axes = [axis for part in figure.axes for axis in (part.xaxis, part.yaxis)]
    numbers = {text for axis in axes if axis.get_scale() == "log" for text in axis.findobj(Text)}
    for text in figure.findobj(Text):
        text.set_parse_math(text in numbers)


def tidy(axis, grid="both"):
    """No frame above and to the right, a faint grid behind the data."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, alpha=0.3)
    axis.set_axisbelow(True)

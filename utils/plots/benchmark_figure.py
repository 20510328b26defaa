"""What `python -m utils.tools.benchmark` has measured, in one figure."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from utils.plots.style import BLUE, COLOURS, GREY, ORANGE, arrange, save, tidy


def benchmark(found, path):
    """found: {subject: what its `measure` gave}, with "machine" beside; a subject that was not measured has no panel."""
    panels = [(draw, name) for name, draws in PANELS.items() if name in found for draw in draws]
    if not panels:
        return
    columns = min(3 if len(panels) > 4 else 2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6 * columns, 3.7 * rows + 0.3), squeeze=False)
    for axis in axes.ravel()[len(panels) :]:
        axis.remove()
    for axis, (draw, name) in zip(axes.ravel(), panels):
        draw(axis, found[name])
    machine = found["machine"]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    figure.suptitle(f"{where}, {machine['arithmetic']}, torch {machine['torch']}", x=0.01, ha="left", fontsize=11)
    arrange(figure, h_pad=2, w_pad=2)
    save(figure, path)


def _bars(axis, names, values, labels, colours):
    """Horizontal bars from top to bottom on a log axis, each with its label at the end."""
    places = np.arange(len(names))
    axis.barh(places, values, 0.7, color=colours)
    for place, value, label in zip(places, values, labels, strict=True):
        axis.text(value * 1.07, place, label, va="center", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 3, max(values) * 6)
    axis.set_yticks(places, names, fontsize=9)
    axis.set_ylim(len(names) - 0.4, -0.6)
    tidy(axis, "x")


def _loading(axis, found):
    names, values, labels, colours = [], [], [], []
    for purpose in ("prediction", "training"):
        for row in found["rows"]:
            plain = row["way"].startswith("plain")
            names.append(row["way"])
            values.append(row[f"{purpose}_ms"])
            labels.append(f"{values[-1]:.2f}" + ("" if plain else f"  ({row[f'{purpose}_ms_ratio']:.1f}×)"))
            colours.append(GREY if plain else BLUE if purpose == "prediction" else ORANGE)
    _bars(axis, names, values, labels, colours)
    half = len(found["rows"])
    axis.axhline(half - 0.5, color="black", linewidth=0.6)
    for place, text in ((0, "prediction"), (half, "training")):
        axis.text(
            0.99, place, text, transform=axis.get_yaxis_transform(), ha="right", va="center", style="italic", fontsize=9
        )
    axis.set_xlabel(f"ms a sample of {found['size']}² on one core (log scale)")
    axis.set_title(f"Loading (×: as fast as {found['compared_with']})", loc="left", fontsize=10)


def _columns(axis, bars, title):
    """Two bars beside each other. bars: [(name, value, colour)]."""
    for place, (_, value, colour) in enumerate(bars):
        axis.bar(place, value, 0.6, color=colour)
        axis.text(
            place, value, f"{value:,.0f}" if value >= 100 else f"{value:.3g}", ha="center", va="bottom", fontsize=9
        )
    axis.set_xticks(range(len(bars)), [name for name, _, _ in bars], fontsize=9)
    axis.set_xlim(-0.7, len(bars) - 0.3)
    axis.set_ylim(0, 1.18 * max(value for _, value, _ in bars))
    axis.set_ylabel("images a second")
    axis.set_title(title, loc="left", fontsize=10)
    tidy(axis, "y")


def _training(axis, found):
    title = f"Training, {found['size']}²: {found['ratio']:.3f} of what is possible ({found['lowest']:.3f} to {found['highest']:.3f})"
    bars = [("packed, augmentation", found["loaded"], BLUE), ("noise in memory", found["in_memory"], GREY)]
    _columns(axis, bars, title)


def _prediction(axis, found):
    bars = [(f"packed, {found['arithmetic']}", found["kit"], BLUE), ("plain, float32", found["plain"], GREY)]
    _columns(axis, bars, f"Prediction with 4 views, {found['size']}²: {found['ratio']:.2f}×")


def _lines(axis, found, keys, scale=1.0):
    """Values against size, a line for each batch. keys: {column: (name, line style)}."""
    batches = sorted({row["batch"] for row in found["rows"]})
    for number, batch in enumerate(batches):
        for key, (name, style) in keys.items():
            seen = [row for row in found["rows"] if row["batch"] == batch and row[key] is not None]
            values = [row[key] * scale for row in seen]
            axis.plot([row["size"] for row in seen], values, style, color=COLOURS[number], markersize=4,
                      label=f"{name}{batch}" if seen else None)  # fmt: skip
    sizes = sorted({row["size"] for row in found["rows"]})
    axis.set_xscale("log")
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    narrow = high < 20 * low
    axis.set_xticks(sizes, map(str, sizes))
    axis.xaxis.minorticks_off()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("size in pixels")
    axis.legend(title="batch of", fontsize=8, title_fontsize=8, frameon=False, ncols=len(keys))
    tidy(axis)


def _cost(axis, found):
    _lines(axis, found, {"training_ms": ("training, ", "o-"), "prediction_ms": ("prediction, ", "s--")})
    axis.set_ylabel("ms an image")
    axis.set_title(f"Cost of a step, {found['model']}", loc="left", fontsize=10)


def _peak(axis, found):
    _lines(axis, found, {"peak_gb": ("", "o-")})
    axis.set_ylabel("GB")
    axis.set_title("Most memory of a training step", loc="left", fontsize=10)


def _workers(axis, found):
    rows = found["loading"]["rows"]
    bars = [(str(row["workers"]), row["a_second"], BLUE) for row in rows]
    _columns(axis, bars, f"Loading for training, packed {found['loading']['size']}²")
    axis.set_xlabel("loading processes")
    axis.set_ylabel("samples a second")


def _memory(axis, found):
    rows = found["rows"]
    bottom = np.zeros(len(rows))
    parts = (("own_mb", "own", BLUE), ("shared_mb", "shared", ORANGE), ("files_mb", "pages of files", GREY))
    for key, name, colour in parts:
        values = np.array([row[key] for row in rows])
        axis.barh(range(len(rows)), values, 0.6, left=bottom, color=colour, label=name)
        bottom += values
    axis.set_yticks(range(len(rows)), [row["process"] for row in rows], fontsize=9)
    axis.set_ylim(len(rows) + 0.2, -0.6)
    axis.set_xlabel("MB resident")
    axis.set_title(f"Memory while training, {found['size']}², batches of {found['batch']}", loc="left", fontsize=10)
    axis.legend(loc="lower right", ncols=3, fontsize=8, frameon=False)
    tidy(axis, "x")


def _tables(axis, found):
    rows = found["rows"]
    names = [f"{row['command']}\n{row['rows']:,} rows" for row in rows]
    colours = [BLUE if row["command"] == "make_folds.py" else ORANGE for row in rows]
    _bars(axis, names, [row["seconds"] for row in rows], [f"{row['seconds']:.1f} s" for row in rows], colours)
    axis.set_xlabel("seconds (log scale)")
    axis.set_title("Whole commands on tables", loc="left", fontsize=10)


def _thresholds(axis, found):
    values = [found["exact_ms"], found["loop_ms"]]
    labels = [f"{values[0]:.1f} ms  ({found['ratio']:,.0f}×)", f"{values[1]:,.0f} ms"]
    _bars(axis, ["exact", "f1_score at\n1000 thresholds"], values, labels, [BLUE, GREY])
    axis.set_xlabel("ms (log scale)")
    axis.set_title(f"Best thresholds of {found['classes']} classes, {found['rows']:,} rows", loc="left", fontsize=10)


PANELS = {  # subject: its panels
    "loading": [_loading], "training": [_training], "prediction": [_prediction], "cost": [_cost, _peak, _workers],
    "memory": [_memory], "tables": [_tables], "thresholds": [_thresholds],
}  # fmt: skip

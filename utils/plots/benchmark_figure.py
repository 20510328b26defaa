"""The figure of `python -m utils.tools.benchmark`."""

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from utils.plots import style
from utils.plots.style import BLUE, COLOURS, GREY, ORANGE


def draw_benchmark(found, path):
    """found: {subject: result of its `measure_…`}, and "machine". Each measured subject has one panel or more."""
    chosen = [(draw, name) for name, draws in PANELS.items() if name in found for draw in draws]
    if not chosen:
        return
    figure, axes = style.panels(len(chosen), 2, 6, 3.7, extra=0.3)
    for axis, (draw, name) in zip(axes, chosen, strict=True):
        draw(axis, found[name])
    machine = found["machine"]
    hardware = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    style.title(figure, f"{hardware}, {machine['arithmetic']}, torch {machine['torch']}", 11)
    style.arrange_and_save(figure, path, h_pad=2, w_pad=2)


def _draw_rows(axis, names, values, labels, colours, title, unit):
    """Draw horizontal bars on a log axis, from top to bottom, each with a label at its end."""
    axis.bar_label(axis.barh(range(len(names)), values, 0.7, color=colours), labels, padding=3, fontsize=9)
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 3, max(values) * 6)
    style.name_rows(axis, names, fontsize=9)
    style.tidy(axis, "x", title, 10, xlabel=f"{unit} (log scale)")


def _draw_columns(axis, names, values, colours, title, unit="images per second"):
    """Draw vertical bars, each with its value above."""
    labels = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values]
    axis.bar_label(axis.bar(range(len(names)), values, 0.6, color=colours), labels, fontsize=9)
    axis.set_xticks(range(len(names)), names, fontsize=9)
    axis.set(xlim=(-0.7, len(names) - 0.3), ylim=(0, 1.18 * max(values)), ylabel=unit)
    style.tidy(axis, "y", title, 10)


def _loading(axis, found):
    names, values, labels, colours = [], [], [], []
    for purpose, colour in (("prediction", BLUE), ("training", ORANGE)):
        for row in found["rows"]:
            plain, value = row["way"].startswith("plain"), row[f"{purpose}_ms"]
            names.append(row["way"])
            values.append(value)
            labels.append(f"{value:.2f}" + ("" if plain else f"  ({row[f'{purpose}_ms_ratio']:.1f}×)"))
            colours.append(GREY if plain else colour)
    title = f"Loading (×: speed-up over {found['compared_with']})"
    _draw_rows(axis, names, values, labels, colours, title, f"ms per sample of {found['size']}² on one core")
    half = len(found["rows"])
    axis.axhline(half - 0.5, color="black", linewidth=0.6)
    look = dict(transform=axis.get_yaxis_transform(), ha="right", va="center", style="italic", fontsize=9)
    axis.text(0.99, 0, "prediction", **look)
    axis.text(0.99, half, "training", **look)


def _training(axis, found):
    ratio = f"{found['ratio']:.3f} of the speed without loading ({found['lowest']:.3f} to {found['highest']:.3f})"
    names, values = ["packed, augmented", "noise in memory"], [found["loaded"], found["in_memory"]]
    _draw_columns(axis, names, values, [BLUE, GREY], f"Training, {found['size']}²: {ratio}")


def _prediction(axis, found):
    title = f"Prediction with 4 TTA views, {found['size']}²: {found['ratio']:.2f}×"
    names = [f"packed, {found['arithmetic']}", "plain, float32"]
    _draw_columns(axis, names, [found["kit"], found["plain"]], [BLUE, GREY], title)


def _draw_batches(axis, found, lines, unit, title):
    """Plot columns of the rows against image size, one colour per batch size. lines: {column: (name, line style)}."""
    named = [(name, look) for name, look in lines.values() if name]
    handles = [axis.plot([], [], look, color="black", markersize=4, label=name)[0] for name, look in named]
    for colour, batch in zip(COLOURS, sorted({row["batch"] for row in found["rows"]})):
        handles += axis.plot([], [], color=colour, linewidth=3, label=f"batch of {batch}")
        for key, (_, look) in lines.items():
            rows = [row for row in found["rows"] if row["batch"] == batch and row[key] is not None]
            axis.plot([row["size"] for row in rows], [row[key] for row in rows], look, color=colour, markersize=4)
    axis.set(xscale="log", yscale="log", xlabel="image size in pixels", ylabel=unit)
    sizes = sorted({row["size"] for row in found["rows"]})
    axis.set_xticks(sizes, map(str, sizes))
    axis.xaxis.minorticks_off()
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if high < 20 * low else (1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylim(low, high * (high / low) ** 0.3)  # room for the legend
    axis.legend(handles=handles, loc="upper left", fontsize=9, frameon=False, ncols=3)
    style.tidy(axis, "both", title, 10)


def _cost(axis, found):
    lines = {"training_ms": ("training", "o-"), "prediction_ms": ("prediction", "s--")}
    _draw_batches(axis, found, lines, "ms per image", f"Cost of a step, {found['model']}")


def _peak(axis, found):
    _draw_batches(axis, found, {"peak_gb": ("", "o-")}, "GB", "Peak memory of a training step")


def _workers(axis, found):
    rows, title = found["loading"]["rows"], f"Loading for training, packed {found['loading']['size']}²"
    names, values = [str(row["workers"]) for row in rows], [row["a_second"] for row in rows]
    _draw_columns(axis, names, values, BLUE, title, "samples per second")
    axis.set_xlabel("DataLoader workers")


def _memory(axis, found):
    rows = found["rows"]
    left = np.zeros(len(rows))
    parts = (("own_mb", "private", BLUE), ("shared_mb", "shared", ORANGE), ("files_mb", "file-backed", GREY))
    for key, name, colour in parts:
        values = np.array([row[key] for row in rows])
        axis.barh(range(len(rows)), values, 0.6, left=left, color=colour, label=name)
        left += values
    style.name_rows(axis, [row["process"] for row in rows], fontsize=9)
    axis.set_ylim(len(rows) + 0.2, -0.6)  # room for the legend
    axis.legend(loc="lower right", ncols=3, fontsize=9, frameon=False)
    title = f"Memory while training, {found['size']}², batches of {found['batch']}"
    style.tidy(axis, "x", title, 10, xlabel="MB resident")


def _tables(axis, found):
    names = [f"{row['command']}\n{row['rows']:,} rows" for row in found["rows"]]
    values = [row["seconds"] for row in found["rows"]]
    colours = [BLUE if row["command"] == "make_folds.py" else ORANGE for row in found["rows"]]
    labels = [f"{value:.1f} s" for value in values]
    _draw_rows(axis, names, values, labels, colours, "Whole commands on tables", "seconds")


def _thresholds(axis, found):
    values = [found["exact_ms"], found["loop_ms"]]
    labels = [f"{values[0]:.1f} ms  ({found['ratio']:,.0f}×)", f"{values[1]:,.0f} ms"]
    title = f"Best thresholds of {found['classes']} classes, {found['rows']:,} rows"
    _draw_rows(axis, ["exact", "f1_score at\n1000 thresholds"], values, labels, [BLUE, GREY], title, "ms")


PANELS = {  # of each subject
    "loading": [_loading],
    "training": [_training],
    "prediction": [_prediction],
    "cost": [_cost, _peak, _workers],
    "memory": [_memory],
    "tables": [_tables],
    "thresholds": [_thresholds],
}

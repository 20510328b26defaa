"""The page: a paper's numbers, ours, their difference, and where the setting differs."""

import html
from collections import namedtuple

import pandas as pd

from utils.files import whole_file, write_csv
from utils.tools.paper.published import number
from utils.tools.paper.trained import SINGLE

# A line of the page and of numbers.csv. printed: by the paper, None if it only draws it. ours: a number, or None.
Line = namedtuple("Line", "table what printed ours note")
NOT_PRINTED = "not printed"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; }
th { border-bottom-color: #888; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
white-space: nowrap; } td.note { color: #666; }
figure { margin: 2rem 0; } figure img { max-width: 100%; } figcaption { color: #666; }
nav a { margin-right: 1rem; }
"""


def lines(paper, runs, results):
    """Join a paper's numbers with ours: Paper, {name: Trained}, Results -> list of Line, in the paper's order."""
    recipes = {name: recipe for recipe, name in paper.recipes.items()}
    found = []
    for table in paper.tables:
        for row, cells in table.rows.items():
            for column, printed in zip(table.columns, cells, strict=True):
                shown = results.labels.get(row, row)
                what = shown if len(table.columns) == 1 else f"{shown}, {column}"
                if ours := results.values.get((table.source, row, column)):
                    readings = [(f"{what} ({one.reading})" if one.reading else what, one) for one in ours]
                    found += [Line(table, name, printed, one.value, one.note) for name, one in readings]
                elif printed is not None:
                    absent = [
                        f"no run of the recipe {recipes[name]}" for name in {row, column} & set(recipes) - set(runs)
                    ]
                    why = [results.missing[name] for name in (row, column) if name in results.missing]
                    found.append(Line(table, what, printed, None, (absent + why + ["not measured"])[0]))
    return found


def write_numbers(path, found):
    """Write numbers.csv: source, what, paper, ours, difference (fractions, not %), note."""
    rows = []
    for line in found:
        paper = None if line.printed is None else number(line.printed)
        difference = None if None in (paper, line.ours) else line.ours - paper
        rows.append((line.table.source, line.what, paper, line.ours, difference, line.note))
    write_csv(path, pd.DataFrame(rows, columns=["source", "what", "paper", "ours", "difference", "note"]))


def write_page(path, paper, runs, results, found):
    """Write index.html; the figures and numbers.csv lie beside it."""
    parts = [_element("h1", paper.title), _summary(found), _settings(runs)]
    settings = {run.note for run in runs.values()}
    for table in paper.tables:
        own = [_cells(line, settings) for line in found if line.table is table]
        if own:
            parts += [
                _element("h2", f"{table.source}: {table.title}"),
                _table(["", "paper", "ours", "difference", "note"], own),
            ]
    if results.figures:
        parts.append(_element("h2", "Figures"))
    for name, caption in results.figures:
        image = f'<img src="{name}" alt="{html.escape(caption)}" loading="lazy">'
        parts.append(f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")
    head = f'<meta charset="utf-8"><title>{html.escape(paper.title)}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    with whole_file(path) as file:
        file.write(f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n')


def _summary(found):
    measured = sum(line.ours is not None for line in found)
    text = f"{measured} of {len(found)} numbers measured; difference: ours minus the paper's."
    return f'<p>{text} <a href="numbers.csv">numbers.csv</a> also has the setting of each.</p>'


def _settings(runs):
    """In what each run differs from the paper's recipe."""
    rows = []
    for name, run in runs.items():
        counts = f"{len(run.fold.train):,} images to train on, {len(run.fold.truth):,} to validate on"
        changed = "; ".join(f"{option} {new} (recipe: {old})" for option, (old, new) in run.changed.items())
        shown = "last layer on images of one class" if name == SINGLE else name
        rows.append([shown, str(run.folder), counts, run.note or "as the recipe", changed])
    titles = ["run", "folder", "data", "setting", "options changed"]
    return _element("h2", "Runs") + _table(titles, rows, numbers=())


def _cells(line, settings):
    """The texts of a line's row. settings: those that the page shows at its top."""
    shown = "" if line.ours is None else like(line.printed, line.ours)
    difference = ""
    if line.ours is not None and line.printed is not None:
        difference = like(line.printed, line.ours - number(line.printed), sign="+")
    note = "; ".join(part for part in line.note.split("; ") if part not in settings)
    return [line.what, NOT_PRINTED if line.printed is None else line.printed, shown, difference, note]


def like(printed, value, sign=""):
    """Format a number as the paper prints its own: in %, with its thousands, and at least three decimals if it has any."""
    if printed is not None and printed.endswith("%"):
        decimals = len(printed.partition(".")[2]) - 1
        return f"{100 * value:{sign}.{max(decimals, 0)}f}%"
    if printed is not None and "e" in printed:
        return f"{value:{sign}.0e}"
    decimals = 3 if printed is None else len(printed.partition(".")[2])
    if not decimals:
        return f"{value:{sign},.0f}" if float(value).is_integer() else f"{value:{sign},.1f}"
    return f"{value:{sign}.{max(decimals, 3)}f}"


def _element(name, text):
    return f"<{name}>{html.escape(text)}</{name}>"


def _table(titles, rows, numbers=(1, 2, 3)):
    kinds = [
        'class="number"' if place in numbers else 'class="note"' if place == len(titles) - 1 else ""
        for place in range(len(titles))
    ]

    def line(cell, texts):
        return "".join(f"<{cell} {kind}>{html.escape(text)}</{cell}>" for kind, text in zip(kinds, texts, strict=True))

    body = "\n".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table>\n<tr>{line('th', titles)}</tr>\n{body}\n</table>"

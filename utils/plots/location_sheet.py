"""A page of images with their predicted locations by name: one HTML file with all images in it, without scripts, that
opens anywhere."""

import base64
from collections import Counter
from html import escape
from typing import NamedTuple

import numpy as np

from utils.data.images import resize
from utils.errors import plural
from utils.files import whole_file
from utils.opencv import cv2
from utils.plots import cell_outlines
from utils.plots.image_sheets import RGB, STAIN_COLOURS, in_colour, stretch
from utils.plots.samples import as_text, map_over_protein

SIDE = 320  # pixels of the longer side of an image
MOST_BYTES = 12_500  # of a JPEG; three of them in base64 and the text of 28 rows are 60 kB
LEAST_ROWS = 3  # classes shown of an image

NO_LOCATION = "none"  # of a cell
OF_CELLS = (
    "Each cell is outlined in the colour of its own location that is furthest above the threshold; the line under the images "
    "counts them."
)
EXPLANATION = (
    "Each bar is the probability of a location, and the mark on it the threshold; blue bars reach theirs. F1 says how well "
    "that location was found in images of the run that neither the network nor the threshold had seen, from 0 to 1; images "
    "unlike those may do worse. The map shows over the protein which places speak for the first location (Grad-CAM)."
)
STYLE = """
:root { color-scheme: light; --ink: #1d2328; --grey: #626b73; --line: #e3e6e9; --above: #0072b2; --below: #a9b1b8 }
* { box-sizing: border-box }
body { margin: 0; background: #f5f6f7; color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
header, main { max-width: 1320px; margin: 0 auto; padding: 0 20px }
header { padding-top: 32px }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25 }
header p { max-width: 46em; margin: .5em 0 0 }
header p + p, .id, th, td, figcaption { color: var(--grey) }
main { display: grid; gap: 20px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 540px), 1fr)); padding-block: 24px 48px }
article { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 16px }
h2 { margin: 0; font-size: 1.1rem; line-height: 1.3 }
.id { margin: 0 0 12px; font-size: .82rem; overflow-wrap: anywhere }
.images { display: grid; gap: 8px; grid-template-columns: repeat(3, 1fr) }
figure { margin: 0 }
img { display: block; width: 100%; height: auto; border-radius: 4px; background: #000 }
figcaption { margin-top: 4px; font-size: .78rem; line-height: 1.3 }
table { width: 100%; margin-top: 12px; table-layout: fixed; border-collapse: collapse; font-size: .86rem }
tbody { font-variant-numeric: tabular-nums }
th, td { padding: 4px 0 4px 10px; text-align: right; font-weight: 400; border-top: 1px solid var(--line) }
th:first-child { width: 37%; padding-left: 0; text-align: left; overflow-wrap: anywhere }
thead * { border: 0; font-size: .76rem }
thead td { width: 28% }
th:last-child { width: 9% }
.above th, .above td { color: var(--ink) }
.above th { font-weight: 600 }
.bar span { position: relative; display: block; height: 10px; border-radius: 2px; background: #eceff1 }
.bar i { display: block; height: 100%; border-radius: 2px; background: var(--below) }
.above .bar i { background: var(--above) }
.bar b { position: absolute; top: -3px; bottom: -3px; width: 2px; margin-left: -1px; background: var(--ink) }
.cells { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 10px 0 0; font-size: .82rem }
.cells i { display: inline-block; width: 11px; height: 11px; margin-right: 5px; border: 1px solid var(--grey); border-radius: 2px }
@media (max-width: 480px) {
  header, main { padding-inline: 12px }
  .images { grid-template-columns: 1fr 1fr }
  .images figure:first-child { grid-column: 1 / -1 }
  th, td { padding-left: 6px }
  th:first-child { width: 32% }
  thead td { width: 14% }
  th:last-child { width: 12% }
}
"""


class Row(NamedTuple):
    """A class of an image. f1: held out, NaN if unknown. above: whether the image is predicted to have it."""

    location: str
    probability: float
    threshold: float
    f1: float
    above: bool


def rows_of(calls, number):
    """The Rows of an image, the class furthest above its threshold first: those predicted, at least `LEAST_ROWS`. calls:
    Calls."""
    decided = calls.decisions[number]
    order = calls.order()[number][: max(LEAST_ROWS, decided.sum())]
    values = calls.classes, calls.scores[number], calls.thresholds, calls.f1, decided
    return [Row(*(column[place] for column in values)) for place in order]


def write_sheet(path, runs, shown, total, cards, without=(), cells=False):
    """Write a page. runs: paths of the runs that predicted. shown, total: number of images on the page, and of all.
    cards: iterable of results of `card`. without: names of channels that the networks were not shown. cells: whether
    the cards have `Cells`."""
    title = "Where the protein is"
    which = f"The first {shown:,} of {total:,} images" if shown < total else plural(total, "image")
    lacking = (
        f" without the {' and '.join(without)} channel{'s' * (len(without) > 1)}; F1 is with all" if without else ""
    )
    notes = (
        f"{which}, predicted by {', '.join(map(str, runs))}{lacking}.",
        f"{EXPLANATION} {OF_CELLS}" if cells else EXPLANATION,
    )
    with whole_file(path) as file:
        file.write(
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{escape(title)}</h1>\n"
        )
        file.writelines(f"<p>{escape(note)}</p>\n" for note in notes)
        file.write("</header>\n<main>\n")
        file.writelines(cards)
        file.write("</main>\n</body>\n</html>\n")


class Cells(NamedTuple):
    """The cells of an image. labels: (H, W) of any size, cells 1, 2, … locations: {cell: its most likely location}. colours:
    {location: "#rrggbb"}."""

    labels: np.ndarray
    locations: dict
    colours: dict


def name_cells(read_labels, tables, calls):
    """Name the location of each cell, the one furthest above its threshold, or that it has none: -> the function from an image's
    number to its `Cells`. Locations have the same colour in all images.

    read_labels: number -> (H, W) label image. tables: of each image, a DataFrame with the column cell. calls: of each image, Calls
    whose rows are these cells; their decisions are not used.
    """
    locations = []
    for table, each in zip(tables, calls, strict=True):
        above = each.scores >= each.thresholds
        names = np.where(above.any(axis=1), np.array(each.classes, object)[each.order()[:, 0]], NO_LOCATION)
        locations.append(dict(zip(table["cell"], names, strict=True)))
    named = [name for of_image in locations for name in of_image.values() if name != NO_LOCATION]
    colours = cell_outlines.colour_by_frequency(named) | {NO_LOCATION: cell_outlines.OTHER}
    return lambda number: Cells(read_labels(number), locations[number], colours)


def card(id_, image, channels, map_, rows, unusual="", cells=None):
    """One image and its predicted locations, at most 60 kB of HTML.

    image: (H, W, C), names of its C channels. map_: (h, w) >= 0, where the network looks for the first of `rows`, Rows.
    unusual: the reason if it is unlike the training images. cells: Cells, whose outlines are drawn.
    """
    scale = min(1, SIDE / max(image.shape[:2]))
    image = resize(image, *(max(1, round(scale * side)) for side in image.shape[:2]))
    image = image[..., None] if image.ndim == 2 else image
    protein = stretch(image[..., channels.index("green") if "green" in channels else 0])
    first = rows[0].location
    overlay = in_colour(image, channels)
    if cells:
        colours = {cell: cells.colours[name] for cell, name in cells.locations.items()}
        overlay = cell_outlines.draw(overlay, cells.labels, colours)
    views = [
        (overlay, STAIN_COLOURS if set(RGB) <= set(channels) else "Colours of the stains"),
        (protein, "The protein alone"),
        (map_over_protein(protein, map_), f"Where the network looks for {first}"),
    ]
    figures = "".join(_figure(pixels, caption, f"{id_}: {caption}", cells is not None) for pixels, caption in views)
    named = ", ".join(row.location for row in rows if row.above) or "No location above its threshold"
    note = f"{id_}, unlike the training images: {unusual}" if unusual else id_
    return (
        f'<article>\n<h2>{escape(named)}</h2>\n<p class="id">{escape(note)}</p>\n<div class="images">\n{figures}</div>\n'
        f'{_legend(cells) if cells else ""}<table>\n<thead><tr><th scope="col">location</th><td></td><th scope="col">probability</th>'
        f'<th scope="col">threshold</th><th scope="col">F1</th></tr></thead>\n<tbody>\n{"".join(map(_row, rows))}'
        "</tbody>\n</table>\n</article>\n"
    )


def _legend(cells):
    """The locations of an image's cells, the most frequent first, with the colours of their outlines."""
    counts = Counter(cells.locations.values()).most_common()
    items = "".join(
        f'<span><i style="background:{cells.colours[name]}"></i>{escape(name)} {count:,}</span>'
        for name, count in counts
    )
    return f'<p class="cells">{plural(len(cells.locations), "cell")}{": " if counts else ""}{items}</p>\n'


def _figure(pixels, caption, alternative, thin_lines):
    height, width = pixels.shape[:2]
    data = base64.b64encode(_jpeg(pixels, thin_lines)).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(alternative)}"><figcaption>{escape(caption)}</figcaption></figure>\n'
    )


def _jpeg(pixels, thin_lines):
    """Grey or RGB in [0, 1] -> a JPEG of at most `MOST_BYTES`, as good as they allow. thin_lines: keep their colours."""
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if thin_lines else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    levels = (255 * pixels).round().astype(np.uint8)
    levels = levels[..., ::-1] if levels.ndim == 3 else levels  # OpenCV's order
    for quality in (90, 80, 70, 60, 50, 40, 30, 20, 10, 5, 1):
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        data = cv2.imencode(".jpg", np.ascontiguousarray(levels), options)[1].tobytes()
        if len(data) <= MOST_BYTES:
            break
    return data


def _row(row):
    bar = f'<span><i style="width:{100 * row.probability:.1f}%"></i><b style="left:{100 * row.threshold:.1f}%"></b></span>'
    f1 = "–" if np.isnan(row.f1) else f"{row.f1:.2f}"
    return (
        f'<tr{" class=above" if row.above else ""}><th scope="row">{escape(row.location)}</th>'
        f'<td class="bar" aria-hidden="true">{bar}</td><td>{as_text(row.probability)}</td>'
        f"<td>{as_text(row.threshold)}</td><td>{f1}</td></tr>\n"
    )

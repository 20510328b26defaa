"""Nuclei and whole cells of a field, found without a network.

Nuclei: all connected regions of the blue channel above each of several thresholds form a tree; a dynamic programme chooses
the regions that do not overlap and are most convex, as Arteta et al. (MICCAI 2012) choose them by a learned score, so that a
bright and a faint nucleus each get a threshold of their own. Regions that touch are split where that makes them more convex.
Cells: red or yellow marks where cells are, and each pixel goes to the nucleus with the shortest way to it. A way through
pixels darker than those around them is longer, as in CellProfiler's propagation (Jones et al., CVBIA 2005): cells end in dark
seams.

All lengths are micrometres (µm), areas square micrometres.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from utils.data.images import resize
from utils.data.pixel_size import HPA_FIELD
from utils.errors import InputError, listing
from utils.opencv import cv2

STAINS = ("red", "yellow", "blue")  # the channels that show cells
GRAIN = 0.64  # pixel that images are reduced to: cells found at finer ones are no better
MOST_PIXEL = 3.0  # coarser ones show a nucleus by a few pixels
MOST_PIXELS = 2**20  # after the reduction
BLUR = 0.5  # standard deviation
NUCLEUS = 14, 700  # smallest, of a chromosome plate, and largest area
LEVELS = np.geomspace(0.06, 0.85, 10)  # thresholds, as fractions of the brightest nuclei
CONVEX = 0.8  # convexity, area over that of the convex hull, below which a region is no nucleus
ROUND = 0.95  # convexity from which a region is not split
SPLIT_GAIN = 0.06  # convexity that the parts must gain
WHOLE = 0.05  # convexity that smaller regions must gain over the one around them
COVER = 0.7  # fraction of a region that the smaller ones must cover to count fully
CORES = 0.4, 0.6, 0.8  # of the largest distance to the rim: the parts' cores are deeper
CYTOPLASM = 0.25  # brightness, 0 background, 1 Otsu's threshold, above which a pixel belongs to a cell
HOLE = 14  # area below which a gap in the cells is filled
AROUND = 6.0  # standard deviation of the mean that a pixel is darker than
DARK = 20.0  # how many times longer a way through black is
REACH = 90.0  # longest way from a nucleus
NOISE = 0.5  # fraction of its deviation that white noise falls below when blurred three times as much; real channels keep 0.63


def segment(image, channels, pixel_size=None):
    """Find nuclei and cells: -> cells, nuclei, two (H, W) uint16 label images, 0 background; both number a cell alike, from
    top to bottom. A nucleus lies in its cell; cells do not overlap.

    image: (H, W, C) uint8 or float in 0..1, as of `load_sample`. channels: C names; blue is needed, and red or yellow; others
    are not used. A channel of nothing but noise counts as black. pixel_size: µm; None: that of the Human Protein Atlas, whose
    images show 164 µm. Raise InputError for missing channels, and for pixels too large to see a cell or too many.
    """
    planes = dict(zip(channels, range(len(channels)), strict=True))
    bodies = [name for name in ("red", "yellow") if name in planes]
    if "blue" not in planes or not bodies:
        raise InputError(
            f"cells are found in blue and in red or yellow, not in {listing(channels) or 'nothing'}; add them"
        )
    shape = image.shape[:2]
    small, pixel = working_shape(shape, pixel_size)
    blue, *bodies = (_plane(image[..., planes[name]], small, pixel) for name in ["blue", *bodies])
    nuclei = find_nuclei(blue, pixel)
    cells = grow_cells(nuclei, bodies, pixel)
    return enlarge_labels(cells, shape), enlarge_labels(nuclei, shape)


def working_shape(shape, pixel_size=None):
    """The shape that images of `shape` (H, W) are reduced to, and µm of its pixels. Raise InputError if they are too large to
    see a cell or too many. pixel_size: of `segment`."""
    area = shape[0] * shape[1]
    size = pixel_size or HPA_FIELD / np.sqrt(area)
    small = tuple(max(1, round(side * size / GRAIN)) for side in shape) if size < GRAIN else tuple(shape)
    pixel = size * np.sqrt(area / (small[0] * small[1]))
    if pixel > MOST_PIXEL:
        raise InputError(
            f"pixels of {pixel:.3g} µm are too large to see a cell; give at most {MOST_PIXEL:g}, or the pixel size"
        )
    if small[0] * small[1] > MOST_PIXELS:
        seen = f"{shape[1]}x{shape[0]} pixels of {size:.3g} µm show more than {MOST_PIXELS * GRAIN**2 / 1e6:.1f} mm²"
        raise InputError(f"{seen}; cut the image into fields, or check the pixel size")
    return small, float(pixel)


def _plane(plane, shape, pixel):
    """Reduce and blur a channel: -> float32 in 0..1; black if it has nothing but noise."""
    scale = 1 / np.iinfo(plane.dtype).max if plane.dtype.kind == "u" else 1
    plane = resize(np.ascontiguousarray(plane), *shape).astype(np.float32) * np.float32(scale)
    plane, smooth = (cv2.GaussianBlur(plane, (0, 0), width / pixel) for width in (BLUR, 3 * BLUR))
    return plane if smooth.std() > NOISE * plane.std() else np.zeros_like(plane)


@dataclass
class _Region:
    """A connected region: value, how good a nucleus it is, or the `pieces` are that were found in it, (top, left, mask)."""

    value: float
    pieces: list
    area: int  # pixels
    parent: int  # number of the region around it at the next lower threshold, or -1


def find_nuclei(blue, pixel):
    """Find nuclei in a blurred blue channel (H, W) float32 of pixels of `pixel` µm: -> (H, W) int32 labels."""
    regions, inner = _regions(blue, pixel), defaultdict(list)
    for number, region in reversed(list(enumerate(regions))):
        if number in inner:
            area = max(sum(each.area for each in inner[number]), COVER * region.area)
            value = sum(each.value * each.area for each in inner[number]) / area
            if value > region.value + WHOLE:
                region.pieces = [piece for each in inner[number] for piece in each.pieces]
            region.value = max(region.value, value)
        inner[region.parent].append(region)
    labels, count = np.zeros(blue.shape, np.int32), 0
    for top, left, mask in sorted(
        (piece for region in inner[-1] for piece in region.pieces), key=lambda piece: piece[:2]
    ):
        if _quality(mask, pixel) >= CONVEX:
            count += 1
            labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask > 0] = count
    return labels


def _regions(blue, pixel):
    """List the regions above each threshold, those around others first."""
    regions, below, floor = [], None, np.quantile(blue, 0.02)
    for level in floor + (np.quantile(blue, 0.998) - floor) * LEVELS:
        count, labels, boxes, _ = cv2.connectedComponentsWithStats((blue > level).astype(np.uint8), connectivity=4)
        numbers = np.full(count, -1)
        for label in np.flatnonzero(boxes[1:, cv2.CC_STAT_AREA] * pixel**2 >= NUCLEUS[0]) + 1:
            left, top, width, height, _ = boxes[label]
            mask = (labels[top : top + height, left : left + width] == label).astype(np.uint8)
            y, x = divmod(int(mask.argmax()), int(width))
            parent = -1 if below is None else below[0][below[1][top + y, left + x]]
            value, pieces = _split(_filled(mask), pixel)
            numbers[label] = len(regions)
            regions.append(_Region(value, [(top, left, piece) for piece in pieces], int(mask.sum()), parent))
        below = numbers, labels
    return regions


def _filled(mask):
    """Fill the holes of a region, such as nucleoli."""
    outline, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(mask), outline, -1, 1, -1)


def _convexity(mask):
    """Area over the area of the convex hull, both with the half pixel outside their outline."""
    outline = max(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
    hull = cv2.convexHull(outline)
    area = cv2.contourArea(outline) + len(outline) / 2 + 1
    return area / (cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1)


def _quality(mask, pixel):
    """The convexity of a region, or 0 if it is too small or too large for a nucleus."""
    return _convexity(mask) if NUCLEUS[0] <= int(mask.sum()) * pixel**2 <= NUCLEUS[1] else 0.0


def _split(mask, pixel, times=3):
    """Split a region at its waists if the parts are more convex, and these again: -> mean value by area, masks."""
    value, area, least = _quality(mask, pixel), int(mask.sum()), NUCLEUS[0] / pixel**2
    if value > ROUND or not times or area < 2 * least:
        return value, [mask]
    depth = cv2.distanceTransform(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 5)[1:-1, 1:-1]
    best, parts = value + SPLIT_GAIN, None
    for core in CORES:
        count, cores = cv2.connectedComponents((depth > core * depth.max()).astype(np.uint8), connectivity=4)
        owners = nearest(cores) * mask
        if count > 2 and np.bincount(owners.ravel())[1:].min() >= least:
            found = [(owners == number).astype(np.uint8) for number in range(1, count)]
            gained = sum(_convexity(part) * int(part.sum()) for part in found) / area
            if gained > best:
                best, parts = gained, found
    if parts is None:
        return value, [mask]
    again = [_split(part, pixel, times - 1) for part in parts]
    mean = sum(value * int(part.sum()) for part, (value, _) in zip(parts, again, strict=True)) / area
    return mean, [piece for _, pieces in again for piece in pieces]


def nearest(labels):
    """The label nearest to each pixel of (H, W) labels, 0 for none: -> (H, W) int32."""
    _, places = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_place = np.zeros(places.max() + 1, np.int32)
    of_place[places[labels > 0]] = labels[labels > 0]
    return of_place[places]


def grow_cells(nuclei, bodies, pixel):
    """Grow cells around `nuclei`, (H, W) labels: -> (H, W) int32. bodies: blurred channels that fill cells, each float32."""
    inside, darkness = np.zeros(nuclei.shape, np.float32), np.zeros(nuclei.shape, np.float32)
    for body in bodies:
        light = body - np.quantile(body, 0.02)
        if light.max() > 0:
            inside = np.maximum(inside, light / _otsu(light))
            around = cv2.GaussianBlur(light, (0, 0), AROUND / pixel) + 0.02 * light.max()
            darkness += np.clip(1 - light / around, 0, 1) / len(bodies)
    inside = cv2.GaussianBlur((inside > CYTOPLASM).astype(np.float32), (0, 0), BLUR / pixel) > 0.5
    _, parts, boxes, _ = cv2.connectedComponentsWithStats((~inside).astype(np.uint8), connectivity=4)
    inside |= (boxes[:, cv2.CC_STAT_AREA] * pixel**2 < HOLE)[parts]
    return _shortest_ways(nuclei, inside | (nuclei > 0), (1 + DARK * darkness) * pixel)


def _otsu(light):
    """Otsu's threshold of float32 values."""
    scale = 255 / light.max()
    return max(cv2.threshold((light.clip(0) * scale).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)[0], 1) / scale


def _shortest_ways(nuclei, inside, costs):
    """Give each pixel `inside` the label of the nucleus with the cheapest way to it, at most REACH. costs: of a step through a
    pixel."""
    height, width = nuclei.shape
    numbers = np.arange(height * width, dtype=np.int32).reshape(height, width)
    edges = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        first = np.s_[: height - down, max(0, -right) : width - max(0, right)]
        second = np.s_[down:, max(0, right) : width + min(0, right)]
        both = inside[first] & inside[second]
        steps = np.hypot(down, right) * (costs[first][both] + costs[second][both]) / 2
        edges.append((steps, numbers[first][both], numbers[second][both]))
    steps, starts, ends = map(np.concatenate, zip(*edges, strict=True))
    graph = coo_matrix((steps, (starts, ends)), (height * width,) * 2).tocsr()
    sources = np.flatnonzero(nuclei)
    if not len(sources):
        return nuclei.copy()
    options = {"directed": False, "indices": sources, "min_only": True, "return_predecessors": True, "limit": REACH}
    _, _, nearest_source = dijkstra(graph, **options)
    return np.where(nearest_source >= 0, nuclei.ravel()[np.maximum(nearest_source, 0)], 0).reshape(height, width)


def enlarge_labels(labels, shape):
    """Enlarge a label image (h, w) to `shape` (H, W) with smooth outlines: -> uint16."""
    if labels.shape == tuple(shape):
        return labels.astype(np.uint16)
    scales = np.array(shape) / labels.shape
    enlarged, share = np.zeros(shape, np.uint16), np.full(shape, 0.5, np.float32)
    for label, box in enumerate(find_objects(labels), 1):
        if box is None:
            continue
        low = [max(side.start - 2, 0) for side in box]
        high = [min(side.stop + 2, most) for side, most in zip(box, labels.shape)]
        mask = (labels[low[0] : high[0], low[1] : high[1]] == label).astype(np.float32)
        (top, left), (bottom, right) = (np.round(corner * scales).astype(int) for corner in (low, high))
        across, down = (
            [1 / scale, (start + 0.5) / scale - 0.5 - first]
            for scale, start, first in zip(scales[::-1], (left, top), low[::-1])
        )
        matrix = np.array([[across[0], 0, across[1]], [0, down[0], down[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        own = cv2.warpAffine(mask, matrix, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        window = np.s_[top:bottom, left:right]
        enlarged[window][own > share[window]] = label
        np.maximum(share[window], own, out=share[window])
    return enlarged

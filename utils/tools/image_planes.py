"""The planes in files of several channels: OME-TIFF, ImageJ's stacks, colour images, and what bioio reads."""

import html
import io
import math
import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from utils.data.images import image_size, read_plane
from utils.data.pixel_size import COLUMN, LEAST, MOST
from utils.errors import InputError, first_line
from utils.files import whole_file

PROBES = 8  # colour images that are decoded, to see whether they show several channels
MICROMETRES = {
    "µm": 1,
    "μm": 1,
    "um": 1,
    "micron": 1,
    "microns": 1,
    "nm": 1e-3,
    "Å": 1e-4,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}
CONVERTED = (".czi", ".lif", ".nd2")


def list_planes(files):
    """List the planes of files: -> {file: [(suffix of the Id, stain, ``#page=1#channel=2`` or "", columns)]}.

    A plane of a z-stack, of a time series and of a scene has an Id of its own. stain: the channel's name in the file,
    else C1, C2, …; red, green and blue of a colour image; grey if there is one.
    """
    tiffs = [file for file in files if file.suffix.lower() in (".tif", ".tiff")]
    others = [file for file in files if file not in set(tiffs)]
    colour = [("", name, f"#{name}", {}) for name in ("red", "green", "blue")]
    planes = dict.fromkeys(others, colour if _are_colour(others) else [("", "grey", "", {})])
    return planes | {file: _tiff_planes(file) for file in tiffs}


def _are_colour(files):
    """Return whether some of the images show different pictures in red, green and blue."""
    for place in np.unique(np.linspace(0, len(files) - 1, min(PROBES, len(files))).astype(int)):
        try:
            read_plane(files[place])
        except InputError:
            with suppress(InputError):
                image_size(f"{files[place]}#channel=3")  # raises for a grey image
                return True
    return False


def pixel_size_of(path):
    """Return {COLUMN: micrometres} of the first image of a file, {} if it does not say or is no TIFF."""
    import tifffile

    with suppress(Exception):  # damage is found where the pixels are read
        if path.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as file:
                return (_pixel_sizes(file) or [{}])[0]
    return {}


def _tiff_planes(path):
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            scenes = [series for series in file.series if not series.keyframe.is_reduced]
            names, sizes = _channel_names(file), _pixel_sizes(file)
            planes = []
            for number, series in enumerate(scenes):
                size = sizes[number] if number < len(sizes) else {}
                planes += [(*rest, columns | size) for *rest, columns in _series_planes(file, series, number, names)]
            return [_with_scene(plane, len(scenes) > 1) for plane in planes]
    except Exception as error:  # a damaged file may make tifffile raise anything
        raise InputError(f"{path} is damaged or not a TIFF ({first_line(error)}); fetch it again") from None


def _with_scene(plane, several):
    scene, suffix, *rest, columns = plane
    return (f"_scene{scene}{suffix}", *rest, columns | {"scene": scene}) if several else (suffix, *rest, columns)


def _series_planes(file, series, number, names):
    """Yield (scene, suffix, stain, plane, columns) of each page, or of its channels, of one image of a TIFF."""
    page, axes = series.keyframe, dict(zip(series.axes, series.shape, strict=True))
    samples = axes.pop("S", 1) if page.samplesperpixel > 1 else 1
    stacked = {axis: size for axis, size in axes.items() if axis not in "YX"}
    # The axis of channels; one that has no name is taken for it.
    channel = next((axis for axis in "CQI" if stacked.get(axis, 1) > 1), None)
    for place, index in enumerate(np.ndindex(*stacked.values())):
        found = series.pages[place] if place < len(series.pages) and len(file.pages) > 1 else page
        if found is None or getattr(found, "parent", file) is not file:  # in another file of an OME data set
            continue
        at = {axis: value + 1 for axis, value in zip(stacked, index, strict=True) if stacked[axis] > 1}
        ordinal = (at.pop(channel) if channel else 1) - 1
        suffix = "".join(f"_{axis.lower()}{value}" for axis, value in at.items())
        columns = {axis.lower(): value for axis, value in at.items()}
        numbered = found.index + 1 if len(file.pages) > 1 else place + 1
        paged = f"#page={numbered}" if math.prod(stacked.values()) > 1 or len(file.pages) > 1 else ""
        for sample in range(samples):
            one = samples == 1 and channel is None
            rgb = samples >= 3 and int(page.photometric) in (2, 6)  # RGB, YCBCR
            if rgb and sample >= 3:
                continue  # alpha
            own = names[number][ordinal * samples + sample :][:1] if number < len(names) else []
            unnamed = (
                "grey"
                if one
                else ("red", "green", "blue")[sample]
                if rgb and not channel
                else f"C{ordinal * samples + sample + 1}"
            )
            yield (
                number + 1,
                suffix,
                (own or [unnamed])[0],
                paged + (f"#channel={sample + 1}" if samples > 1 else ""),
                columns,
            )


def _channel_names(file):
    """Return the names of the channels of each image, [[name]]: of OME-XML, or of ImageJ's labels."""
    if file.is_ome:
        images = re.findall(r"<(?:\w+:)?Image\b.*?</(?:\w+:)?Image>", file.ome_metadata or "", re.DOTALL)
        names = [re.findall(r'<(?:\w+:)?Channel\b[^>]*?\sName="([^"]+)"', image) for image in images]
        return [list(map(html.unescape, found)) if len(set(found)) == len(found) else [] for found in names]
    metadata = file.imagej_metadata or {} if file.is_imagej else {}
    labels = [str(label).strip() for label in metadata.get("Labels") or []]
    return [labels] if len(labels) == metadata.get("channels") == len(set(labels)) else []


def _pixel_sizes(file):
    """Return the pixel size of each image of a TIFF in micrometres, [{COLUMN: number}], an empty dict where it has none: of
    OME-XML's PhysicalSizeX, or of the resolution in ImageJ's files."""
    if file.is_ome:
        pixels = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", file.ome_metadata or "")
        return [
            _in_micrometres(_attribute(text, "PhysicalSizeX"), _attribute(text, "PhysicalSizeXUnit", "µm"))
            for text in pixels
        ]
    unit = str((file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ") if file.is_imagej else ""
    resolution = file.pages[0].tags.get("XResolution")
    if not unit or resolution is None or not resolution.value[0]:
        return []
    return [_in_micrometres(resolution.value[1] / resolution.value[0], unit)] * len(file.series)


def _attribute(element, name, default=""):
    found = re.search(rf'\s{name}="([^"]*)"', element)
    return html.unescape(found[1]) if found else default


def _in_micrometres(value, unit):
    """Return {COLUMN: value} rounded to six digits, or {} for no number and for units of no length, such as pixel."""
    try:
        size = float(value) * MICROMETRES[unit]
    except (ValueError, KeyError):
        return {}
    return {COLUMN: float(f"{size:.6g}")} if LEAST <= size <= MOST else {}


def convert(path, table, wanted=()):
    """List the planes of a CZI, LIF or ND2 as TIFFs in a folder beside the table, and write those `wanted`, a set of their
    paths: -> [(Id, stain, path, folder, columns)].

    Needs bioio and its reader of the format; raise InputError with their names if they are not installed.
    """
    kind = path.suffix.lower()[1:]
    fix = f"pip install bioio bioio-{kind}, or save it as OME-TIFF"
    try:
        import bioio
    except ImportError:
        raise InputError(f"{path} needs bioio: {fix}") from None
    import tifffile

    try:
        image = bioio.BioImage(path)
        rows = []
        for number, scene in enumerate(image.scenes, 1):
            image.set_scene(scene)
            size = _in_micrometres(image.physical_pixel_sizes.X or "", "µm")
            sizes = {"scene": len(image.scenes), "t": image.dims.T, "z": image.dims.Z}
            for t, z, c in np.ndindex(image.dims.T, image.dims.Z, image.dims.C):
                at = {"scene": number, "t": t + 1, "z": z + 1}
                columns = {name: at[name] for name in at if sizes[name] > 1}
                id_ = path.stem + "".join(f"_{name}{value}" for name, value in columns.items())
                stain = str(image.channel_names[c])
                file = Path(table).with_suffix("") / f"{id_}_{re.sub(r'[^0-9A-Za-z]+', '-', stain)}.tif"
                rows.append((id_, stain, file, ".", columns | size))
                if file in wanted:
                    tifffile.imwrite(
                        buffer := io.BytesIO(), image.get_image_data("YX", T=t, Z=z, C=c), compression="zlib"
                    )
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with whole_file(file, "wb") as copy:
                        copy.write(buffer.getvalue())
    except OSError:
        raise
    except Exception as error:  # the reader's, of any kind
        raise InputError(f"{path} cannot be read by bioio ({first_line(error)}): {fix}") from None
    return rows

"""The same images as microscopes and other programs write them.

`LAYOUTS` has {name: (function, options of find_images)}. A function takes a folder and {Id: {channel: (H, W) uint8}},
writes them there, and returns the source for find_images, if that is not the folder, and {Id in the table: Id}.
`python tests/layouts.py ATLAS/train FOLDER` does so for up to 20 images of a folder and prints whether the pixels of each
layout are read again.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from PIL import Image

CHANNELS = ("red", "green", "blue", "yellow")
STAINS = {"red": "TRITC", "green": "FITC", "blue": "DAPI", "yellow": "Cy5"}
MAPPING = ["--stains", "TRITC=red", "fitc=green", "DAPI=blue", "Cy5=yellow"]
FIRST_CHANNELS = ["blue", "green", "red", "yellow"]  # the order of microscopes: short wavelengths first


def _tiff(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, **options)


def as_it_is(folder, images):
    for id_, planes in images.items():
        for channel, plane in planes.items():
            Image.fromarray(plane).save(folder / f"{id_}_{channel}.png")
    return folder, {id_: id_ for id_ in images}


def metaxpress(folder, images):
    ids = {}
    for number, (id_, planes) in enumerate(images.items(), 1):
        name = f"exp_1_B{number:02}_s1"
        ids[name] = id_
        for place, channel in enumerate(FIRST_CHANNELS, 1):
            stem = folder / "TimePoint_1" / f"{name}_w{place}{STAINS[channel]}"
            _tiff(stem.with_suffix(".TIF"), planes[channel], compression="lzw")
            _tiff(stem.with_name(f"{name}_thumb_w{place}{STAINS[channel]}.TIF"), planes[channel][::4, ::4])
    return folder, ids


def metaxpress_in_parts(folder, images):
    ids = metaxpress(folder, images)[1]
    return folder, {name.replace("_s", "_"): id_ for name, id_ in ids.items()}


def metaxpress_without_names(folder, images):
    """With wavelength numbers and GUIDs, of one site."""
    for number, planes in enumerate(images.values(), 1):
        for place, channel in enumerate(FIRST_CHANNELS, 1):
            guid = f"{place:08X}-0000-4000-8000-0123456789AB"
            _tiff(folder / f"plate_C{number:02}_w{place}{guid}.tif", planes[channel])
    return folder, {f"plate_C{number:02}": id_ for number, id_ in enumerate(images, 1)}


def leica(folder, images):
    for number, planes in enumerate(images.values(), 1):
        for place, channel in enumerate(FIRST_CHANNELS):
            _tiff(folder / f"Project.lif_Series{number:03}_ch{place:02}.tif", planes[channel])
    return folder, {f"Project.lif_Series{number:03}": id_ for number, id_ in enumerate(images, 1)}


def opera(folder, images):
    for number, planes in enumerate(images.values(), 1):
        for place, channel in enumerate(FIRST_CHANNELS, 1):
            name = f"r02c{number:02}f01p01-ch{place}sk1fk1fl1.tiff"
            _tiff(folder / "Images" / name, planes[channel], compression="zlib")
    return folder, {f"r02c{number:02}f01p01": id_ for number, id_ in enumerate(images, 1)}


def cellvoyager(folder, images):
    for number, planes in enumerate(images.values(), 1):
        for place, channel in enumerate(FIRST_CHANNELS, 1):
            _tiff(folder / f"Plate_1_D{number:02}_T0001F002L01A0{place}Z01C0{place}.tif", planes[channel])
    return folder, {f"Plate_1_D{number:02}_0001_002_01": id_ for number, id_ in enumerate(images, 1)}


def fiji_split(folder, images):
    for id_, planes in images.items():
        for place, channel in enumerate(FIRST_CHANNELS, 1):
            _tiff(folder / f"C{place}-{id_}.tif", planes[channel])
    return folder, {id_: id_ for id_ in images}


def human_protein_atlas(folder, images):
    for id_, planes in images.items():
        colours = np.dstack([planes[channel] for channel in CHANNELS[:3]])
        Image.fromarray(colours).save(folder / f"{id_}_blue_red_green.jpg", quality=95, subsampling=0)
    return folder, {id_: id_ for id_ in images}


def colour_images(folder, images):
    for id_, planes in images.items():
        Image.fromarray(np.dstack([planes[channel] for channel in CHANNELS[:3]])).save(folder / f"{id_}.png")
    return folder, {id_: id_ for id_ in images}


def ome_tiff(folder, images):
    names = {"red": "Tubulin", "green": "Protein", "blue": "DAPI", "yellow": "ER"}
    metadata = {"axes": "CYX", "Channel": {"Name": [names[channel] for channel in FIRST_CHANNELS]}}
    for id_, planes in images.items():
        stack = np.stack([planes[channel] for channel in FIRST_CHANNELS])
        tifffile.imwrite(
            folder / f"{id_}.ome.tif", stack, compression="zlib", metadata=metadata, photometric="minisblack"
        )
    return folder, {id_: id_ for id_ in images}


def ome_tiff_of_two_depths(folder, images):
    """Planes in the order ZC: two samples are the depths of one file."""
    names, ids = list(images), {}
    metadata = {"axes": "ZCYX", "Channel": {"Name": [STAINS[channel] for channel in FIRST_CHANNELS]}}
    for first in range(0, len(names) - 1, 2):
        pair = names[first : first + 2]
        stack = np.stack([[images[id_][channel] for channel in FIRST_CHANNELS] for id_ in pair])
        tifffile.imwrite(folder / f"field{first}.ome.tif", stack, metadata=metadata, photometric="minisblack")
        ids |= {f"field{first}_z{z}": id_ for z, id_ in enumerate(pair, 1)}
    return folder, ids


def imagej_stack(folder, images):
    for id_, planes in images.items():
        stack = np.stack([planes[channel] for channel in FIRST_CHANNELS])
        labels = [STAINS[channel] for channel in FIRST_CHANNELS]
        tifffile.imwrite(folder / f"{id_}.tif", stack, imagej=True, metadata={"axes": "CYX", "Labels": labels})
    return folder, {id_: id_ for id_ in images}


def imagej_stack_on_one_page(folder, images):
    """As ImageJ writes a stack above 4 GB: one header, and the pixels of all planes behind it."""
    for id_, planes in images.items():
        stack = np.stack([planes[channel] for channel in FIRST_CHANNELS])
        description = "ImageJ=1.54f\nimages=4\nchannels=4\nmode=grayscale\nloop=false\n"
        with open(folder / f"{id_}.tif", "wb") as file:
            tifffile.imwrite(file, stack[0], description=description, metadata=None)
            file.seek(0, 2)
            file.write(stack[1:].tobytes())
    return folder, {id_: id_ for id_ in images}


def interleaved(folder, images):
    for id_, planes in images.items():
        pixels = np.dstack([planes[channel] for channel in FIRST_CHANNELS])
        tifffile.imwrite(folder / f"{id_}.tif", pixels, photometric="minisblack", planarconfig="contig")
    return folder, {id_: id_ for id_ in images}


def folder_per_channel(folder, images):
    for id_, planes in images.items():
        for channel in CHANNELS:
            _tiff(folder / STAINS[channel] / f"{id_}.tif", planes[channel])
    return folder, {id_: id_ for id_ in images}


def folder_per_plate(folder, images):
    """Equal names in two folders."""
    ids = {}
    for number, (id_, planes) in enumerate(images.items()):
        place = folder / f"plate{number}"
        place.mkdir()
        as_it_is(place, {"A01": planes})
        ids[f"plate{number}_A01"] = id_
    return folder, ids


def load_data(folder, images):
    rows, ids = [], {}
    for number, (id_, planes) in enumerate(images.items(), 1):
        row = {"Metadata_Plate": "P1", "Metadata_Well": f"A{number:02}", "Metadata_Site": 2}
        for channel in CHANNELS:
            stain = {"blue": "OrigDNA", "yellow": "OrigER", "green": "Protein", "red": "Tubulin"}[channel]
            _tiff(folder / "raw" / f"{number}-{stain}.tiff", planes[channel])
            row |= {f"Image_FileName_{stain}": f"{number}-{stain}.tiff", f"Image_PathName_{stain}": str(folder / "raw")}
        rows.append(row | {"FileName_IllumDNA": "IllumDNA.npy", "PathName_IllumDNA": "illum"})
        ids[f"P1_A{number:02}_2"] = id_
    pd.DataFrame(rows).to_csv(folder / "load_data.csv", index=False)
    return folder / "load_data.csv", ids


def path_list(folder, images):
    as_it_is(folder, images)
    rows = [
        {f"{name[0]}_image": f"{id_}_{name}.png" for name in CHANNELS} | {"output_prefix": f"set/{id_}_"}
        for id_ in images
    ]
    pd.DataFrame([dict.fromkeys(rows[0], "#"), *rows]).to_csv(folder / "path_list.csv", index=False)
    return folder / "path_list.csv", {f"set_{id_}": id_ for id_ in images}


def own_names(folder, images):
    for number, planes in enumerate(images.values(), 1):
        for channel in CHANNELS:
            _tiff(folder / f"day-{number}" / f"my_plate-{STAINS[channel]}-C07.tif", planes[channel])
    return folder, {f"{number}_my_plate_C07": id_ for number, id_ in enumerate(images, 1)}


def _numbered(text):
    return ["--stains", *(f"{text % place}={channel}" for place, channel in enumerate(FIRST_CHANNELS, 1))]


LAYOUTS = {
    "folder": (as_it_is, []),
    "MetaXpress": (metaxpress, MAPPING),
    "MetaXpress, --match": (metaxpress_in_parts, ["--match", "{plate}_{well}_s{site}_w{n}{stain}.TIF", *MAPPING]),
    "MetaXpress, --regex": (
        metaxpress_in_parts,
        [
            "--regex",
            r"^(?P<Plate>.*)_(?P<Well>[A-P][0-9]{2})_s(?P<Site>[0-9])_w(?P<ChannelNumber>[0-9])",
            *_numbered("%d"),
        ],
    ),
    "MetaXpress without names": (metaxpress_without_names, _numbered("w%d")),
    "Leica": (leica, ["--stains", "ch00=blue", "ch01=green", "ch02=red", "ch03=yellow"]),
    "Opera": (opera, _numbered("ch%d")),
    "CellVoyager": (cellvoyager, _numbered("C0%d")),
    "Fiji, split": (fiji_split, _numbered("C%d")),
    "Human Protein Atlas": (human_protein_atlas, []),
    "colour images": (colour_images, []),
    "OME-TIFF": (ome_tiff, []),
    "OME-TIFF, two depths": (ome_tiff_of_two_depths, MAPPING),
    "ImageJ": (imagej_stack, MAPPING),
    "ImageJ, one page": (imagej_stack_on_one_page, _numbered("C%d")),
    "interleaved": (interleaved, _numbered("C%d")),
    "folder per channel": (folder_per_channel, MAPPING),
    "folder per plate": (folder_per_plate, []),
    "LoadData": (load_data, []),
    "path_list.csv": (path_list, []),
    "own names": (own_names, ["--match", r"day-{day:\d+}/{Plate}-{stain}-{well}.tif", *MAPPING]),
}
LOSSY = {"Human Protein Atlas": 32}  # grey levels


def read_folder(folder, count):
    """The first images of a folder: {Id: {channel: (H, W) uint8}}."""
    names = sorted(path.name.removesuffix("_red.png") for path in Path(folder).glob("*_red.png"))[:count]
    return {
        id_: {channel: np.asarray(Image.open(Path(folder) / f"{id_}_{channel}.png")) for channel in CHANNELS}
        for id_ in names
    }


def differences(table, images, ids):
    """The largest difference of each channel's grey levels between a table's images and the given ones: {channel: int}."""
    from utils.data.dataset import Samples
    from utils.data.image_files import find_files, scan_folders
    from utils.data.images import ChannelSet

    found = scan_folders([table])
    assert set(found) == set(ids), (sorted(found), sorted(ids))
    names = ChannelSet(tuple(next(iter(found.values()))))
    files = find_files([table], list(ids), names, found)
    samples = Samples(files, names, next(iter(images[next(iter(images))].values())).shape[0], "resize", "none")
    worst = dict.fromkeys(names.names, 0)
    for row, id_ in enumerate(ids.values()):
        pixels = samples[(0, row, 0)]["images"][0].astype(int)
        for place, name in enumerate(names.names):
            worst[name] = max(worst[name], int(np.abs(pixels[..., place] - images[id_][name]).max()))
    return worst


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from utils.tools import find_images

    atlas, where = read_folder(sys.argv[1], 20), Path(sys.argv[2])
    for name, (write, options) in LAYOUTS.items():
        place = where / name.replace(" ", "_")
        place.mkdir(parents=True)
        source, ids = write(place, atlas)
        sys.argv = ["find_images", str(source), "-o", str(place / "images.csv"), *options]
        find_images.main()
        print(f"   {name}: largest difference {differences(place / 'images.csv', atlas, ids)}")

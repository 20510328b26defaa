"""Of which size, depth and format image files are, from their headers alone."""

import struct

import pandas as pd
from PIL import Image

from utils.data.images import UNREADABLE, image_size
from utils.errors import InputError, plural

COLOUR_TYPES = {
    0: "grey",
    2: "colour",
    3: "palette",
    4: "grey with opacity",
    6: "colour with opacity",
}  # PNG, table 11.1


def file_kinds(files):
    """How many files are of which size and depth, from their headers: N tuples of paths -> DataFrame width, height (pixels), depth
    (text), kind (ending), files, the most first."""
    rows = [(*image_size(path)[::-1], depth(path), path.suffix[1:].lower()) for paths in files for path in paths]
    table = pd.DataFrame(rows, columns=["width", "height", "depth", "kind"])
    return table.value_counts().rename("files").reset_index()


def depth(path):
    """Bits and colour of a PNG, JPEG or TIFF from its header: ``8-bit grey``. Raises InputError where that cannot be read."""
    with open(path, "rb") as file:
        head = file.read(26)
    if head.startswith(b"\x89PNG") and len(head) == 26:
        bits, colour = struct.unpack(">BB", head[24:])
        return f"{bits}-bit {COLOUR_TYPES.get(colour, 'of unknown colour')}"
    try:
        with Image.open(path, formats=("JPEG", "TIFF")) as image:
            bits = image.tag_v2.get(258, (1,))[0] if image.format == "TIFF" else 8  # tag 258: BitsPerSample
            return f"{bits}-bit {'colour' if len(image.getbands()) > 2 else 'grey'}"
    except UNREADABLE:
        raise InputError(f"{path} is not a readable PNG, JPEG or TIFF image; fetch it again") from None


def kinds_in_words(kinds):
    """The one kind of file there is, or how many there are: of `file_kinds` -> a sentence without its end."""
    total = plural(int(kinds["files"].sum()), "file")
    if len(kinds) == 1:
        one = kinds.iloc[0]
        return f"all {total} that were looked at are alike: {one['width']} x {one['height']} pixels, {one['depth']}, {one['kind']}"
    sizes = plural(len(kinds.drop_duplicates(["width", "height"])), "size")
    return f"{total} that were looked at are of {plural(len(kinds), 'kind')}, in {sizes} and {plural(kinds['depth'].nunique(), 'depth')}"

"""The table of images: its paths and planes, and what it refuses. Whole tables of many layouts: tools/test_find_images.py."""

import numpy as np
import pytest
import tifffile
from conftest import write_images
from PIL import Image

from utils.data.image_files import find_files, scan_folders
from utils.data.image_table import split_plane
from utils.data.images import image_size, load_sample, parse_channels, read_plane
from utils.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "path, parts",
    [
        ("a.tif", ("a.tif", None, None)),
        ("x/a.tif#page=12", ("x/a.tif", 12, None)),
        ("a.tif#page=2#channel=3", ("a.tif", 2, 3)),
        ("a.png#blue", ("a.png", None, 3)),
        ("well#3_w1.tif", ("well#3_w1.tif", None, None)),
        ("well#red#3.tif#green", ("well#red#3.tif", None, 2)),
        ("a.tif#page=0", ("a.tif#page=0", None, None)),
    ],
)
def test_a_path_and_its_plane(path, parts):
    assert split_plane(path) == parts


def _write(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "images.csv").write_text(text)
    return folder / "images.csv"


def test_a_table_counts_as_a_folder_and_mixes_with_them(tmp_path):
    write_images(tmp_path / "folder", ["a"])
    write_images(tmp_path / "plate", ["b", "c"])
    plate = tmp_path / "plate"
    table = _write(plate, f"Id;well;blue;green\nx;A1;{plate}/b_red.png;b_blue.png\n é ;A2;c_red.png; c_blue.png \n")
    found = scan_folders([tmp_path / "folder", table])
    files = find_files([table], ["x", "é", "a"], parse_channels("bg"), found)
    expected = [("b_red.png", "b_blue.png"), ("c_red.png", "c_blue.png"), ("a_blue.png", "a_green.png")]
    assert [tuple(path.name for path in paths) for paths in files] == expected
    assert all(path.is_file() for paths in files for path in paths)
    with pytest.raises(InputError, match="2 channel files missing in .*images.csv: x_red, é_red"):
        find_files([table], ["x", "é"], parse_channels("r"), found)
    with pytest.raises(InputError, match="1 Id also in another image folder: a"):
        scan_folders([tmp_path / "folder", _write(plate, "Id,red\na,b_red.png\n")])


@pytest.mark.parametrize(
    "text, says",
    [
        ("name,red\na,a_red.png\n", "lacks the column Id"),
        ("Id,DAPI\na,a_red.png\n", r"no column red, green, blue or yellow.*\(it has: Id, DAPI\)"),
        ("Id,red\na,a_red.png\na,a_blue.png\n", "1 Id more than once: a"),
        ("Id,red\na,a_red.png\nb,red.png\n", r"1 file missing: row 3, red \(.*/red.png\); paths count from the table"),
        ("Id,red\na,a_red.png#pgae=2\n", "after a # comes page=2"),
        ("Id,red,green\na,a_red.png,./a_red.png\n", r"1 image in two cells: a_red.png \(row 2, red; row 2, green\)"),
        (
            "Id,red\na,a_red.png\nb,a_red.png#page=1\n",
            r"1 image in two cells: a_red.png#page=1 \(row 2, red; row 3, red\)",
        ),
        ("Id,red\na,.\n", "1 file missing: row 2, red"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, says):
    write_images(tmp_path, ["a"])
    with pytest.raises(InputError, match=says):
        scan_folders([_write(tmp_path, text)])


@pytest.fixture
def files(tmp_path):
    """One of each kind: three channels in colour, three pages (the third damaged), a thumbnail, four channels of 16 bits."""
    Image.fromarray(COLOUR).save(tmp_path / "colour.png")
    Image.fromarray(COLOUR[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(COLOUR[..., 0]).save(tmp_path / "grey.jpg")
    pages = np.moveaxis(COLOUR, -1, 0)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(tmp_path / "pages.tif") as file:
        start, length = file.pages[2].dataoffsets[0], file.pages[2].databytecounts[0]
    content = bytearray((tmp_path / "pages.tif").read_bytes())
    content[start : start + length] = bytes(length)
    (tmp_path / "pages.tif").write_bytes(content)
    with tifffile.TiffWriter(tmp_path / "thumb.tif") as file:
        file.write(COLOUR[..., 0])
        file.write(COLOUR[::2, ::2, 0], subfiletype=1)
    with tifffile.TiffWriter(tmp_path / "colours.tif") as file:
        for _ in range(2):
            file.write(COLOUR, photometric="rgb", planarconfig="contig")
    deep = np.dstack([COLOUR, COLOUR[..., :1]]).astype(np.uint16) * 16
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="miniswhite", planarconfig="contig")
    return tmp_path


def test_planes_are_read_alone(files):
    for channel, name in enumerate(("red", "green", "blue")):
        plane = COLOUR[..., channel]
        for text in (f"colour.png#{name}", f"colour.png#page=1#channel={channel + 1}", f"colours.tif#page=2#{name}"):
            assert image_size(files / text) == plane.shape
            assert (read_plane(files / text) == plane).all(), text
        assert (read_plane(files / f"deep.tif#{name}") == 65535 - plane.astype(np.uint16) * 16).all()
    assert (read_plane(files / "deep.tif#channel=4") == 65535 - COLOUR[..., 0].astype(np.uint16) * 16).all()
    assert (read_plane(files / "pages.tif#page=2") == COLOUR[..., 1]).all(), "although page 3 is damaged"
    with pytest.raises(InputError, match="pages.tif#page=3 is damaged"):
        read_plane(files / "pages.tif#page=3")
    sample = load_sample([files / "pages.tif#page=2", files / "colour.png#red"])
    assert (sample == COLOUR[..., [1, 0]]).all()


def test_twelve_bits_hold_for_planes(files):
    twelve = COLOUR.astype(np.uint16) * 16
    metadata = {"axes": "CYX", "SignificantBits": 12}
    tifffile.imwrite(
        files / "ome.tif", np.moveaxis(twelve, -1, 0), photometric="minisblack", ome=True, metadata=metadata
    )
    assert "SignificantBits" in tifffile.tiffcomment(files / "ome.tif")
    tifffile.imwrite(files / "plain.tif", twelve, photometric="minisblack", planarconfig="contig")
    expected = np.round(twelve[..., 2] * (65535 / 4095))
    assert (read_plane(files / "ome.tif#page=3") == expected).all()
    assert (read_plane(files / "plain.tif#channel=3", bits=12) == expected).all()
    assert (read_plane(files / "plain.tif#channel=3") == twelve[..., 2]).all()
    with pytest.raises(InputError, match=r"plain.tif#channel=3 has pixels up to .* \(10 bits\)"):
        read_plane(files / "plain.tif#channel=3", bits=10)


@pytest.mark.parametrize(
    "name, says",
    [
        ("pages.tif", "has 3 images; .* or name each as #page=1"),
        ("pages.tif#page=4", "has 3 pages"),
        ("pages.tif#page=1#red", "is grey"),
        ("thumb.tif#page=2", "is a smaller copy of another page"),
        ("thumb.tif#page=3", "has 2 pages"),
        ("colour.png#channel=4", "has 3 channels"),
        ("colour.png#page=2", "has one page"),
        ("grey.png#red", "is grey"),
        ("grey.jpg#channel=1", "is grey"),
        ("colours.tif#page=1", "red, green and blue planes differ"),
        ("deep.tif", "has 4 channels in one image; .* or name each as #channel=1"),
        ("deep.tif#channel=5", "has 4 channels"),
    ],
)
def test_planes_that_a_file_lacks_are_refused_by_header_and_decoder(files, name, says):
    with pytest.raises(InputError, match=says):
        read_plane(files / name)
    if name != "colours.tif#page=1":  # only its pixels tell
        with pytest.raises(InputError, match=says):
            image_size(files / name)

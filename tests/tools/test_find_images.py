"""utils.tools.find_images: the pixels of every layout, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, train_options, write_images
from layouts import LAYOUTS, LOSSY, MAPPING, as_it_is, differences, imagej_stack, metaxpress, read_folder
from matplotlib.figure import Figure

from utils.opencv import cv2
from utils.tools import augment_sheet

FIND = "utils.tools.find_images"


@pytest.fixture(scope="module")
def images(atlas):
    return read_folder(atlas / "train", 2)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_pixels_of_every_layout_are_read(images, tmp_path, name):
    write, options = LAYOUTS[name]
    (tmp_path / "images").mkdir()
    source, ids = write(tmp_path / "images", images)
    succeed(FIND, source, "-o", tmp_path / "table" / "images.csv", *options)
    worst = differences(tmp_path / "table" / "images.csv", images, ids)
    three = name in ("Human Protein Atlas", "colour images")
    assert set(worst) == {"red", "green", "blue"} | (set() if three else {"yellow"})
    assert max(worst.values()) <= LOSSY.get(name, 0), worst


def test_paths_count_from_the_table_and_what_names_tell_are_columns(images, tmp_path):
    metaxpress(tmp_path / "plates", images)
    succeed(FIND, tmp_path / "plates", "-o", tmp_path / "images.csv", *MAPPING)
    table = pd.read_csv(tmp_path / "images.csv", dtype=str)
    assert list(table) == ["Id", "red", "green", "blue", "yellow", "plate", "well", "site"]
    assert table["red"][0] == "plates/TimePoint_1/exp_1_B01_s1_w3TRITC.TIF"
    assert table.loc[0, ["plate", "site", "well"]].tolist() == ["exp_1", "1", "B01"]
    (tmp_path / "plates").rename(tmp_path / "moved")
    refuse("predict", "nothing", "--images", tmp_path / "images.csv", says="nothing")
    succeed(FIND, tmp_path / "moved", "-o", tmp_path / "elsewhere" / "images.csv", *MAPPING)
    assert pd.read_csv(tmp_path / "elsewhere" / "images.csv")["red"][0].startswith(str(tmp_path / "moved"))


def test_unknown_stains_are_listed_with_the_line_to_type(images, tmp_path):
    (tmp_path / "stacks").mkdir()
    imagej_stack(tmp_path / "stacks", images)
    out = tmp_path / "images.csv"
    line = f"{FIND} {tmp_path / 'stacks'} -o {out} --stains DAPI=blue FITC=green TRITC=red Cy5=yellow"
    message = refuse(FIND, tmp_path / "stacks", "-o", out, says=["Cy5 (2), DAPI (2), FITC (2), TRITC (2)", line])
    assert not out.exists()
    succeed(FIND, *message.split(f"{FIND} ")[1].split())


def test_bad_folders_are_refused_in_one_sentence(images, tmp_path):
    out, folder = tmp_path / "images.csv", tmp_path / "images"
    (tmp_path / "empty").mkdir()
    refuse(FIND, tmp_path / "empty", "-o", out, says="has no image (png, jpg, jpeg, tif, tiff)")
    refuse(FIND, tmp_path / "absent", "-o", out, says="does not exist")
    write_images(folder, ["a", "b", "c"])
    refuse(FIND, folder, "-o", out, "--match", "{Id}_w{n}.TIF", says="{Id}_w{n}.TIF fits none of 12 images")
    refuse(FIND, folder, "-o", out, "--match", "{Id }.TIF", says="{Id } is not a placeholder")
    refuse(FIND, folder, "-o", out, "--regex", "(?P<Id>", says="is not a regular expression")
    refuse(FIND, folder, "-o", out, "--stains", "DAPI", says="--stains 'DAPI' is not understood")
    refuse(FIND, folder, "-o", out, "--stains", "red=red", "green=red", says="--stains names red twice")
    refuse(FIND, folder, "-o", out, "--stains", "DAPI=blue", says="no stain dapi; it has blue (3), green (3), red (3)")
    assert not out.exists()


def test_ids_with_missing_or_unequal_channels_are_named_or_left_out(tmp_path):
    out, folder = tmp_path / "images.csv", tmp_path / "images"
    write_images(folder, ["a", "b", "c"])
    (folder / "b_yellow.png").unlink()
    refuse(
        FIND, folder, "-o", out, says="1 Id of 3 without a channel: b (yellow); or leave out such Ids with --skip-bad"
    )
    cv2.imwrite(str(folder / "c_red.png"), np.zeros((20, 20), np.uint8))
    refuse(FIND, folder, "-o", out, says="b (yellow); channels of unequal size: c_red.png 20x20")
    assert "2 Ids left out" in succeed(FIND, folder, "-o", out, "--skip-bad").out
    assert pd.read_csv(out)["Id"].tolist() == ["a"]
    refuse(FIND, folder, "-o", out, "--match", "{Id}_{stain}.png", "--stains", "DAPI=blue", says="has no stain dapi")


def test_two_files_for_one_channel_are_refused(images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    as_it_is(folder, images)
    first = next(iter(images))
    (folder / f"{first}_RED.png").write_bytes((folder / f"{first}_red.png").read_bytes())
    refuse(FIND, folder, "-o", tmp_path / "images.csv", says=["1 channel in two files", f"{first}_RED.png", "--match"])


def test_lists_of_other_programs_that_do_not_fit_are_refused(tmp_path):
    path, out = tmp_path / "list.csv", tmp_path / "images.csv"
    path.write_text("a,b\n1,2\n")
    refuse(FIND, path, "-o", out, says="neither SubCellPortable's")
    path.write_text("r_image,g_image,output_prefix\nx.png,y.png,cell_\n")
    refuse(FIND, path, "-o", out, says="2 files missing: row 2, r_image (x.png), row 2, g_image (y.png)")
    write_images(tmp_path, ["a"])
    rows = "P1,A01,a_red.png,a_green.png\nP1,A01,a_blue.png,a_yellow.png\n"
    path.write_text("Metadata_Plate,Metadata_Well,FileName_red,FileName_green\n" + rows.replace("a_blue", "a_red"))
    refuse(FIND, path, "-o", out, says="add one named Metadata_Id")


def test_load_data_may_name_urls_frames_and_windows_folders(images, tmp_path):
    """CellProfiler's LoadData: Frame counts the pages of a file from 0."""
    (tmp_path / "raw data").mkdir()
    imagej_stack(tmp_path / "raw data", images)
    rows = [
        {
            "ImageNumber": number,
            "URL_DNA": (tmp_path / "raw data" / f"{id_}.tif").as_uri(),
            "Frame_DNA": 0,
            "FileName_Protein": f"{id_}.tif",
            "PathName_Protein": ".\\raw data",
            "Frame_Protein": 1,
        }
        for number, id_ in enumerate(images, 1)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "list.csv", index=False)
    succeed(FIND, tmp_path / "list.csv", "-o", tmp_path / "images.csv")
    ids = {str(number): id_ for number, id_ in enumerate(images, 1)}
    assert differences(tmp_path / "images.csv", images, ids) == {"green": 0, "blue": 0}


def test_files_that_only_bioio_reads_name_the_packages(tmp_path):
    (tmp_path / "scan.nd2").write_bytes(b"\xda\xce\xbe\x0a")
    refuse(FIND, tmp_path, "-o", tmp_path / "images.csv", says=["pip install bioio bioio-nd2", "OME-TIFF"])


ACCEPTING = """
make_folds --labels {atlas}/train.csv --images {images} --folds 3 -o {out}
predict {run} --images {images} --no-cache -o {out}
utils.tools.baseline --folds {folds} --fold 0 --images {images} --size 32 --workers 1 --runs {out}
utils.tools.find_duplicates --images {images} -o {out}
utils.tools.judge_unlike --images {images} --others {images} --limit 2 -o {out}
utils.tools.neighbours {run} --known {atlas}/train.csv --images {images} --repeats 1 --submission {guess} -o {out}
utils.tools.realism --real {images} --simulated {atlas}/test --size 64 -o {out}
utils.tools.score {guess} --truth {atlas}/train.csv --images {images} --sheet {out}
utils.tools.augment_sheet --images {images} --size 32 -o {out}
"""


@pytest.fixture(scope="module")
def shared(atlas, run, folds, tmp_path_factory):
    """What the commands read, and the table of the atlas's training images."""
    table, guess = (tmp_path_factory.mktemp("table") / name for name in ("images.csv", "guess.csv"))
    succeed(FIND, atlas / "train", "-o", table)
    pd.read_csv(atlas / "train.csv", dtype=str).rename(columns={"Target": "Predicted"}).to_csv(guess, index=False)
    return {"atlas": atlas, "run": run, "folds": folds, "guess": guess}, table


@pytest.mark.parametrize("command", ACCEPTING.split("\n")[1:-1], ids=lambda command: command.split()[0])
def test_a_table_is_accepted_wherever_a_folder_is(command, shared, tmp_path, monkeypatch):
    """With the same result to the byte."""
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: save(figure, file, format="png", dpi=15))
    monkeypatch.setattr(augment_sheet, "REPEATS", 1)
    words, table = shared
    for name, images in (("folder", words["atlas"] / "train"), ("table", table)):
        succeed(*command.format(**words, images=images, out=tmp_path / name).split())
    results = [tmp_path / name for name in ("folder", "table")]
    if results[0].is_dir():
        results = [path / "linear/fold0/oof.csv" for path in results]
    first, second = (path.read_bytes() for path in results)
    assert first == second and len(first) > 100


def test_training_accepts_a_table(shared, tmp_path):
    words, table = shared
    succeed("train", *train_options(words["atlas"], words["folds"], tmp_path, images=table))
    assert (tmp_path / "mini/fold0/oof.csv").read_bytes() == (words["run"] / "fold0/oof.csv").read_bytes()

"""Damaged and hostile tables, JSON, arrays and packed copies."""

import json
import os
import struct
import warnings
import zipfile

import fuzz
import mutators
import numpy as np
import pandas as pd
import pytest
import targets
import zstandard
from conftest import kit, refuse, succeed, write_images
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.data.cache import RECORD, Images, Index, Map, _unpacked, open_images
from utils.data.labels import read_labels
from utils.data.tables import check_ids, read_table
from utils.errors import InputError, one_line
from utils.runs.run_folder import read_config
from utils.runs.thresholds_file import read_rule
from utils.safe_load import read_json, read_npy, read_npz


def command(folder, text, kind="labels"):
    return targets.words(text, folder, kind)


@given(st.text() | st.sampled_from(mutators.TEXTS))
def test_any_text_as_an_id_is_refused_or_a_plain_stem(text):
    try:
        check_ids("t.csv", pd.Series([text]))
    except InputError as error:
        assert len(one_line(str(error)).splitlines()) == 1
        return
    name = f"{text}_yellow.tiff"
    assert (
        os.path.basename(name) == name
        and len(os.fsencode(name)) <= 255
        and text.isprintable()
        and text not in (".", "..")
    )
    assert os.path.dirname(os.path.normpath(os.path.join("/images", name))) == "/images"


@given(
    st.binary(max_size=300) | st.text(max_size=300).map(lambda text: ("Id,Target\n" + text).encode("utf-8", "replace"))
)
def test_any_bytes_as_a_table_end_in_rows_or_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    for read in (lambda: read_table(path, ["Id"]), lambda: read_labels(path, list("abc"))):
        try:
            assert len(read()) > 0
        except InputError as error:
            assert len(one_line(str(error)).splitlines()) == 1


@given(st.binary(max_size=300) | st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner)
       | st.dictionaries(st.sampled_from(["classes", "thresholds", "a"]), inner))
       .map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_as_json_end_in_values_or_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    for read in (lambda: read_json(path, "it", "mend it"), lambda: read_rule(path, ["a"])):
        try:
            read()
        except InputError as error:
            assert str(path) in str(error) and len(one_line(str(error)).splitlines()) == 1


@pytest.mark.parametrize("content, says", [
    ("[" * 100_000, "not a run's config"), ('{"class_names":' + "[" * 100_000 + "]" * 100_000 + "}", "not a run's config"),
    ('{"class_names": ["a"], "class_names": ["b"]}', "duplicate key 'class_names'"), ('{"class_names": ["a"], "lr": NaN}', "nan in place"),
    ('{"class_names": ["a"], "lr": 1e999}', "inf in place"), ('{"class_names": ["a"], "lr": ' + "9" * 5000 + "}", "not a run's config"),
    ('{"class_names": ["a"], "size": ' + "9" * 30 + "}", "64 bits"), ('{"class_names": ["\\ud800"]}', "control characters"),
    (b'{"class_names": ["\xff"]}', "not a run's config"), ("\ufeff{}", "not a run's config"), ('{"class_names": 5}', "class_names in its"),
    ('{"class_names": ["a"], "folds": "a\\u0000b"}', "control characters"), ('{"class_names": ["a"], "folds": 5}', "folds in its config"),
])  # fmt: skip
def test_json_of_every_bad_kind(tmp_path, content, says):
    (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=says):
        read_config(tmp_path)


def test_what_a_file_says_is_quoted_in_one_printable_line_of_bounded_length(tmp_path):
    (tmp_path / "t.csv").write_text('"a\nb","\x1b[2J","' + "x" * 100_000 + '"\n1,2,3\n')
    message = kit("make_folds", "--labels", tmp_path / "t.csv", "-o", tmp_path / "f.csv").err.rstrip("\n")
    assert message.isprintable() and len(message) < 2100 and "a\\nb" in message and "\\x1b[2J" in message


def test_a_file_of_labels_whose_name_no_file_can_have(own_files):
    """A run's config names it."""
    path = own_files / "run/fold0/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"folds": "x" * 300}))
    refuse(*command(own_files, targets.THRESHOLD), says="does not exist")


def test_too_many_cells(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.data.tables.MOST_CELLS", 100)
    (tmp_path / "t.csv").write_text("Id\n" + "," * 200)
    with pytest.raises(InputError, match="more than 100 cells"):
        read_table(tmp_path / "t.csv", ["Id"])


@pytest.mark.parametrize("strange", ["../../x $\\frac$ %s {0}", "/tmp/" + "x" * 300])
def test_names_of_classes_are_never_places_nor_formulas(own_files, strange):
    """In a run whose every file has such a class: what is written lies where the command says."""
    for folder in (own_files / "run/fold0", own_files / "run/fold1"):
        for file in [*folder.glob("*.csv"), folder / "config.json"]:
            named = json.dumps(strange) if file.suffix == ".json" else strange
            known = '"Golgi"' if file.suffix == ".json" else "Golgi"
            file.write_text(file.read_text().replace(known, named))
    before = fuzz.listing(own_files)
    classes = f"class,name\n0,Nucleus\n1,{strange}\n2,Cytosol\n3,Vesicles\n"
    (own_files / "classes.csv").write_text(classes)
    after = fuzz.listing(own_files)
    for text in (
        f"{targets.THRESHOLD} --figures {{out}}/figures",
        f"{targets.EVALUATE} --plot {{out}}/e.png",
        f"{targets.FOLDS} --plot {{out}}/f.png",
        targets.COMPARE,
        targets.PLOTS,
        targets.PREDICT,
    ):
        succeed(*command(own_files, text))
    new = {path for path, state in fuzz.listing(own_files).items() if after.get(path) != state}
    assert new and all(path.startswith(str(own_files / "out")) for path in new) and set(after) == set(before)
    assert sorted(path.name for path in own_files.parent.iterdir()) == ["own"]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "", " ", "a\nb", "a\0b", "x" * 300])
def test_no_name_of_a_run_leads_out_of_its_folder(own_files, name):
    text = targets.TRAIN.replace(" --name mini", "")
    refuse(*command(own_files, text), "--name", name, says="not usable as a folder's name")
    assert not (own_files / "out").exists()


def npy(header, data=b"", version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + b"\n" + data


def shaped(shape, kind="'<f4'"):
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"


ARRAYS = [
    npy(shaped("(1000000, 1000000)")), npy(shaped("(9223372036854775807, 9223372036854775807)"), bytes(8)),
    npy(shaped("(-1, 2)"), bytes(8)),
    npy(shaped("(2,)"), bytes(4)), npy(shaped("(1,)", "'|O'"), b"cos\nmkdir\n(S'EVIL'\ntR."),
    npy(shaped("(1,)", "[('a', '<f4')]"), bytes(4)), npy(shaped("(1,)", "'<U1'"), bytes(4)), npy(shaped("(1,)", "'<c8'"), bytes(8)),
    npy("(" * 9000), npy("-" * 9000 + "1"), npy("{'descr': "), npy("__import__('os').mkdir('EVIL')"),
    npy(shaped("(2,)"), bytes(8), version=2)[:20],
    b"", b"\x93NUMPY", npy(shaped("(" + "0," * 70 + ")")), npy(shaped("(2.0,)"), bytes(8)),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ARRAYS)))
def test_arrays_that_are_not_what_they_claim(tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(ARRAYS[number])
    with pytest.raises(InputError, match="x.npy cannot be read .*; mend it"):
        read_npy(tmp_path / "x.npy", "mend it")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", ARRAYS[number])
    with pytest.raises(InputError, match="x.npz is not it"):
        read_npz(tmp_path / "x.npz", ["a"], "it")
    assert not (tmp_path / "EVIL").exists()


def test_an_array_written_by_python_2_is_read_without_a_word(tmp_path):
    header = shaped("(2L,)")
    (tmp_path / "x.npy").write_bytes(npy(header, np.array([1, 2], np.float32).tobytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_npy(tmp_path / "x.npy", "mend it").tolist() == [1, 2]


def test_an_array_that_unpacks_to_more_than_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.safe_load.MOST_ARRAYS", 10**6)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(shaped("(1000000,)"), bytes(4 * 10**6)))
    with pytest.raises(InputError, match="unpacks to 4,000,0.. bytes"):
        read_npz(tmp_path / "x.npz", ["a"], "it")


@given(st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.uint8, bool, ">f4"]), st.lists(st.integers(0, 4), max_size=3),
       st.booleans())  # fmt: skip
def test_arrays_are_read_as_numpy_reads_them(tmp_path_factory, kind, shape, fortran):
    path, values = (
        tmp_path_factory.getbasetemp() / "any.npy",
        np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind),
    )
    np.save(path, np.asfortranarray(values) if fortran and values.ndim else values)
    read, expected = read_npy(path, "mend it"), np.load(path)
    assert read.dtype == expected.dtype and read.shape == expected.shape and (read == expected).all()


@pytest.fixture
def packed(tmp_path):
    """Two samples of 16², packed with zstd: -> files, cache, the paths of index and data."""
    write_images(tmp_path / "images", ["a", "b"], ("green",))
    rows = [(tmp_path / f"images/{id_}_green.png",) for id_ in "ab"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.data.cache.choose_codec", lambda *_: "zstd")
        open_images(rows, ["green"], 16, "resize", str(tmp_path / "cache"))
    (index,) = (tmp_path / "cache").glob("*.index")
    return rows, str(tmp_path / "cache"), index, index.with_suffix(".bin")


def read_all(rows, cache):
    opened, _ = open_images(rows, ["green"], 16, "resize", cache)
    return [opened.read(row) for row in range(len(rows))]


def test_a_frame_that_claims_to_unpack_to_more_is_not_unpacked(packed):
    rows, cache, _, data = packed
    huge = zstandard.ZstdCompressor().compress(bytes(2**30))
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2**24))
    for bomb_ in (huge[: data.stat().st_size], frame):
        content = data.read_bytes()
        data.write_bytes((bomb_ + content)[: max(len(content), len(bomb_))])
        with pytest.raises(InputError, match=r"bin is damaged at a_green.png; delete it"):
            read_all(rows, cache)


def test_a_frame_of_another_length_is_not_unpacked():
    frame = zstandard.ZstdCompressor().compress(bytes(2**24))
    with pytest.raises(ValueError, match="another length"):
        _unpacked(frame, 256)
    assert len(_unpacked(frame, 2**24)) == 2**24


def test_a_file_cut_off_while_it_is_mapped_does_not_end_the_process(tmp_path):
    """As touching a page of the map that is no longer in the file would."""
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(64**2 * 20))
    table = np.zeros(20, RECORD)
    for row in range(20):
        table[row] = (0, 0, 0, 1, 64, 64, 64**2 * row, 64**2)
    opened = Images([(tmp_path / f"{row}_green.png",) for row in range(20)], 64, table, [Map(path)])
    assert opened.read(19).shape == (64, 64, 1)
    os.truncate(path, 5000)
    for row in (1, 19):
        with pytest.raises(InputError, match=f"damaged at {row}_green.png"):
            opened.read(row)
    opened.will_need(range(20))
    assert opened.read(0).shape == (64, 64, 1)


LINES = [
    b"[" * 100_000, b"[[]]", b"[" + b"9" * 5000 + b"]", b"null", b'["a", [], 0, 1, [16, 16, 1], 0, 0]', b"\xff", b"{}",
    b'["a", [], 0, 256, [16, 16, 1], 0, 0, [16, 16]]', b'[["a_green.png"], [], 0, 256, [16, 16, 1], 0, 9, [16, 16]]',
    b'[["a_green.png"], [], 0, 9223372036854775808, [16, 16, 1], 0, 1, [16, 16]]',
    b'[["a_green.png"], [], 0, 9, [4294967296, 16, 1], 0, 1, [16, 16]]',
    b'[["a_green.png"], [], 0, 9, [16, 16, 99999], 0, 1, [16, 16]]', b'[["a_green.png"], [], 0, 9, [16, 16, 1], 0, 1, [9999999999, 16]]',
    b'[["a_green.png"], [], -5, 9, [16, 16, 1], 0, 1, [16, 16]]', b'[["a_green.png"], [], true, 9, [16, 16, 1], 0, 1, [16, 16]]',
    b'[["a_green.png"], [], 1.0, 9, [16, 16, 1], 0, 1, [16, 16]]', b'[["a_green.png"], [], 0, 9, [16, 16, 1], 0, 1, [0, 16]]',
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(LINES)))
def test_an_index_with_an_impossible_line_is_packed_anew(packed, number):
    rows, cache, index, _ = packed
    before, whole = read_all(rows, cache), index.read_bytes()
    index.write_bytes(whole + LINES[number] + b"\n")
    assert Index(index.with_suffix(""), ["green"], 16).damaged
    assert all((one == other).all() for one, other in zip(read_all(rows, cache), before, strict=True))
    assert not Index(index.with_suffix(""), ["green"], 16).damaged


@settings(max_examples=50)
@given(data=st.binary(max_size=200))
def test_any_bytes_as_an_index_are_records_or_damage(tmp_path_factory, data):
    base = tmp_path_factory.getbasetemp() / "any"
    base.with_suffix(".bin").write_bytes(bytes(1000))
    header = json.dumps(Index(base, ["green"], 16).header).encode() + b"\n"
    base.with_suffix(".index").write_bytes(header + data)
    index = Index(base, ["green"], 16)
    assert index.damaged or index.end <= 1000

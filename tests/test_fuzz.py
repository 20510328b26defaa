"""Nothing that a file says is believed: attacks of each kind end in one sentence, and damage of any kind in that or in success."""

import io
import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections import OrderedDict

import cv2
import fuzz
import mutators
import numpy as np
import pytest
import targets
import torch
import zstandard
from conftest import ROOT, kit, refuse, write_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from utils import checkpoint, images
from utils.arrays import read_npy, read_npz
from utils.config import check_config
from utils.cutoffs import read_thresholds
from utils.errors import InputError, one_line
from utils.images import image_size, read_plane, scan_folder
from utils.labels import check_ids, read_labels, read_table
from utils.packed import Images, Index, Map, line_of
from utils.packing import open_images
from utils.reading import check_plain, read_json
from utils.runs import read_config
from utils.torchfile import check_torch_file
from utils.weights import read_state


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """One small file of each kind, and a run (see tests/targets.py)."""
    folder = tmp_path_factory.mktemp("targets") / "base"
    targets.make(folder)
    return folder


@pytest.fixture
def own(files, tmp_path):
    """A copy that a test may damage. Pictures keep their times, by which packed copies know them."""
    shutil.copytree(files, tmp_path / "own", copy_function=fuzz.copy_same)
    return tmp_path / "own"


def command(folder, text, kind="labels"):
    return targets.words(text, folder, kind)


# Damage of every kind


@pytest.mark.parametrize("kind", targets.KINDS)
def test_mutants_end_in_success_or_in_one_sentence(own, kind, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        found = [
            fuzz.attempt(kind, own, number, random.Random(f"test {kind} {number}"))[0] for number in range(MUTANTS)
        ]
    assert not [verdict for verdict in found if verdict.name not in ("succeeded", "refused")]
    assert not list((tmp_path / "empty").iterdir()), "nothing is written where the command runs"


MUTANTS = 6


def test_the_fuzzer_finds_faults(own, monkeypatch):
    """A script that raises, hangs, says two sentences, or leaves a file when it refuses."""
    import ensemble

    def told(main):
        monkeypatch.setattr(ensemble, "main", main)
        return fuzz.attempt("predictions", own, 0, random.Random(0))[0].name

    def writes():
        (own / "out").mkdir()
        (own / "out/s.csv").write_text("half")
        raise InputError("bad")

    monkeypatch.setattr(fuzz, "SECONDS", 1)
    assert "ValueError: oh" in told(lambda: exec('raise ValueError("oh")'))
    assert "took more than" in told(lambda: exec("while True: pass"))
    assert "no one sentence" in told(
        lambda: (print("warning", file=sys.stderr), exec('raise InputError("x")', {"InputError": InputError}))
    )
    assert "s.csv was written" in told(writes)
    assert told(lambda: exec('raise InputError("x")', {"InputError": InputError})) == "refused"
    assert told(lambda: None) == "succeeded" and not (own / "out").exists()


@pytest.mark.parametrize("kind", targets.KINDS)
def test_the_structural_mutators_change_files_that_still_reach_the_scripts(files, kind):
    """Else the fuzzer would only ever test the first check of a format."""
    data = targets.victim(files, kind, random.Random(0)).read_bytes()
    changed = [targets.KINDS[kind].structure(data, random.Random(number)) for number in range(5)]
    assert any(one != data for one in changed)


# Checkpoints


class Bomb:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def shell(path):
    """A checkpoint that is right but for what a test changes."""
    return torch.load(path / "run/fold0/best.pt", weights_only=True)


def refused(path, says):
    for read in (checkpoint.load_network, checkpoint.load, read_state):
        with pytest.raises(InputError, match=says) as told:
            read(path)
        assert str(path) in str(told.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("bomb", [
    Bomb(os.mkdir, "EVIL"), Bomb(bytearray, 10**12), Bomb(eval, "1"), Bomb(set, [1]), Bomb(complex, 1, 2), Bomb(print, "EVIL"),
])  # fmt: skip
def test_no_pickle_calls_anything(files, tmp_path, monkeypatch, zipped, bomb):
    monkeypatch.chdir(tmp_path)
    state = shell(files)
    for changed in (state | {"config": bomb}, state | {"model": {"a": bomb}}, state | {"extra": [bomb]}):
        torch.save(changed, "x.pt", _use_new_zipfile_serialization=zipped)
        refused(tmp_path / "x.pt", "which no tensor needs")
    assert not (tmp_path / "EVIL").exists()


def test_no_sparse_quantised_or_subclassed_tensor_is_built(tmp_path):
    """Their sizes are not those of what is stored."""
    for tensor in (
        torch.eye(3).to_sparse(),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        torch.empty(3, device="meta"),
    ):
        torch.save({"a": tensor}, tmp_path / "x.pt")
        with pytest.raises(InputError, match="x.pt is not a checkpoint"):
            read_state(tmp_path / "x.pt")


def rewritten(data, change, method=zipfile.ZIP_STORED):
    """A zip archive whose records went through `change(name, content)`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return stream.getvalue()


def test_a_zip_that_is_not_as_torch_writes_it(files, tmp_path):
    data = (files / "run/fold0/best.pt").read_bytes()
    path = tmp_path / "x.pt"

    def says(content, what):
        path.write_bytes(content)
        refused(path, what)

    path.write_bytes(rewritten(data, lambda name, content: content))
    checkpoint.load_network(path)  # what follows is refused for what was changed
    says(rewritten(data, lambda name, content: content, zipfile.ZIP_DEFLATED), "is compressed")
    says(
        rewritten(data, lambda name, content: content[:-4] if name.endswith("data/3") else content),
        "claims another size",
    )
    says(
        rewritten(data, lambda name, content: content + bytes(4) if name.endswith("data/3") else content),
        "claims another size",
    )
    says(data[:-22] + data[-22:-2] + struct.pack("<H", 4) + b"more", "not a zip archive as torch writes it")
    says(data + b"x", "not a checkpoint")
    says(
        rewritten(data, lambda name, content: b"(" * 10**6 if name.endswith("data.pkl") else content),
        "not a checkpoint",
    )
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data.pkl", pickle.dumps([], 2))
    refused(path, "not a zip archive as torch writes it")


def test_zip_records_that_overlap_or_claim_more_than_there_is(files, tmp_path):
    data = bytearray((files / "run/fold0/best.pt").read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start, names = archive.start_dir, archive.namelist()
    entry = data.index(b"PK\x01\x02", start)
    for offset, value in ((20, 2**31), (42, None)):
        mutant = bytearray(data)
        second = mutant.index(b"PK\x01\x02", entry + 4)
        if value is None:  # the second record begins where the first does
            mutant[second + 42 : second + 46] = mutant[entry + 42 : entry + 46]
        else:
            for place in (offset, offset + 4):
                mutant[entry + place : entry + place + 4] = struct.pack("<I", value)
        (tmp_path / "x.pt").write_bytes(mutant)
        refused(tmp_path / "x.pt", "claims more bytes than there are|not a zip|not a checkpoint")
    assert len(names) > 3


def pickled(content, *more):
    """A pickle of what has ids for storages, as torch writes it; `more`: what ends each id."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return (*value.id, *more) if isinstance(value, Stored) else None

    stream = io.BytesIO()
    Pickler(stream, 2).dump(content)
    return stream.getvalue()


class Stored:
    def __init__(self, key, items, kind=torch.FloatStorage):
        self.id = ("storage", kind, key, "cpu", items)


class Tensor:
    def __init__(self, storage, offset, size, stride):
        self.call = torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return self.call


def legacy(content, keys, storages):
    """A file of torch before 1.6: five pickles, then each storage's length and bytes."""
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)]
    return b"".join([*parts, pickled(content, None), pickle.dumps(keys, 2), *storages])


def zipped(content, storages):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", pickled(content))
        archive.writestr("a/version", b"3\n")
        for key, data in storages.items():
            archive.writestr(f"a/data/{key}", data)
    return stream.getvalue()


FOUR = struct.pack("<q", 4) + np.arange(4, dtype=np.float32).tobytes()


def test_the_published_form_before_torch_1_6_is_read(tmp_path):
    """Of which these tests' attacks are variations."""
    (tmp_path / "x.pth").write_bytes(legacy({"a": Tensor(Stored("0", 4), 0, (2, 2), (2, 1))}, ["0"], [FOUR]))
    assert read_state(tmp_path / "x.pth")[0]["a"].tolist() == [[0, 1], [2, 3]]
    (tmp_path / "x.pt").write_bytes(zipped({"a": Tensor(Stored("0", 4), 1, (3,), (1,))}, {"0": FOUR[8:]}))
    assert read_state(tmp_path / "x.pt")[0]["a"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("tensor, keys", [
    (Tensor(Stored("0", 10**12), 0, (4,), (1,)), ["0"]),  # a storage larger than the file
    (Tensor(Stored("0", 4), 0, (10**6, 10**6), (1, 1)), ["0"]),  # a tensor larger than its storage
    (Tensor(Stored("0", 4), 0, (10**6, 10**6), (0, 0)), ["0"]),  # the same, all its numbers in one place
    (Tensor(Stored("0", 4), 10**9, (2,), (1,)), ["0"]),
    (Tensor(Stored("0", 4), -1, (2,), (1,)), ["0"]),
    (Tensor(Stored("0", 4), 0, (2,), (-1,)), ["0"]),
    (Tensor(Stored("0", -4), 0, (2,), (1,)), ["0"]),
    (Tensor(Stored("0", 2**62), 0, (0,), (1,)), ["0"]),
    (Tensor(Stored("0", 4, torch.Tensor), 0, (2,), (1,)), ["0"]),
    (Tensor(5, 0, (2,), (1,)), ["0"]),
    ([Tensor(Stored("0", 4), 0, (2,), (1,)), Tensor(Stored("0", 3), 0, (2,), (1,))], ["0"]),  # one storage of two sizes
    (Tensor(Stored("0", 4), 0, (2,), (1,)), []),
    (Tensor(Stored("0", 4), 0, (2,), (1,)), ["0", "1"]),
])  # fmt: skip
def test_storages_and_tensors_that_claim_what_is_not_there(tmp_path, tensor, keys):
    (tmp_path / "x.pth").write_bytes(legacy({"a": tensor}, keys, [FOUR]))
    refused(tmp_path / "x.pth", "not a checkpoint of tensors")
    if keys == ["0"]:
        (tmp_path / "x.pt").write_bytes(zipped({"a": tensor}, {"0": FOUR[8:]}))
        refused(tmp_path / "x.pt", "not a checkpoint of tensors")


def nested(depth, wrap):
    value = "lol"
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("value, says", [
    (nested(40, lambda inner: [inner] * 10), "more than|nested"), (nested(18, lambda inner: [inner] * 10), "more than"),
    (nested(100_000, lambda inner: [inner]), "nested"), (nested(25, lambda inner: {"a": inner}), "nested"),
    (float("nan"), "nan in place"), (float("inf"), "inf in place"), (2**62 * 4, "64 bits"), ({1: 2}, "no text"),
    ("a\x1b[2J", "control"), ("\ud800", "control"), (torch.zeros(3), "type Tensor"), ((1, 2), "type tuple"),
    ([0] * 1_000_001, "more than"),
])  # fmt: skip
def test_a_config_that_could_not_be_printed_or_compared(files, tmp_path, value, says):
    state = shell(files)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)  # for pickle, which writes it
    try:
        if says == "nested" and isinstance(value, list):
            config = pickled(state["config"])[:-2] + b"X\x03\0\0\0lol" + b"]" * 100_000 + b"a" * 99_999 + b"u."
            content = zipped_with(config, state)
            (tmp_path / "x.pt").write_bytes(content)
        else:
            torch.save(state | {"config": state["config"] | {"lol": value}}, tmp_path / "x.pt")
    finally:
        sys.setrecursionlimit(limit)
    refused(tmp_path / "x.pt", f"{says}|not a checkpoint")


def zipped_with(config, state):
    """A zip with a hand-made pickle {"config": ..., "model": {}, "epoch": 1, "score": 1}."""
    body = config[2:-1]
    whole = b"\x80\x02}X\x06\0\0\0config" + body + b"sX\x05\0\0\0model}sX\x05\0\0\0epochK\x01sX\x05\0\0\0scoreK\x01s."
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", whole)
        archive.writestr("a/version", b"3\n")
    return stream.getvalue()


def test_a_key_whose_hash_would_overflow_the_stack(tmp_path):
    deep = b"\x80\x02})" + b"\x85" * 10**6 + b"K\x01s."
    (tmp_path / "x.pt").write_bytes(zipped({}, {}).replace(pickled({}), b"")[:0] or _with_pickle(deep))
    refused(tmp_path / "x.pt", "nested deeper")


def _with_pickle(data):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", data)
    return stream.getvalue()


@pytest.mark.parametrize("changed, says", [
    ({"planes": 2**40}, "planes in its config should be a whole number"), ({"planes": 10**400}, "64 bits|not a checkpoint"),
    ({"planes": 5}, "channels bgry do not give"), ({"planes": True}, "planes in its config"), ({"size": 10**6}, "size in its config"),
    ({"size": 0}, "size in its config"), ({"size": "32"}, "size in its config"), ({"size": 32.0}, "size in its config"),
    ({"class_names": [f"c{number}" for number in range(9_999)]}, "do not fit the network"),
    ({"class_names": [f"c{number}" for number in range(10_001)]}, "class_names in its config"),
    ({"class_names": ["a", "a", "b", "c"]}, "class_names in its config"), ({"class_names": ["a", "b", "c", "d\n"]}, "class_names"),
    ({"class_names": "abcd"}, "class_names in its config"), ({"class_names": ["Id", "b", "c", "d"]}, "class_names in its config"),
    ({"model": 5}, "model in its config"), ({"model": ["convnet"]}, "model in its config"), ({"model": "no"}, "no network is called 'no'"),
    ({"model": "../x"}, "no network is called"), ({"model": "deeploc", "size": 8192}, "do not fit the network"),
    ({"model": "timm:hf-hub:timm/resnet18.a1_in1k"}, "timm has no network"), ({"model": "timm:local-dir:/tmp"}, "timm has no network"),
    ({"model": "timm:https://example.org/x"}, "timm has no network"), ({"model": "pretrainedmodels:../x"}, "pretrainedmodels has no"),
    ({"model": "timm:vit_base_patch16_224", "size": 8192}, "do not fit the network|cannot take images"),
    ({"stem": "none"}, "stem in its config should be one of"), ({"fit": 1}, "fit in its config"), ({"normalise": "x"}, "normalise in its"),
    ({"amp": None}, "amp in its config"), ({"batch_size": 0}, "batch_size in its"), ({"batch_size": 2**31}, "batch_size in its"),
    ({"channels": "rgbyx"}, "channels in its config"), ({"channels": {"r": 1}}, "channels in its config"),
    ({"mean": [0.1, 0.2, 0.3, "0.4"]}, "lacks the mean and std"), ({"fold": -3}, "fold in its config"), ({"name": "a\nb"}, "name in its"),
])  # fmt: skip
def test_configs_of_absurd_networks(files, tmp_path, monkeypatch, changed, says):
    """Neither allocated nor looked for on the network."""
    import socket

    def no_network(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    state = shell(files)
    torch.save(state | {"config": state["config"] | changed}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=says) as told:
        checkpoint.load_network(tmp_path / "x.pt")
    assert len(one_line(str(told.value))) < 2100


@pytest.mark.parametrize("key, value", [("epoch", "1"), ("epoch", -1), ("score", "high"), ("model", {1: torch.zeros(1)}), ("model", {"a": 1}),
                                        ("model", [1]), ("steps", [{"a": "b"}]), ("log", 3), ("finished", "yes"), ("spent", None)])  # fmt: skip
def test_a_checkpoint_whose_progress_is_of_another_type(files, tmp_path, key, value):
    torch.save(shell(files) | {key: value}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=f"{'weights' if key == 'model' else key}"):
        checkpoint.load(tmp_path / "x.pt")


def test_weights_of_another_kind_of_number_are_not_taken(files, tmp_path):
    state = shell(files)
    state["model"] = {key: value.to(torch.int8) for key, value in state["model"].items()}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(InputError, match="do not fit"):
        checkpoint.load_network(tmp_path / "x.pt")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_what_counts_as_plain_is_written_and_read_back_the_same(value):
    try:
        check_plain(value)
    except ValueError:
        return
    assert json.loads(json.dumps(value, allow_nan=False).encode()) == value and "\x1b" not in str(value)


@given(st.dictionaries(st.sampled_from(["class_names", "model", "channels", "planes", "size", "fold", "normalise", "mean"]),
                       st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=3) | st.floats())))  # fmt: skip
def test_any_config_is_taken_or_refused_in_a_sentence(config):
    try:
        check_config("x.json", config)
    except InputError as error:
        assert str(error).startswith("x.json") and len(one_line(str(error)).splitlines()) == 1


def test_malformed_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"

    def header(text, data=b""):
        return struct.pack("<Q", len(text)) + text + data

    whole = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    path.write_bytes(header(whole, bytes(8)))
    assert read_state(path)[0]["a"].tolist() == [0, 0]
    for content in (header(whole), header(whole.replace(b"[2]", b"[99999999999]"), bytes(8)), header(b"[" * 10_000), struct.pack("<Q", 2**63),
                    header(whole.replace(b"[0,8]", b"[0,8000000000]"), bytes(8)), header(whole.replace(b"F32", b"XYZ"), bytes(8)), b"",
                    header(whole.replace(b"[2]", b"[4294967296,4294967296,2]"), bytes(8)), header(whole[:-3], bytes(8))):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a safetensors file"):
            read_state(path)


# Pictures


def bomb(kind, side=40_000):
    """A small file whose header claims side x side pixels."""
    stream = io.BytesIO()
    if kind == "png":
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(mutators.png_chunk(*part) for part in parts)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(
        stream, kind, **({"compression": "tiff_adobe_deflate"} if kind == "tiff" else {})
    )
    data = bytearray(stream.getvalue())
    if kind == "jpeg":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", side, side)
    else:
        change_tags(data, {256: side, 257: side, 278: side})
    return bytes(data)


def change_tags(data, values):
    """Other values of a little-endian TIFF's tags."""
    start = struct.unpack("<I", data[4:8])[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack("<H", data[start : start + 2])[0], 12):
        if (tag := struct.unpack("<H", data[entry : entry + 2])[0]) in values:
            data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, values[tag])


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_a_picture_that_claims_too_many_pixels_is_not_decoded(tmp_path, kind, monkeypatch):
    path = tmp_path / f"a_red.{kind}"
    path.write_bytes(bomb(kind))
    for read in (image_size, read_plane):
        with pytest.raises(InputError, match="claims .*more .*8192x8192"):
            read(path)
    path.write_bytes(bomb(kind, side=0))
    with pytest.raises(InputError, match="a_red"):
        image_size(path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_the_decoder_itself_takes_no_more_pixels(tmp_path, kind):
    """In a process of its own, where nothing but the import of utils has been said to OpenCV."""
    (tmp_path / "x").write_bytes(bomb(kind, side=9_000))
    code = ("import utils, cv2, numpy, sys\ntry:\n    sys.exit(cv2.imdecode(numpy.fromfile('x', 'u1'), -1) is not None)\n"
            "except cv2.error as error:\n    sys.exit(0 if 'pixels' in str(error) else 3)")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=100
    )
    assert done.returncode == 0


def test_the_largest_picture_is_taken(tmp_path):
    assert images.MOST_PIXELS == images.MOST_SIDE**2
    (tmp_path / "a.png").write_bytes(bomb("png", side=8192))
    assert image_size(tmp_path / "a.png") == (8192, 8192)


def test_a_file_larger_than_any_picture_or_table_is_not_read(tmp_path):
    for name, read in (("a_red.png", read_plane), ("b_red.png", image_size), ("c.csv", lambda path: read_table(path, ["Id"])),
                       ("d.json", lambda path: read_json(path, "a config", "mend it"))):  # fmt: skip
        with open(tmp_path / name, "wb") as file:
            file.truncate(2**41)  # a hole: nothing is on the disk
        with pytest.raises(InputError, match=f"{name} has 2,199,023,255,552 bytes, more than"):
            read(tmp_path / name)


def test_pipes_devices_and_folders_called_like_files_are_not_opened(files, tmp_path):
    for name in ("a_red.png", "t.csv", "t.json", "x.pt", "x.npy", "x.npz", "x.safetensors"):
        os.mkfifo(tmp_path / name)
    os.symlink("/dev/zero", tmp_path / "b_red.png")
    (tmp_path / "c_red.png").mkdir()
    for name, read in (("a_red.png", image_size), ("a_red.png", read_plane), ("b_red.png", image_size), ("b_red.png", read_plane),
                       ("c_red.png", image_size), ("c_red.png", read_plane), ("t.csv", lambda path: read_table(path, ["Id"])),
                       ("t.json", lambda path: read_thresholds(str(path), ["a"])), ("x.pt", checkpoint.load), ("x.pt", checkpoint.load_network),
                       ("x.npy", lambda path: read_npy(path, "mend it")), ("x.npz", lambda path: read_npz(path, ["a"], "it")),
                       ("x.pt", check_torch_file)):  # fmt: skip
        with pytest.raises(InputError, match=f"{name} is (no regular file|a folder)"):
            read(tmp_path / name)


def test_a_pipe_among_the_pictures_of_a_command(own, tmp_path):
    path = own / "png/a_green.png"
    path.unlink()
    os.mkfifo(path)
    refuse(*command(own, targets.PICTURES, "png"), says=["a_green.png", "no regular file"])
    refuse(*command(own, targets.HASHED.replace("--drop-corrupt", ""), "png"), says=["a_green.png", "no regular file"])


@pytest.mark.parametrize("pages", ["cyclic", "endless"])
def test_a_tiff_whose_pages_never_end(tmp_path, pages):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(stream, "tiff")
    data = bytearray(stream.getvalue())
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    body, place = bytes(data[start : start + 2 + 12 * count]), start + 2 + 12 * count
    if pages == "cyclic":
        data[place : place + 4] = struct.pack("<I", start)
    else:
        length = len(body) + 4
        data[place : place + 4] = struct.pack("<I", len(data))
        first = len(data)
        data += b"".join(body + struct.pack("<I", first + length * (page + 1)) for page in range(20_000))
    (tmp_path / "a_red.tif").write_bytes(data)
    if pages == "cyclic":
        assert image_size(tmp_path / "a_red.tif") == (16, 16) == read_plane(tmp_path / "a_red.tif").shape
    else:
        with pytest.raises(InputError, match="holds 100 pictures"):
            image_size(tmp_path / "a_red.tif")


def test_absurd_tags_of_a_tiff(tmp_path):
    path = tmp_path / "a_red.tif"
    assert cv2.imwrite(str(path), np.zeros((16, 16), np.uint8))
    whole = path.read_bytes()
    for values in (
        {277: 65535},
        {258: 64},
        {258: 65535},
        {259: 50000},
        {278: 0},
        {279: 2**32 - 1},
        {273: 2**32 - 1},
        {256: 2**32 - 1},
    ):
        data = bytearray(whole)
        change_tags(data, values)
        path.write_bytes(data)
        with pytest.raises(InputError, match="a_red.tif"):
            image_size(path)
            read_plane(path)
            pytest.fail(f"{values} was read")


def test_texts_that_unpack_to_gigabytes_do_not_stop_a_png(tmp_path):
    """libpng's own limit, which nothing may lift."""
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16), 7, np.uint8)).save(stream, "png")
    data, text = stream.getvalue(), mutators.png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))
    (tmp_path / "a_red.png").write_bytes(data[:33] + text * 5 + data[33:])
    code = ("import resource, sys\nfrom pathlib import Path\nfrom utils.images import read_plane\n"
            "read_plane(Path(sys.argv[1]).with_name('b_red.png'))\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nassert (read_plane(Path(sys.argv[1])) == 7).all()\n"
            "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000")  # fmt: skip
    (tmp_path / "b_red.png").write_bytes(data)
    words = [sys.executable, "-c", code, tmp_path / "a_red.png"]
    assert subprocess.run(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=100).returncode == 0


def test_a_jpeg_of_endless_scans_is_not_decoded(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)).save(
        stream, "jpeg", progressive=True
    )
    data = stream.getvalue()
    (tmp_path / "a_red.jpg").write_bytes(data)
    assert read_plane(tmp_path / "a_red.jpg").shape == (32, 32)
    last = data.rindex(b"\xff\xda")
    (tmp_path / "a_red.jpg").write_bytes(data[:last] + data[last:-2] * 1000 + data[-2:])
    with pytest.raises(InputError, match="damaged"):
        read_plane(tmp_path / "a_red.jpg")


@pytest.mark.parametrize("form", ["bmp", "gif", "webp", "ppm", "ico", "jpeg2000"])
def test_other_formats_under_the_name_of_a_png_are_not_decoded(tmp_path, form):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "x", form)
    (tmp_path / "x").rename(tmp_path / "a_red.png")
    for read in (image_size, read_plane):
        with pytest.raises(InputError, match="not a readable PNG, JPEG or TIFF"):
            read(tmp_path / "a_red.png")


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\x1b[2J", b" a", "a\u202eb".encode(), ("x" * 241).encode()])
def test_names_of_pictures_that_no_table_could_hold(tmp_path, name):
    with open(os.fsencode(tmp_path) + b"/" + name + b"_red.png", "wb"):
        pass
    with pytest.raises(InputError, match="1 Id not usable") as told:
        scan_folder(tmp_path)
    assert one_line(str(told.value)).isprintable()


# Tables and JSON


@given(st.text() | st.sampled_from(mutators.TEXTS))
def test_any_text_as_an_id_is_refused_or_a_plain_stem(text):
    import pandas as pd

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
       | st.dictionaries(st.sampled_from(["classes", "thresholds", "a"]), inner)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_as_json_end_in_values_or_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    for read in (lambda: read_json(path, "it", "mend it"), lambda: read_thresholds(path, ["a"])):
        try:
            read()
        except InputError as error:
            assert str(path) in str(error) and len(one_line(str(error)).splitlines()) == 1


@pytest.mark.parametrize("content, says", [
    ("[" * 100_000, "not a run's config"), ('{"class_names":' + "[" * 100_000 + "]" * 100_000 + "}", "not a run's config"),
    ('{"class_names": ["a"], "class_names": ["b"]}', "'class_names' twice"), ('{"class_names": ["a"], "lr": NaN}', "nan in place"),
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


def test_too_many_cells(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.labels.MOST_CELLS", 100)
    (tmp_path / "t.csv").write_text("Id\n" + "," * 200)
    with pytest.raises(InputError, match="more than 100 cells"):
        read_table(tmp_path / "t.csv", ["Id"])


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "", " ", "a\nb", "a\0b", "x" * 300])
def test_no_name_of_a_run_leads_out_of_its_folder(own, name):
    text = targets.TRAIN.replace(" --name mini", "")
    refuse(*command(own, text), "--name", name, says="not usable as a folder's name")
    assert not (own / "out").exists()


# Arrays


def npy(header, data=b"", version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + b"\n" + data


def shaped(shape, kind="'<f4'"):
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"


ARRAYS = [
    npy(shaped("(1000000, 1000000)")), npy(shaped("(9223372036854775807, 9223372036854775807)"), bytes(8)), npy(shaped("(-1, 2)"), bytes(8)),
    npy(shaped("(2,)"), bytes(4)), npy(shaped("(2,)"), bytes(12)), npy(shaped("(1,)", "'|O'"), pickle.dumps([Bomb(os.mkdir, "EVIL")], 2)),
    npy(shaped("(1,)", "[('a', '<f4')]"), bytes(4)), npy(shaped("(1,)", "'<U1'"), bytes(4)), npy(shaped("(1,)", "'<c8'"), bytes(8)),
    npy("(" * 9000), npy("-" * 9000 + "1"), npy("{'descr': "), npy("__import__('os').mkdir('EVIL')"), npy(shaped("(2,)"), bytes(8), version=2)[:20],
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


def test_an_array_that_unpacks_to_more_than_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.arrays.MOST_BYTES", 10**6)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(shaped("(1000000,)"), bytes(4 * 10**6)))
    with pytest.raises(InputError, match="claims 4,000,0.. bytes"):
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


# Packed copies


@pytest.fixture
def packed(tmp_path):
    """Two samples of 16², packed with zstd: -> files, cache, the paths of index and data."""
    write_images(tmp_path / "images", ["a", "b"], ("green",))
    rows = [(tmp_path / f"images/{id_}_green.png",) for id_ in "ab"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.packing.choose", lambda *_: "zstd")
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
        with pytest.raises(InputError, match=r"bin is damaged where a_green.png lies; delete it"):
            read_all(rows, cache)


def test_a_file_cut_off_while_it_is_mapped_does_not_end_the_process(packed):
    rows, cache, index, data = packed
    opened, _ = open_images(rows, ["green"], 16, "resize", cache)
    os.truncate(data, 10)
    with pytest.raises(InputError, match="damaged"):
        opened.read(1)
    opened.will_need([0, 1])


LINES = [
    b"[" * 100_000, b"[[]]", b"[" + b"9" * 5000 + b"]", b"null", b'["a", [], 0, 1, [16, 16, 1], 0, 0]', b"\xff", b"{}",
    b'[["a"], [], 0, 256, [16, 16, 1], 0, 0, [16, 16]]', b'["a_green.png", [], 0, 256, [16, 16, 1], 0, 9, [16, 16]]',
    b'["a_green.png", [], 0, 9223372036854775808, [16, 16, 1], 0, 1, [16, 16]]', b'["a_green.png", [], 0, 9, [4294967296, 16, 1], 0, 1, [16, 16]]',
    b'["a_green.png", [], 0, 9, [16, 16, 99999], 0, 1, [16, 16]]', b'["a_green.png", [], 0, 9, [16, 16, 1], 0, 1, [9999999999, 16]]',
    b'["a_green.png", [], -5, 9, [16, 16, 1], 0, 1, [16, 16]]', b'["a_green.png", [], true, 9, [16, 16, 1], 0, 1, [16, 16]]',
    b'["a_green.png", [], 1.0, 9, [16, 16, 1], 0, 1, [16, 16]]', b'["a_green.png", [], 0, 9, [16, 16, 1], 0, 1, [0, 16]]',
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
    header = Index(base, ["green"], 16).first_line()
    base.with_suffix(".index").write_bytes(header + data)
    index = Index(base, ["green"], 16)
    assert index.damaged or index.end <= 1000


def test_a_raw_record_of_another_length_is_told(tmp_path):
    """As after a file cut off behind the index's back."""
    (tmp_path / "x.bin").write_bytes(bytes(100))
    table = np.zeros(1, dtype=[("pack", "i2"), ("codec", "i1"), ("kind", "i1"), ("channels", "i2"), ("height", "i4"), ("width", "i4"),
                               ("offset", "i8"), ("length", "i8")])  # fmt: skip
    table[0] = (0, 0, 0, 1, 16, 16, 0, 256)
    with pytest.raises(InputError, match="damaged where a_green.png lies"):
        Images([(tmp_path / "a_green.png",)], 16, table, [Map(tmp_path / "x.bin")]).read(0)
    assert line_of("a", [], 0, 256, (16, 16, 1), "uint8", "raw", (16, 16)).endswith(b"\n")

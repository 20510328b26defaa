"""Damaged and hostile weights and checkpoints: nothing is executed, and no more allocated than the file holds."""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils import models
from utils.engine import checkpoint
from utils.engine.weights import read_state
from utils.errors import InputError, one_line
from utils.runs.config import RunConfig
from utils.safe_load import check_plain


class Bomb:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def shell(path):
    """A valid checkpoint, for a test to change."""
    state = checkpoint.load(path / "run/fold0/best.safetensors")
    return state | {"config": state["config"].to_dict()}


def refused(path, says):
    for read in (checkpoint.load_network, checkpoint.load, read_state):
        with pytest.raises(InputError, match=says) as message:
            read(path)
        assert str(path) in str(message.value)


@pytest.mark.parametrize("config", [None, [], torch.ones(2)])
def test_weights_beside_a_config_that_is_none(files, tmp_path, config):
    state = shell(files)
    torch.save({"model": state["model"], "config": config}, tmp_path / "x.pt")
    found, origin = read_state(tmp_path / "x.pt")
    assert set(found) == set(state["model"]) and origin is None


def test_an_older_runs_weights_are_loaded(files, tmp_path):
    """Before safetensors, best.pt held config and weights."""
    torch.save(shell(files), tmp_path / "best.pt")
    assert checkpoint.find_checkpoints(tmp_path) == [tmp_path / "best.pt"]
    (old, config), (new, same) = map(
        checkpoint.load_network, (tmp_path / "best.pt", files / "run/fold0/best.safetensors")
    )
    assert config == same and all(torch.equal(value, new.state_dict()[key]) for key, value in old.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "bomb", [Bomb(os.mkdir, "EVIL"), Bomb(bytearray, 10**15), Bomb(eval, "1"), Bomb(print, "EVIL")]
)
def test_no_pickle_calls_anything(files, tmp_path, monkeypatch, capsys, zipped, bomb):
    monkeypatch.chdir(tmp_path)
    state = shell(files)
    for changed in (state | {"config": bomb}, state | {"model": {"a": bomb}}, state | {"extra": [bomb]}):
        torch.save(changed, "x.pt", _use_new_zipfile_serialization=zipped)
        refused(tmp_path / "x.pt", "not a checkpoint")
    assert not (tmp_path / "EVIL").exists() and not capsys.readouterr().out


def test_no_sparse_quantised_or_expanded_tensor_is_taken(tmp_path):
    """Their sizes are not those of what is stored."""
    for tensor in (
        torch.eye(3).to_sparse(),
        torch.empty(3, device="meta"),
        torch.zeros(1).expand(10**12),
        torch.zeros(2, 1).expand(2, 10**12),
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
    path = tmp_path / "x.pt"
    torch.save(shell(files), path)
    data = path.read_bytes()

    def says(content, what):
        path.write_bytes(content)
        refused(path, what)

    def pickle_of(content):
        return rewritten(data, lambda name, old: content if name.endswith("data.pkl") else old)

    path.write_bytes(rewritten(data, lambda name, content: content))
    checkpoint.load_network(path)  # what follows is refused for what was changed
    says(rewritten(data, lambda name, content: content, zipfile.ZIP_DEFLATED), "records are compressed")
    says(
        rewritten(data, lambda name, content: content[:-4] if name.endswith("data/3") else content)[:-200], "not a zip"
    )
    says(data[:-22] + data[-22:-2] + struct.pack("<H", 4) + b"more", "not a zip archive as torch writes it")
    says(data[:5000], "not a zip archive as torch writes it")
    says(pickle_of(b"(" * 10**5), "not a checkpoint")
    says(pickle_of(bytes(checkpoint.MOST_STRUCTURE + 1)), "structure is too large")
    big = zipped([Tensor(Stored("0", 10**6), 0, (4,), (1,))], {"0": bytes(4 * 10**6)})
    entry = big.rindex(b"PK\x01\x02")  # of data/0, which another entry repeats
    end = big.index(b"PK\x05\x06")
    count, length, start = struct.unpack("<10xHII2x", big[end:])
    more = struct.pack("<4s4xHHIIH", b"PK\x05\x06", count + 1, count + 1, length + end - entry, start, 0)
    says(big[:end] + big[entry:end] + more, "claim more bytes than it has")


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


def legacy(content, keys, storages, part=None):
    """A file of torch before 1.6: five pickles, then each storage's length and bytes."""
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)]
    return b"".join([*parts, pickled(content, part), pickle.dumps(keys, 2), *storages])


def zipped(content, storages):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", pickled(content))
        archive.writestr("a/version", b"3\n")
        for key, data in storages.items():
            archive.writestr(f"a/data/{key}", data)
    return stream.getvalue()


FOUR = struct.pack("<q", 4) + np.arange(4, dtype=np.float32).tobytes()


def test_the_published_forms_before_torch_1_6_are_read(tmp_path):
    """These tests' attacks are variations of them. Before torch 0.4 a tensor was made by another function, and several that shared a
    storage had a part of it each."""
    (tmp_path / "x.pth").write_bytes(legacy({"a": Tensor(Stored("0", 4), 0, (2, 2), (2, 1))}, ["0"], [FOUR]))
    assert read_state(tmp_path / "x.pth")[0]["a"].tolist() == [[0, 1], [2, 3]]
    (tmp_path / "x.pt").write_bytes(zipped({"a": Tensor(Stored("0", 4), 1, (3,), (1,))}, {"0": FOUR[8:]}))
    assert read_state(tmp_path / "x.pt")[0]["a"].tolist() == [1, 2, 3]
    oldest = Tensor(Stored("0", 4), 0, (2,), (1,))
    oldest.call = torch._utils._rebuild_tensor, oldest.call[1][:4]
    (tmp_path / "x.pth").write_bytes(legacy({"a": oldest}, ["0"], [FOUR], part=("1", 1, 2)))
    assert read_state(tmp_path / "x.pth")[0]["a"].tolist() == [1, 2]


@pytest.mark.parametrize("zipped", [True, False])
def test_the_checkpoints_of_other_training_scripts_are_read(tmp_path, zipped):
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.SGD([weight], 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [1, 2])  # whose milestones are a Counter
    state = {"model": {"w": weight}, "optimizer": optimiser.state_dict(), "lr_scheduler": schedule.state_dict(), "seen": {1, 2},
             "dtype": torch.bfloat16, "device": torch.device("cpu"), "bytes": b"\x00abc", "repeated": torch.ones(1).expand(9),
             "complex": torch.ones(2, dtype=torch.complex64)}  # fmt: skip
    torch.save(state, tmp_path / "other.pth", _use_new_zipfile_serialization=zipped)
    read = checkpoint.read_file(tmp_path / "other.pth")
    assert read["lr_scheduler"]["milestones"] == schedule.milestones and read["bytes"] == state["bytes"]
    assert (
        torch.equal(read["repeated"], state["repeated"]) and read["dtype"] is torch.bfloat16 and read["seen"] == {1, 2}
    )


@pytest.mark.parametrize("tensor", [
    Tensor(Stored("0", 10**12), 0, (4,), (1,)),  # a storage larger than the file
    Tensor(Stored("0", 100), 0, (100,), (1,)),  # larger than its record
    Tensor(Stored("0", 4), 0, (10**6, 10**6), (1, 1)),  # a tensor larger than its storage
    Tensor(Stored("0", 4), 0, (10**6, 10**6), (0, 0)),  # the same, all its numbers in one place
    Tensor(Stored("0", 4), 10**9, (2,), (1,)),
    Tensor(Stored("0", 4), -1, (2,), (1,)),
    Tensor(Stored("0", 4), 0, (2,), (-1,)),
    Tensor(Stored("0", -4), 0, (2,), (1,)),
    Tensor(Stored("0", 2**62), 0, (0,), (1,)),
    Tensor(Stored("0", 4, torch.Tensor), 0, (2,), (1,)),
    Tensor(5, 0, (2,), (1,)),
])  # fmt: skip
def test_storages_and_tensors_that_claim_more_than_there_is(tmp_path, tensor):
    """They are refused, or read within the file."""
    (tmp_path / "x.pth").write_bytes(legacy({"a": tensor}, ["0"], [FOUR]))
    refused(tmp_path / "x.pth", "not a checkpoint of tensors")
    path = tmp_path / "x.pt"
    path.write_bytes(zipped({"a": tensor}, {"0": FOUR[8:]}))
    try:
        found = read_state(path)[0]["a"]
    except InputError as error:
        assert "x.pt is not a checkpoint of tensors" in str(error)
    else:
        assert (
            found.untyped_storage().nbytes() <= path.stat().st_size and found.tolist() == [0, 1, 2, 3][: found.numel()]
        )


def nested(depth, wrap):
    value = "lol"
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("value, says", [
    (nested(18, lambda inner: [inner] * 10), "more than"), (nested(200, lambda inner: [inner]), "nested"),
    (nested(25, lambda inner: {"a": inner}), "nested"), (float("nan"), "nan in place"), (2**62 * 4, "64 bits"), ({1: 2}, "not text"),
    ("a\x1b[2J", "control"), ("\ud800", "control"), (torch.zeros(3), "type Tensor"), ((1, 2), "type tuple"),
    ([0] * 1_000_001, "more than"),
])  # fmt: skip
def test_a_config_that_could_not_be_printed_or_compared(files, tmp_path, value, says):
    state = shell(files)
    torch.save(state | {"config": state["config"] | {"lol": value}}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", f"{says}|not a checkpoint")


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
    ({"mean": [0.1, 0.2, 0.3, "0.4"]}, "mean in its config should be|lacks the mean and std"),
    ({"mean": "a", "normalise": "none"}, "mean in its config should be|lacks the mean and std"), ({"fold": -3}, "fold in its config"), ({"name": "a\nb"}, "name in its"),
])  # fmt: skip
def test_configs_of_absurd_networks(files, tmp_path, monkeypatch, changed, says):
    """Neither allocated nor looked for on the network."""
    import socket

    def no_network(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    real, devices = models.build, []
    monkeypatch.setattr(models, "build", lambda *words: devices.append(torch.empty(0).device.type) or real(*words))
    state = shell(files)
    torch.save(state | {"config": state["config"] | changed}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=says) as message:
        checkpoint.load_network(tmp_path / "x.pt")
    assert len(one_line(str(message.value))) < 2100
    assert set(devices) <= {"meta"} or "no network" in str(message.value), "nothing was allocated"


@pytest.mark.parametrize("key, value", [
    ("epoch", "1"), ("score", "high"), ("model", {1: torch.zeros(1)}), ("model", {"a": 1}), ("model", [1]),
    ("log", 3), ("log", [{"epoch": 1}]), ("finished", "yes"), ("spent", None),
])  # fmt: skip
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
                       st.none() | st.integers() | st.floats() | st.text(max_size=5)
                       | st.lists(st.text(max_size=3) | st.floats())))  # fmt: skip
def test_any_config_is_taken_or_refused_in_a_sentence(config):
    try:
        RunConfig.from_dict(config, "x.json")
    except InputError as error:
        assert str(error).startswith("x.json") and len(one_line(str(error)).splitlines()) == 1


def test_malformed_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"

    def header(text, data=b""):
        return struct.pack("<Q", len(text)) + text + data

    whole = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    path.write_bytes(header(whole, bytes(8)))
    assert read_state(path)[0]["a"].tolist() == [0, 0]
    for content in (header(whole), header(whole.replace(b"[2]", b"[99999999999]"), bytes(8)), header(b"[" * 10_000),
                    struct.pack("<Q", 2**63),
                    header(whole.replace(b"[0,8]", b"[0,8000000000]"), bytes(8)), header(whole.replace(b"F32", b"XYZ"), bytes(8)), b"",
                    header(whole.replace(b"[2]", b"[4294967296,4294967296,2]"), bytes(8)), header(whole[:-3], bytes(8))):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a safetensors file"):
            read_state(path)


def test_weights_without_what_belongs_to_them(files, tmp_path):
    for name in ("best.safetensors", "config.json"):
        shutil.copy(files / "run/fold0" / name, tmp_path)
    path = tmp_path / "best.safetensors"
    checkpoint.load_network(path)
    for metadata in ("[" * 10_000, "[1]", "{}", '{"epoch": "1", "score": 1.0}', '{"epoch": 1, "score": "high"}'):
        tensors = safetensors.torch.load_file(files / "run/fold0/best.safetensors")
        safetensors.torch.save_file(tensors, path, {checkpoint.KIT_METADATA: metadata})
        with pytest.raises(InputError, match="best.safetensors(: its| is not a safetensors)"):
            checkpoint.load(path)
    shutil.copy(files / "run/fold0/best.safetensors", path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="config.json cannot be read"):
        checkpoint.load_network(path)
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)
    with pytest.raises(InputError, match="not a checkpoint written by train.py"):
        checkpoint.load_network(path)
    assert read_state(path)[1] is None

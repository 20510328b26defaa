"""Version 18 of the Human Protein Atlas is fetched from a server on this machine, which can be told to fail."""

import errno
import http.server
import os
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import kit, refuse, succeed

from utils.data.labels import load_classes, read_labels
from utils.kaggle import download, hpav18
from utils.opencv import cv2

SIDE = 96
PLANES = {"red": (2,), "green": (1,), "blue": (0,), "yellow": (1, 2)}  # in OpenCV's order
IDS = ["10580_1610_C1_1", "10580_1610_C1_2", "28086_1695_H1_18_cr57d81acbe63b0", "4109_24_H11_1"]
TARGETS = ["21 13 25 2 0", "0", "", "7"]
TABLE = "Id,Target\n" + "".join(f"{id_},{target}\n" for id_, target in zip(IDS, TARGETS))


def grey_image(id_, colour):
    """A smooth image, since JPEG blurs others."""
    rng = np.random.default_rng([*f"{id_}{colour}".encode()])
    return cv2.resize(rng.integers(0, 256, (6, 6), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def coloured_jpeg(id_, colour):
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[..., PLANES[colour]] = grey_image(id_, colour)[..., None]
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def url_path(id_, colour):
    antibody, _, image = id_.partition("_")
    return f"/images/{antibody}/{image}_{colour}.jpg"


class Atlas(http.server.ThreadingHTTPServer):
    """files: {path: bytes}; faults: {path: [functions of the request's handler, one for each of the first requests]}."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {url_path(id_, colour): coloured_jpeg(id_, colour) for id_ in IDS for colour in PLANES}
        self.files["/labels.csv"] = TABLE.encode()
        self.faults, self.asked, self.ended = {}, [], threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        faults = server.faults.get(self.path)
        if faults:
            faults.pop(0)(self)
        elif self.path in server.files:
            self.answer(server.files[self.path])
        else:
            self.send_error(404)

    def answer(self, body, length=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def status(code):
    return lambda handler: handler.send_error(code)


def web_page(handler):
    handler.answer(b"<html>down for maintenance</html>")


def cut_short(handler):
    body = handler.server.files[handler.path]
    handler.answer(body[:-40], length=len(body))


def cut_on_disk(handler):
    """The server itself has half a file."""
    handler.answer(handler.server.files[handler.path][:-40])


def silent(handler):
    handler.server.ended.wait(10)


def two_colours(handler):
    handler.answer(cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes())


@pytest.fixture
def server(monkeypatch):
    atlas = Atlas()
    thread = threading.Thread(target=atlas.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", (0, 0))
    yield atlas
    atlas.ended.set()
    atlas.shutdown()
    atlas.server_close()
    thread.join()


def call(server, folder, *more):
    urls = ["--labels-url", f"{server.address}/labels.csv", "--images-url", f"{server.address}/images/"]
    return ["utils.kaggle.hpav18", "--to", folder, *urls, "--size", SIDE // 2, *more]


def table_of(folder):
    return read_labels(f"{folder}.csv", load_classes("hpa"))


def images_in(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.png")}


def test_coloured_jpegs_become_grey_images_of_their_colour(server, tmp_path):
    folder = tmp_path / "hpav18"
    result = succeed(*call(server, folder))
    assert sorted(server.asked) == sorted(["/labels.csv", *server.files.keys() - {"/labels.csv"}])
    table = table_of(folder)
    assert table["Id"].tolist() == IDS and table["Target"].tolist() == ["0 2 13 21 25", "0", "", "7"]
    for id_ in IDS:
        for colour in PLANES:
            image = cv2.imread(str(folder / f"{id_}_{colour}.png"), cv2.IMREAD_UNCHANGED)
            small = cv2.resize(grey_image(id_, colour), (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
            assert image.shape == small.shape and np.abs(image.astype(int) - small).mean() < 4
    assert "4 samples, 0 of them complete" in result.out and "16 images to fetch" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hpav18", "hpav18.csv"]
    server.asked.clear()
    assert "4 of 4 samples" in succeed(*call(server, folder)).out and not server.asked


def test_size_0_keeps_the_size(server, tmp_path):
    succeed(*call(server, tmp_path / "a", "--size", 0, "--threads", 1))
    assert cv2.imread(str(tmp_path / "a" / f"{IDS[0]}_red.png")).shape[:2] == (SIDE, SIDE)


def test_a_limit_chooses_the_same_samples_again_and_a_larger_one_adds_to_them(server, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text(TABLE)
    for limit in (1, 3):
        succeed(*call(server, tmp_path / "a", "--labels", own, "--limit", limit))
        assert len(table_of(tmp_path / "a")) == limit
    assert len(server.asked) == len(set(server.asked)) == 3 * 4  # neither labels nor an image twice


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ([status(404)], "404 Not Found"),
        ([status(500)] * 3, "500 Internal Server Error"),
        ([cut_short] * 3, "cut short"),
        ([cut_on_disk], "is cut short"),
        ([web_page], "not a JPEG"),
        ([silent] * 3, "timed out"),
        ([two_colours], "planes differ"),
    ],
    ids=["404", "500", "cut short", "cut on disk", "web page", "timeout", "two colours"],
)
def test_a_sample_without_a_usable_image_is_listed_and_fetched_the_next_time(
    faults, says, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    folder, bad = tmp_path / "hpav18", url_path(IDS[1], "green")
    server.faults[bad] = list(faults)
    result = succeed(*call(server, folder))
    assert "3 of 4 samples" in result.out and "1 sample lacks an image" in result.out
    assert table_of(folder)["Id"].tolist() == [IDS[0], *IDS[2:]]
    missing = pd.read_csv(f"{folder}_missing.csv", dtype=str)
    assert missing["Id"].tolist() == [IDS[1]]
    assert bad in missing["why"][0] and says in missing["why"][0]
    assert server.asked.count(bad) == len(faults) and not list(folder.glob(".*"))
    server.asked.clear()
    assert "4 of 4 samples" in succeed(*call(server, folder)).out
    assert set(server.asked) == {url_path(IDS[1], colour) for colour in ("green", "blue", "yellow")}
    assert not Path(f"{folder}_missing.csv").exists()


def test_temporary_errors_are_tried_again(server, tmp_path):
    server.faults = {"/labels.csv": [status(503)], url_path(IDS[0], "red"): [status(429), cut_short]}
    assert "4 of 4 samples" in succeed(*call(server, tmp_path / "a")).out


def test_a_damaged_file_is_fetched_again_and_one_of_another_size_refused(server, tmp_path):
    folder = tmp_path / "a"
    succeed(*call(server, folder))
    before = images_in(folder)
    damaged = folder / f"{IDS[2]}_blue.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    server.asked.clear()
    succeed(*call(server, folder))
    assert server.asked == [url_path(IDS[2], "blue")] and images_in(folder) == before
    refuse(*call(server, folder, "--size", 32), says=["48x48 pixels, not --size 32", "--to"])


def test_ctrl_c_stops_and_the_same_command_goes_on(server, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    with monkeypatch.context() as patch:
        patch.setattr(hpav18.tqdm, "set_postfix_str", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert kit(*call(server, folder, "--threads", 1)).code == 130
    assert images_in(folder) and not list(folder.glob(".*")) and not Path(f"{folder}.csv").exists()
    done = set(images_in(folder))
    server.asked.clear()
    succeed(*call(server, folder))
    assert len(server.asked) == 16 - len(done) and len(table_of(folder)) == 4


def test_a_server_without_any_image_ends_the_call_in_one_sentence(server, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{deaf.getsockname()[1]}"
        for option in ("--labels-url", "--images-url"):
            says = [f"{nowhere} cannot be reached", "the same command"]
            refuse(*call(server, folder, option, f"http://{nowhere}"), says=says)
    refuse(*call(server, folder, "--images-url", "v18.proteinatlas.org"), says=["--images-url", "http"])
    refuse(*call(server, folder, "--images-url", f"{server.address}/old"), says=["no sample is complete", "404"])
    with monkeypatch.context() as patch:
        patch.setattr(hpav18, "GIVE_UP", 3)
        refuse(*call(server, folder, "--images-url", f"{server.address}/old"), says=["3 samples in a row", "404"])
    assert not Path(f"{folder}.csv").exists() and not Path(f"{folder}_missing.csv").exists()


def test_labels_that_are_none_are_refused(server, tmp_path):
    other = tmp_path / "other.csv"
    refuse(*call(server, tmp_path / "a", "--labels", other), says=["other.csv does not exist"])
    other.write_text("Id,Target\n10580,0\n")
    refuse(*call(server, tmp_path / "a", "--labels", other), says=["row 2 (10580)", "<antibody>_<image>"])
    server.files["/labels.csv"] = b"<html>gone</html>"
    refuse(*call(server, tmp_path / "b"), says=["labels.csv", "delete it", "--labels"])
    server.faults["/labels.csv"] = [status(404)]
    refuse(*call(server, tmp_path / "c"), says=["labels cannot be fetched", "404", "--labels"])


def test_a_full_disk_is_reported(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
        refuse(*call(server, tmp_path / "a"), says=["16 images more needs about", "0 bytes free", "make room"])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    patched = tmp_path / "b"
    patched.mkdir()
    (patched / "labels.csv").write_text(TABLE)
    monkeypatch.setattr(os, "fsync", full)
    refuse(*call(server, patched), says=["cannot write", ".png", "No space left"])
    assert not images_in(patched) and not list(patched.glob(".*"))

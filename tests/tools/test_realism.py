"""utils.tools.realism against closed forms."""

import numpy as np
import pytest
from conftest import refuse, succeed, write_images

from utils.opencv import cv2
from utils.tools.realism import list_planes, measure, measure_all, moments, radial_power, spectrum_distance


def wave(across, down, size=64):
    """A sinusoid of so many cycles in each direction."""
    x = np.arange(size) / size
    return np.cos(2 * np.pi * (across * x + down * x[:, None]))


def test_white_noise_has_a_flat_spectrum_of_one_at_any_brightness():
    rng = np.random.default_rng(0)
    for offset, spread in ((0, 1), (100, 7)):
        powers = [radial_power(offset + spread * rng.standard_normal((64, 64))) for _ in range(300)]
        mean = np.mean(powers, axis=0)
        assert mean.shape == (32,)
        assert mean[1:] == pytest.approx(np.ones(31), abs=0.1)  # 1 cycle: what removing the mean takes away shows


@pytest.mark.parametrize("across, down, cycles", [(5, 0, 5), (0, 5, 5), (3, 4, 5), (-3, 4, 5), (20, 0, 20)])
def test_a_sinusoid_peaks_at_its_own_frequency_in_every_direction(across, down, cycles):
    power = radial_power(80 + 30 * wave(across, down))
    assert power.argmax() + 1 == cycles
    far = np.abs(np.arange(1, 33) - cycles) > 2
    assert power[far].max() < 1e-12 * power.max(), "a Hann window leaks no further than one neighbour"


def test_what_does_not_fit_the_frame_does_not_leak_far():
    power = radial_power(wave(10.5, 0))
    assert power[20:].max() < 1e-6 * power.max(), "without a window 1 / (π · distance)², 1e-3 here"


def test_a_sinusoids_power_is_the_windows_closed_form():
    """|F|² = (N²/8)² at ±f, a quarter of it at each of 4 next and a sixteenth at each of 4 diagonal neighbours (Hann: ½, ¼);
    variance ½, window energy (3N/8)². All within rings 19 to 21 of a wave of 20 cycles: 2 N² (1 + 1 + ¼) / 9."""
    size, power = 64, radial_power(wave(20, 0))
    axis = np.fft.fftfreq(size, 1 / size)
    counts = np.bincount(np.rint(np.hypot(axis[:, None], axis)).astype(int).ravel())[1:33]
    assert (power * counts).sum() == pytest.approx(2 * 2 * size**2 * (1 + 1 + 1 / 4) / 9)


def test_distance_is_one_for_tenfold_power_and_ignores_the_first_frequency_and_empty_planes():
    power = np.random.default_rng(0).uniform(0.5, 2, (5, 32))
    assert spectrum_distance(power, power[::-1]) == 0
    assert spectrum_distance(power, 10 * power) == pytest.approx(1) == spectrum_distance(10 * power, power)
    assert spectrum_distance(power, np.vstack([power, np.full(32, np.nan)])) == 0
    assert spectrum_distance(np.ones((2, 3)), np.array([[1, 10, 1000]] * 2)) == pytest.approx(2), (
        "not 1, the first counted"
    )


def test_pixels_are_pooled_over_images():
    histograms = np.zeros((2, 256), int)
    histograms[0, 0], histograms[1, 255] = 10, 30
    assert moments(histograms) == pytest.approx((0.75, np.sqrt(0.75 * 0.25), 0.25, 0.75))


def test_planes_are_averaged_down_and_recompressed(tmp_path):
    board = (np.indices((32, 32)).sum(axis=0) % 2 * 200).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a_green.png"), board, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    histogram, power, _ = measure(tmp_path / "a_green.png", 16)
    assert histogram[100] == 16 * 16 == histogram.sum() and np.isnan(power).all(), "mean of 2 x 2 pixels, then constant"
    *_, kilobytes = measure(tmp_path / "a_green.png", 32)
    assert kilobytes == len(cv2.imencode(".png", board)[1]) / 1000 < (tmp_path / "a_green.png").stat().st_size / 1000


def test_sixteen_bits_are_brought_to_eight(tmp_path):
    cv2.imwrite(str(tmp_path / "a_red.tif"), np.full((16, 16), 13107, np.uint16))  # a fifth of 65,535
    assert measure(tmp_path / "a_red.tif", 16)[0][51] == 256


def test_limit_takes_planes_from_the_whole_list(tmp_path):
    for number in range(9):
        cv2.imwrite(str(tmp_path / f"i{number}_green.png"), np.full((16, 16), number, np.uint8))
    (histograms, *_), skipped = measure_all(list_planes([tmp_path])["green"], 16, 3, "")
    assert histograms.argmax(axis=1).tolist() == [0, 4, 8] and skipped == 0
    assert [len(part) for part in measure_all(list_planes([tmp_path])["green"], 16, 9, "")[0]] == [9, 9, 9]
    assert measure_all(list_planes([tmp_path])["green"], 17, 9, "") == (None, 9)


def test_table_and_figure_of_incomplete_folders_and_blank_planes(tmp_path):
    write_images(tmp_path / "one", ["a", "b"], ["green"], size=32, ending="jpg")
    write_images(tmp_path / "two", ["a", "c"], ["yellow"], size=64)
    write_images(tmp_path / "two", ["small"], ["green"], size=16)
    write_images(tmp_path / "drawn", ["x", "y", "z"], size=32, seed=1)
    cv2.imwrite(str(tmp_path / "drawn" / "x_green.png"), np.zeros((32, 32), np.uint8))  # a cell without the protein
    write_images(tmp_path / "one", ["blank"], ["blue"], size=32)
    for id_ in "xyz":
        cv2.imwrite(str(tmp_path / "drawn" / f"{id_}_blue.png"), np.full((32, 32), 9, np.uint8))  # no spectrum at all
    folders = ["--real", tmp_path / "one", tmp_path / "two", "--simulated", tmp_path / "drawn"]
    out = succeed("utils.tools.realism", *folders, "--size", 32, "-o", tmp_path / "r.png").out
    first, _, *lines = out.splitlines()
    assert first == "1 plane smaller than 32² skipped"
    shown = {(lines[row - row % 2][:9].strip(), lines[row][9:19].strip()): int(lines[row][19:26]) for row in range(8)}
    for channel, real in {"red": 0, "green": 2, "blue": 1, "yellow": 2}.items():
        assert shown[channel, "real"] == real and shown[channel, "simulated"] == 3
    assert [line.split()[-1] == "–" for line in lines[1:8:2]] == [True, False, True, False], "no distance to nothing"
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_realism_refuses(tmp_path):
    write_images(tmp_path / "green", ["a"], ["green"])
    write_images(tmp_path / "red", ["a"], ["red"])
    write_images(tmp_path / "copy", ["a"], ["green"])
    common = ["--size", 16, "-o", tmp_path / "r.png"]
    for real, simulated, says in [
        (["green"], ["red"], "no channel has real and simulated planes of 16²"),
        (["green", "green"], ["red"], "given twice"),
        (["green", "copy"], ["green"], "a_green also lies in another folder"),
        (["absent"], ["green"], "absent is not a folder"),
    ]:
        folders = [*(tmp_path / name for name in real), "--simulated", *(tmp_path / name for name in simulated)]
        refuse("utils.tools.realism", "--real", *folders, *common, says=says)
    pair = ["--real", tmp_path / "green", "--simulated", tmp_path / "copy"]
    refuse("utils.tools.realism", *pair, "--size", 15, "-o", tmp_path / "r.png", says="--size 15 is out of range")
    refuse("utils.tools.realism", *pair, "--size", 16, "-o", tmp_path, says="is a folder")
    (tmp_path / "copy" / "a_green.png").write_bytes((tmp_path / "green" / "a_green.png").read_bytes()[:-30])
    refuse("utils.tools.realism", *pair, *common, says="a_green.png is cut short")
    assert not (tmp_path / "r.png").exists()

"""utils.data.image_statistics against NumPy, and on images of known content."""

import numpy as np
import pytest

from utils.data.image_statistics import image_statistics, statistic_names
from utils.opencv import cv2

RGBY = ("red", "green", "blue", "yellow")


def measured(image, channels=RGBY):
    return dict(zip(statistic_names(channels), image_statistics(image, channels), strict=True))


def smooth_noise(shape=(64, 64, 4), seed=0):
    noise = np.random.default_rng(seed).gamma(2, 20, shape).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 1.5), 0, 255).astype(np.uint8)


def test_levels_and_correlations_are_numpys():
    """Of an image that is not shrunk."""
    image = smooth_noise()
    found, pixels = measured(image), image.reshape(-1, 4) / 255
    low, high = np.quantile(pixels, [0.05, 0.99], axis=0, method="inverted_cdf")
    for number, channel in enumerate(RGBY):
        assert 2 ** found[f"{channel} brightness"] == pytest.approx(pixels[:, number].mean() + 1 / 255, abs=1e-5)
        assert 2 ** found[f"{channel} background"] == pytest.approx(low[number] + 4 / 255, abs=1e-5)
        assert 2 ** found[f"{channel} contrast"] == pytest.approx((high - low)[number] + 1 / 255, abs=1e-5)
    expected = np.corrcoef(pixels, rowvar=False)
    assert found["red–yellow correlation"] == pytest.approx(expected[0, 3], abs=1e-3)
    assert found["green–blue correlation"] == pytest.approx(expected[1, 2], abs=1e-3)


def test_white_noise_is_as_sharp_as_the_kernel_says():
    """The squares of the Laplacian's kernel, 1 1 -4 1 1, sum to 20."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 1), dtype=np.uint8)
    assert measured(image, ("green",))["green sharpness"] == pytest.approx(np.log2(20), abs=0.05)
    blurred = [measured(cv2.GaussianBlur(image, (0, 0), sigma)[..., None], ("green",)) for sigma in (1, 2)]
    assert blurred[1]["green sharpness"] < blurred[0]["green sharpness"] < np.log2(20) - 3


def test_nuclei_are_counted_and_measured():
    image = np.full((128, 128, 1), 10, np.uint8)
    for x, y in ((20, 20), (60, 30), (100, 90), (30, 100)):
        cv2.rectangle(image, (x, y), (x + 15, y + 15), 200, -1)
    found = measured(image, ("blue",))
    assert 2 ** found["nuclei"] == pytest.approx(4 + 1)
    assert 2 ** found["nuclear size"] == pytest.approx((16 / 128) ** 2 + 0.001, rel=0.3)
    assert found["nuclear contrast"] > 3
    empty = np.random.default_rng(0).integers(8, 12, (128, 128, 1), dtype=np.uint8)
    assert measured(empty, ("blue",))["nuclei"] == 0
    assert "nuclei" not in measured(empty, ("green",))


def test_saturated_pixels_are_counted_in_the_whole_image():
    image = np.full((200, 200, 1), 100, np.uint8)
    image[::2, ::10] = 255
    assert 2 ** measured(image, ("red",))["red saturation"] == pytest.approx(0.05 + 0.01, abs=1e-4)


def test_16_bits_measure_as_8_bits():
    image = smooth_noise((96, 80, 4))
    eight, sixteen = measured(image), measured(image.astype(np.float32) / 255)
    assert list(sixteen.values()) == pytest.approx(list(eight.values()), abs=0.1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (5, 3), (64, 64), (700, 90)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_any_image_gives_numbers(shape, dtype):
    white = 255 if dtype is np.uint8 else 1
    rng = np.random.default_rng(0)
    for image in (np.zeros((*shape, 4)), np.full((*shape, 4), white), rng.uniform(0, white, (*shape, 4))):
        image = image.astype(dtype)
        image.flags.writeable = False  # as those of packed files
        found = image_statistics(image, RGBY)
        assert len(found) == len(statistic_names(RGBY)) == 33 and np.isfinite(found).all()

"""Packages that Kaggle's image lacks, or has in other versions, come from wheels."""

import pytest
from conftest import ROOT

from utils.errors import InputError
from utils.kaggle import wheels


@pytest.fixture
def install(tmp_path):
    def install(requirements, *packed):
        (tmp_path / "requirements.txt").write_text(requirements)
        for name in packed:
            (tmp_path / name).write_text("")
        wheels.install(tmp_path / "requirements.txt", tmp_path, tmp_path / "target")

    return install


def test_a_package_without_a_wheel_is_named_with_its_fix(install):
    with pytest.raises(InputError, match="lacks hpa-nothing,.*--wheel hpa-nothing$"):
        install("numpy>=1,<9\nhpa-nothing>=1,<2  # why\nmunch-nothing>=1,<2\n", "munch_nothing-1.0-py3-none-any.whl")


def test_an_outdated_package_is_replaced_if_there_is_a_wheel(install):
    with pytest.raises(InputError, match="pip cannot install numpy .*upload the wheels again"):  # the wheel is empty
        install("numpy>=99,<100\n", "numpy-99.0-py3-none-any.whl")


def test_versions_outside_the_bounds_are_reported_and_used(install, capsys):
    install("numpy>=1.0,<1.1\ntorch>=2.6,<99\npytest>=1,<2\nopencv-python-headless>=1,<2\n")
    out = capsys.readouterr().out
    assert "the image has every package" in out and f"numpy {__import__('numpy').__version__} (<1.1,>=1.0)" in out
    assert "torch" not in out and "pytest" not in out and "opencv-python-headless" in out


def test_opencv_counts_under_any_of_its_names(monkeypatch):
    def version(name):
        if name != "opencv-contrib-python":
            raise wheels.PackageNotFoundError(name)
        return "4.10.0"

    monkeypatch.setattr(wheels, "version", version)
    assert wheels.installed("opencv-python-headless") == "4.10.0" and wheels.installed("numpy") is None


def test_every_bound_of_the_kit_is_read():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    known = wheels.bounds(ROOT / "requirements.txt")
    assert len(known) == len(lines) > 20 and set(wheels.LACKED + wheels.UNUSED) <= set(known)

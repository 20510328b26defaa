"""What the kit needs and Kaggle's image lacks or has too old, as wheels: made where there is an index, installed where there is none.

Kaggle's image is Google Colab's (github.com/googlecolab/backend-info, pip-freeze.gpu.txt) and what github.com/Kaggle/docker-python
adds (kaggle_requirements.txt). The kernel's side, from `lacking` on, needs nothing but the standard library.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from utils.errors import InputError, listing, plural

# All pure Python, 300 KB together. The image has a filelock, but of 3.x, with which the folder of a training killed by kill -9 was
# found locked when the same command was to go on (tests/kills.py).
LACKED = ("pretrainedmodels", "munch", "iterative-stratification", "filelock")
AT_HOME = (
    "imagecodecs",
    "jupyter",
    "ipywidgets",
    "nbclient",
    "pytest",
    "pytest-xdist",
    "hypothesis",
)  # of no use in the kernel
PYTHONS = ("3.11", "3.12")  # of Kaggle's images since 2025; wheels with compiled code are needed for each
MODULES = {  # where a package is imported under another name
    "opencv-python-headless": "cv2", "pillow": "PIL", "scikit-learn": "sklearn", "iterative-stratification": "iterstrat",
}  # fmt: skip
_LINE = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+),<([0-9.]+)")


def bounds(requirements):
    """{package: (least version, first version that is too new)}, texts, of the lines ``name>=1.2,<2`` of a requirements file."""
    found = [_LINE.match(line) for line in Path(requirements).read_text(encoding="utf-8").splitlines()]
    return {match[1]: (match[2], match[3]) for match in found if match}


def check_names(requirements, names):
    """Raise InputError unless a requirements file asks for all of the packages `names`."""
    known = bounds(requirements)
    if strange := [name for name in names if name not in known]:
        raise InputError(f"--wheel {strange[0]}: the kit does not ask for it; give one of {listing(sorted(known), 40)}")


def make(requirements, folder, more=()):
    """Write wheels of `LACKED` and the packages `more` into `folder`, of versions within the bounds of the `requirements` file, with
    pip and whatever index it is set up with. What has no wheel for every Python is fetched for each of `PYTHONS`. Raises InputError
    where pip cannot get one."""
    known = bounds(requirements)
    for name in dict.fromkeys((*LACKED, *more)):
        wanted = f"{name}>={known[name][0]},<{known[name][1]}"
        if name in LACKED:  # pretrainedmodels is published as source, which has to be built once
            _pip(name, "wheel", "--no-deps", "--wheel-dir", folder, wanted)
            continue
        for python in PYTHONS:
            _pip(name, "download", "--no-deps", "--only-binary=:all:", "--python-version", python, "--platform", "manylinux_2_28_x86_64",
                 "--platform", "manylinux2014_x86_64", "--dest", folder, wanted)  # fmt: skip


def _pip(name, *words):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, errors="replace")
    if done.returncode:
        said = (
            [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            or done.stderr.splitlines()
            or ["no reason"]
        )
        raise InputError(
            f"pip cannot get a wheel of {name} ({said[-1][:160]}); is there a network, or PIP_FIND_LINKS with it?"
        )


def lacking(requirements):
    """The packages of a requirements file that this Python has not got, but for `AT_HOME`."""
    return [name for name in bounds(requirements) if name not in AT_HOME and installed(name) is None]


def installed(name):
    """The version of a package as text, or None. Any package that brings the same module will do: OpenCV comes under four names."""
    try:
        return version(name)
    except PackageNotFoundError:
        pass
    module = MODULES.get(name, name.replace("-", "_"))
    if importlib.util.find_spec(module) is None:
        return None
    return getattr(importlib.import_module(module), "__version__", "0")


def untested(requirements):
    """What is installed in versions outside the bounds, in words: ["scikit-learn 1.2.2 (1.5 to 1.10)"]."""
    told = []
    for name, (least, over) in bounds(requirements).items():
        have = None if name in AT_HOME else installed(name)
        if have and not _number(least) <= _number(have) < _number(over):
            told.append(f"{name} {have} ({least} to {over})")
    return told


def _number(text):
    """A version to compare: (1, 2, 3) of "1.2.3+cu128"."""
    return tuple(map(int, re.findall(r"[0-9]+", text.partition("+")[0])[:3]))


def install(requirements, folder, target):
    """Install what the image lacks, or has too old, from the wheels in `folder` into `target`, which goes to the front of this
    process's path and of all those it starts; the image stays as it is. Prints what was done. What is too old and has no wheel is
    used as it is; raises InputError where something is lacking and has none."""
    there = {_normal(path.name.partition("-")[0]) for path in Path(folder).glob("*.whl")}
    names = lacking(requirements)
    if without := [name for name in names if _normal(name) not in there]:
        raise InputError(
            f"this image lacks {listing(without, 20)}, and there is no wheel of it; upload anew with "
            f"{' '.join(f'--wheel {name}' for name in without if name not in LACKED) or 'the wheels'}"
        )
    known = {name: installed(name) for name in bounds(requirements) if _normal(name) in there}
    old = [name for name, have in known.items() if have and _number(have) < _number(bounds(requirements)[name][0])]
    if names + old:
        _install(names + old, folder, target)
        told = ", ".join(f"{name} {installed(name)}" for name in names + old)
        what = "that the image lacks or has too old" if old else "that the image lacks"
        print(f"{plural(len(names + old), 'package')} {what} installed: {told}")
    else:
        print("the image has every package that the kit needs")
    if differing := untested(requirements):
        print(f"versions outside those tested (in brackets), used as they are: {', '.join(differing)}")


def _install(names, folder, target):
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
             "--find-links", folder, "--target", target, *names]  # fmt: skip
    own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    own["PIP_CONFIG_FILE"] = os.devnull  # Kaggle's settings may name a place of its own to install to
    done = subprocess.run(list(map(str, words)), capture_output=True, errors="replace", env=own)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason"])[-1][:160]
        raise InputError(f"pip cannot install {listing(names, 20)} from {folder} ({said}); upload the wheels anew")
    sys.path.insert(0, str(target))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))
    importlib.invalidate_caches()


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()

"""Wheels for packages that are missing or outdated on Kaggle: downloaded at home, installed in the kernel.

`install` runs in the kernel and needs only the standard library and packaging, which matplotlib requires anyway."""

import importlib
import os
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.errors import InputError, first_line, listing

# Kaggle's image is Google Colab's (github.com/googlecolab/backend-info, pip-freeze.gpu.txt) with the packages that
# github.com/Kaggle/docker-python adds (kaggle_requirements.txt). It lacks the packages in LACKED, all pure Python.
# Its filelock 3.x considers the folder of a killed training locked.
LACKED = ("pretrainedmodels", "munch", "iterative-stratification", "filelock")
# Of the requirements, those that a kernel does without.
UNUSED = ("imagecodecs", "jupyter", "ipywidgets", "nbclient", "pytest", "pytest-xdist", "hypothesis", "pycocotools")
PYTHONS = ("3.11", "3.12")  # Python versions of its images since 2025; compiled wheels are needed for each
SAME = {"opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")}


def bounds(requirements):
    """Read a requirements file: -> {package: SpecifierSet}."""
    lines = [line.partition("#")[0].strip() for line in Path(requirements).read_text(encoding="utf-8").splitlines()]
    return {found.name: found.specifier for found in map(Requirement, filter(None, lines))}


def make(requirements, folder, more=()):
    """Write wheels of `LACKED` and of the packages `more` into `folder`, in versions that the `requirements` file
    allows. Raises InputError for a package that the file does not name, and if pip cannot get one."""
    known = bounds(requirements)
    if unknown := [name for name in more if name not in known]:
        raise InputError(f"--wheel {unknown[0]}: not a package of the kit; give one of {listing(sorted(known), 40)}")
    compiled = ["--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"]
    for name in dict.fromkeys((*LACKED, *more)):
        failure = f"pip cannot get a wheel of {name} ({{}}); check the network, or set PIP_FIND_LINKS"
        wanted = f"{name}{known[name]}"
        if name in LACKED:  # pretrainedmodels is published as source only: pip builds its wheel
            _pip(failure, "wheel", "--no-deps", "--wheel-dir", folder, wanted)
        else:
            for python in PYTHONS:
                _pip(failure, "download", "--no-deps", *compiled, "--python-version", python, "--dest", folder, wanted)


def _pip(failure, *words, env=None):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, errors="replace", env=env)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
        raise InputError(failure.format(first_line(errors[-1])))


def installed(name):
    """-> the installed version of a package (str), or None. Any of OpenCV's four packages is accepted."""
    for other in (name, *SAME.get(name, ())):
        with suppress(PackageNotFoundError):
            return version(other)
    return None


def install(requirements, folder, target):
    """Install packages that the image lacks, or has in an untested version, from wheels in `folder`; print them.

    They go to the folder `target`, which this process and its child processes search first. An untested version without
    a wheel is used as it is. Raises InputError for a package that is in neither the image nor the wheels."""
    known = {name: range_ for name, range_ in bounds(requirements).items() if name not in UNUSED}
    packed = {canonicalize_name(path.name.partition("-")[0]) for path in Path(folder).glob("*.whl")}
    new = [name for name in known if canonicalize_name(name) in packed and not _fits(name, known)]
    if without := [name for name in known if name not in new and installed(name) is None]:
        fix = " ".join(f"--wheel {name}" for name in without if name not in LACKED) or "the wheels"
        raise InputError(f"the image lacks {listing(without, 20)}, and no wheel was uploaded; upload again with {fix}")
    if new:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        env["PIP_CONFIG_FILE"] = os.devnull  # Kaggle's settings may name another target folder
        failure = f"pip cannot install {listing(new, 20)} from {folder} ({{}}); upload the wheels again"
        places = ["--no-index", "--no-deps", "--find-links", folder, "--target", target]
        _pip(failure, "install", *places, *new, env=env)
        sys.path.insert(0, str(target))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))
        importlib.invalidate_caches()
        print(f"installed from the wheels: {', '.join(f'{name} {installed(name)}' for name in new)}")
    else:
        print("the image has every package that the kit needs")
    if other := [f"{name} {installed(name)} ({known[name]})" for name in known if not _fits(name, known)]:
        print(f"untested versions (tested ones in brackets), used as they are: {', '.join(other)}")


def _fits(name, known):
    found = installed(name)
    return found is not None and known[name].contains(found, prereleases=True)

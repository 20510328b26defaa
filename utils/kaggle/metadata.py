"""What Kaggle's client wants to know of a data set and of a kernel: dataset-metadata.json and kernel-metadata.json.

Rules: github.com/Kaggle/kaggle-cli, docs/datasets_metadata.md and docs/kernels_metadata.md; the client itself (2.2) wants at least
six characters for a data set's name, where the page says three.
"""

import re

from utils.errors import InputError
from utils.kaggle import COMPETITION

SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
KERNEL = "-kernel"  # what a kernel is called after the data set's name
LEAST, MOST = 6, 50 - len(KERNEL)  # characters of a data set's name, so that the kernel's fits into 50 too
NOTEBOOK = "kaggle_kernel.ipynb"


def check_user(user):
    """Raise InputError unless `user` can be a name in Kaggle's addresses."""
    if not (SLUG.fullmatch(user) and 2 <= len(user) <= 50):
        raise InputError(f"--user {user!r} is no name of a Kaggle user; give what stands in kaggle.com/<user>")


def check_slug(slug):
    """Raise InputError unless a data set can be called `slug`, and its kernel after it."""
    if not (SLUG.fullmatch(slug) and LEAST <= len(slug) <= MOST):
        raise InputError(
            f"--name {slug!r} cannot be a data set's name on Kaggle; give {LEAST} to {MOST} small letters and digits, words joined by -"
        )


def check_kernel(source):
    """Raise InputError unless `source` names a kernel: user/slug."""
    user, _, slug = source.partition("/")
    if not (SLUG.fullmatch(user) and SLUG.fullmatch(slug)):
        raise InputError(
            f"--go-on-from {source!r} is no kernel; give user/name as in its address, kaggle.com/code/user/name"
        )


def title_of(slug):
    """A title that Kaggle turns into just this slug: small letters, spaces to dashes."""
    return slug.replace("-", " ")


def dataset(user, slug):
    """The content of dataset-metadata.json. Private unless it is created with --public; exactly one licence is asked for."""
    return {"title": title_of(slug), "id": f"{user}/{slug}", "licenses": [{"name": "other"}]}


def kernel(user, slug, sources=()):
    """The content of kernel-metadata.json: a private notebook with GPUs and without internet, on the data set, the competition and
    the output of the kernels `sources`."""
    return {
        "id": f"{user}/{slug}{KERNEL}", "title": title_of(slug + KERNEL), "code_file": NOTEBOOK, "language": "python",
        "kernel_type": "notebook", "is_private": True, "enable_gpu": True, "enable_tpu": False, "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",  # Kaggle's word for its T4 x2; without it a P100, which newer torch builds know no more
        "dataset_sources": [f"{user}/{slug}"], "competition_sources": [COMPETITION], "kernel_sources": list(sources),
        "model_sources": [],
    }  # fmt: skip

"""The networks, one a file. Each file has `build(classes, channels, stem)` and returns logits (B, classes)."""

from utils.errors import InputError
from utils.models import gapnet_pl, se_resnext50

NETWORKS = {"se_resnext50_32x4d": se_resnext50.build, "gapnet_pl": gapnet_pl.build}


def build(name, classes, channels, stem="mean"):
    """A network with random weights.

    `classes`: outputs. `channels`: input planes. `stem`: how a first convolution made for RGB is widened; networks
    made for any number of channels have no use for it.
    """
    if name not in NETWORKS:
        raise InputError(f"no network is called {name!r}; there are {', '.join(NETWORKS)}")
    return NETWORKS[name](classes=classes, channels=channels, stem=stem)

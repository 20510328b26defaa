"""Which samples cannot be used: a channel missing, damaged, or of another size than the others."""

from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from utils import cores
from utils.errors import InputError
from utils.images import CHANNELS, image_size, read_plane


def unusable(found, ids):
    """Every channel of every sample is decoded: -> {Id: what is wrong}, only of those with something wrong.

    found: {Id: {channel: path}} of `scan_folders`. A channel is missing where other samples have it.
    """
    wanted = [name for name in CHANNELS.values() if any(name in found.get(id_, {}) for id_ in ids)]
    with ThreadPoolExecutor(cores()) as pool:  # OpenCV lets go of the interpreter while it decodes
        told = pool.map(lambda id_: _fault(found.get(id_), wanted), ids)
        told = tqdm(told, total=len(ids), desc="decoding every image", unit="sample", disable=None, leave=False)
        return {id_: why for id_, why in zip(ids, told, strict=True) if why}


def _fault(sample, wanted):
    if sample is None:
        return "no image"
    if missing := [name for name in wanted if name not in sample]:
        return f"{', '.join(missing)} missing"
    shapes = set()
    try:
        for name in wanted:
            image_size(sample[name])
            shapes.add(read_plane(sample[name]).shape)
    except InputError as error:
        return str(error)
    if len(shapes) > 1:
        return "channels of unequal size: " + ", ".join(f"{width}x{height}" for height, width in sorted(shapes))
    return None

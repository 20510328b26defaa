"""Which samples cannot be used: a channel missing, damaged, or of another size than the others."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from tqdm import tqdm

from utils.data.images import CHANNELS, UNREADABLE, image_size, read_plane
from utils.errors import TOO_MANY_FILES, InputError
from utils.parallel import cores


def unusable(found, ids):
    """Every channel of every sample is decoded: -> {Id: what is wrong}, only of those with something wrong.

    found: {Id: {channel: path}} of `scan_folders`; ids: samples of one source that have a file there. A channel is missing
    where most of them have it. JPEG says nothing of damage inside its pixels: there only a file that is cut short is found.
    """
    have = Counter(name for id_ in ids for name in found[id_])
    wanted = [name for name in CHANNELS.values() if 2 * have[name] > len(ids)]
    with ThreadPoolExecutor(cores()) as pool:  # OpenCV lets go of the interpreter while it decodes
        told = pool.map(lambda id_: _fault(found[id_], wanted), ids)
        told = tqdm(told, total=len(ids), desc="decoding every image", unit="sample", disable=None, leave=False)
        return {id_: why for id_, why in zip(ids, told, strict=True) if why}


def _fault(sample, wanted):
    if missing := [name for name in wanted if name not in sample]:
        return f"{', '.join(missing)} missing"
    shapes = set()
    try:
        for name in wanted:
            image_size(sample[name])
            shapes.add(read_plane(sample[name]).shape)
            _check_tiff(sample[name])
    except InputError as error:
        return str(error)
    if len(shapes) > 1:
        return "channels of unequal size: " + ", ".join(f"{width}x{height}" for height, width in sorted(shapes))
    return None


def _check_tiff(path):
    """OpenCV gives wrong pixels of a damaged compressed TIFF without a word; Pillow raises."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return
    try:
        with Image.open(path) as image:
            image.load()
    except UNREADABLE as error:
        if getattr(error, "errno", None) in TOO_MANY_FILES:
            raise
        raise InputError(f"{path} is damaged and cannot be decoded ({str(error)[:60]}); fetch it again") from None

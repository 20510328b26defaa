"""From disk to a batch in memory: the kit's samples, packed and not, and a plain Dataset's."""

import math
from functools import partial

from utils.data.loader import batches, make_loader
from utils.tools.benchmark.bench import draw_labels, repeated
from utils.tools.benchmark.plain import PlainDataset, plain_loader
from utils.tools.benchmark.timing import one_core, take_turns

BATCH = 16
LONG = 0.4  # seconds that a pass over the samples takes at least
PURPOSES = ("prediction", "training")
OURS = {  # way: the images that `Samples` reads from
    "packed": lambda bench: bench.packed("raw"),
    "packed, zstd": lambda bench: bench.packed("zstd"),
    "PNG files": lambda bench: bench.decoded(),
}
PLAIN = {"plain Dataset, cv2": "cv2", "plain Dataset, PIL": "PIL"}  # way: reader
WAYS = [*OURS, *PLAIN]
REFERENCE = "plain Dataset, cv2"
AIMS = "aims for packed samples of 512²: 0.5 ms for prediction, 5 ms for training"


def measure(bench):
    """Medians of passes that take turns. `ms`: a sample, read, changed and collated by one thread of one process. `a_second`:
    from the loader with its usual processes (the kit's prediction: threads). Ratios: how many times as fast as REFERENCE."""
    rows = {way: {"way": way} for way in WAYS}
    for purpose in PURPOSES:
        with one_core():
            counts = dict.fromkeys(WAYS, len(bench.files))
            seconds = passes(bench, purpose, 0, counts, repeats=1)
            counts = {way: count * max(1, min(64, math.ceil(LONG / seconds[way]))) for way, count in counts.items()}
            seconds = passes(bench, purpose, 0, counts, bench.args.repeats)
        for way in WAYS:
            rows[way][f"{purpose}_ms"] = 1000 * seconds[way] / counts[way]
        seconds = passes(bench, purpose, bench.workers, counts, bench.args.repeats)
        for way in WAYS:
            rows[way][f"{purpose}_a_second"] = counts[way] / seconds[way]
    for row in rows.values():
        for purpose in PURPOSES:
            ms, a_second = f"{purpose}_ms", f"{purpose}_a_second"
            row[f"{ms}_ratio"] = rows[REFERENCE][ms] / row[ms]
            row[f"{a_second}_ratio"] = row[a_second] / rows[REFERENCE][a_second]
    return {
        "size": bench.args.size, "samples": len(bench.files), "batch": BATCH, "workers": bench.workers,
        "compared_with": REFERENCE, "rows": list(rows.values()),
    }  # fmt: skip


def passes(bench, purpose, workers, counts, repeats):
    """{way: median seconds of a pass over counts[way] samples}."""
    ways = {way: partial(whole_pass, make(bench, way, purpose, count, workers)) for way, count in counts.items()}
    return take_turns(ways, repeats, bench.device, f"loading for {purpose}, {workers or 'nothing'} beside")


def make(bench, way, purpose, count, workers):
    """The loader of one way, over `count` samples."""
    training = purpose == "training"
    if way in PLAIN:
        files = repeated(bench.decoded(), count).files
        dataset = PlainDataset(files, draw_labels(count), bench.args.size, training, PLAIN[way])
        return plain_loader(dataset, BATCH, workers, training)
    samples = bench.samples(repeated(OURS[way](bench), count), augmented=training)
    return make_loader(samples, BATCH, workers, bench.device, shuffle=training)


def whole_pass(loader):
    if hasattr(loader, "order"):
        loader.order.epoch += 1  # other augmentation each time, as in training
    for _ in batches(loader):
        pass


def report(found):
    beside = f"{found['workers']} process{'' if found['workers'] == 1 else 'es'} or threads"
    print(
        f"loading: {found['samples']} samples of {found['size']}² in batches of {found['batch']}, on one core and by a loader with"
    )
    print(f"{beside}, and how many times as fast as the {found['compared_with']}")
    print(f"{'':19}{'prediction':>15}{'training':>15}{'prediction':>15}{'training':>15}")
    print(f"{'':19}{'ms a sample':>15}{'ms a sample':>15}{'a second':>15}{'a second':>15}")
    for row in found["rows"]:
        cells = [f"{row[f'{p}_ms']:>8.2f}{row[f'{p}_ms_ratio']:>6.1f}×" for p in PURPOSES]
        cells += [f"{row[f'{p}_a_second']:>8,.0f}{row[f'{p}_a_second_ratio']:>6.1f}×" for p in PURPOSES]
        print(f"{row['way']:19}" + "".join(cells))
    print(AIMS)

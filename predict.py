"""Predict with trained folds: run directories, images -> predictions.csv

    python predict.py runs/chen --images input/test -o test.csv    # all folds
    python predict.py runs/chen/fold0 runs/chen/fold1 -o test.csv --tta 4
    python predict.py runs/chen --ids input/sample_submission.csv -o test.csv
    python predict.py runs/chen --images my_cells -o my_cells.csv --tta 1
    python predict.py runs/zoomed --crops 4 --tta 8 --tta-reduce max
    python predict.py runs/chen --images my_cells --names cells.csv
    python predict.py runs/chen --images my_cells --sheet cells.html
    python predict.py runs/chen/fold0 --images my_cells --embed cells.h5ad
    python predict.py runs/chen --images my_cells --cells c.csv --masks masks
    python predict.py runs/chen --images my_cells --without yellow
    python predict.py runs/chen --images my_cells --pixel-size 0.16
    python predict.py runs/chen/fold0 --images my_cells --benchmark
    torchrun --nproc-per-node 4 predict.py runs/chen -o test.csv     # 4 GPUs

Probabilities are averaged over flipped copies (test-time augmentation), over
the tiles of large images where the run was trained on crops, and over folds.
With --crops also over enlarged corners of each image. With --pixel-size, or a
column pixel_size in a table of images, they are rescaled so that cells are as
large as in training, and cut into tiles if they show more than it did. Images
unlike those that the networks were trained on are counted, with what is
unusual in them.

--names and --sheet compare them with thresholds.json: a table of the
locations by name, and a page with images that opens in any browser. --embed
writes the input of one network's last layer. --cells writes a score of each
cell and class: the probability of the image for cells that show the protein.
With --cell-score map or logit by the map of the class inside the cell, which
densenet121, resnet50, xception, se_resnext50_32x4d, …101_32x4d, many of timm
and all networks with --head attention have.

Nothing of the training augmentation is loaded here.
"""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils import distributed
from utils.cli import check_least, option_parser, run_script
from utils.data import cache, pixel_size
from utils.data.cache import open_images, warn_of_bits
from utils.data.crops import most_tiles
from utils.data.dataset import Normaliser, Samples
from utils.data.image_files import find_files, scan_folders
from utils.data.images import MISSABLE, load_sample, parse_channels
from utils.data.loader import make_loader, pick_workers
from utils.data.tables import check_ids, read_table
from utils.device import amp_dtype, describe_device, explain_out_of_memory
from utils.engine import cell_scores, embeddings, grad_cam, inference
from utils.engine.compiling import check_compiles, explaining_compile_errors
from utils.engine.stage_timing import measure_stages
from utils.engine.trained_networks import check_fold, fold_folders, load_networks, same_tta, without_channels
from utils.errors import InputError, listing, plural
from utils.files import check_outputs, write_csv
from utils.plots import location_sheet
from utils.plots.image_sheets import RGB
from utils.runs import cells_file, location_table, unlike_training
from utils.runs.config import AMP, MOST_BATCH
from utils.runs.predictions import write_predictions
from utils.runs.thresholds_file import find_thresholds, read_held_out_f1, read_rule

MOST_ON_SHEET = 1000  # images: 60 MB


def parse_args():
    parser = option_parser(__doc__)
    arg = parser.add_argument
    arg("runs", nargs="+", metavar="RUN", help="run folder, fold folder or checkpoint; several are averaged")
    arg("--images", action="append", help="folder of images or images.csv, may be repeated (default: input/test)")
    text = "red, yellow or both, separated by a comma: do not read this stain, which counts as black"
    arg("--without", action="append", metavar="CHANNEL", help=text)
    text = (
        "micrometres of a pixel of the images; 0: do not rescale (default: the column pixel_size of images.csv, else 0)"
    )
    arg("--pixel-size", type=float, metavar="UM", help=text)
    arg("--ids", metavar="CSV", help="which Ids, in which order (default: all images, sorted)")
    fold = "only rows of this fold, if --ids is a folds.csv; -2: external test set"
    arg("--fold", type=int, metavar="K", help=fold)
    arg("--tta", type=int, choices=inference.TTA, help="TTA views per image (default: the run's)")
    arg(
        "--tta-reduce",
        choices=["mean", "max"],
        default="mean",
        help="how TTA views, and --crops, are combined (default: %(default)s)",
    )
    crops = "1: the whole image; 4: its corners, two thirds of its sides; 5: and its centre (default: %(default)s)"
    arg("--crops", type=int, choices=[1, 4, 5], default=1, help=crops)
    arg("--batch-size", type=int, help="images in one forward pass (default: as in training, on a CPU fewer)")
    arg("--amp", choices=AMP, help="16-bit arithmetic (default: as in training)")
    arg("--compile", action="store_true", help="compile the networks; takes minutes at first")
    arg("--device", default="auto", help="cuda, cuda:1, cpu, … (default: %(default)s)")
    arg("--workers", type=int, default=-1, help="DataLoader workers (default: by the machine)")
    packed = "where packed images are kept (default: %(default)s)"
    arg("--cache", default=cache.DEFAULT_FOLDER, metavar="FOLDER", help=packed)
    arg("--no-cache", action="store_true", help="decode the images instead of packing them")
    arg("--benchmark", action="store_true", help="measure seconds per image by stage instead (Chen, Table III)")
    out = "where to write (default: predictions.csv; with --benchmark: only on the screen)"
    arg("-o", "--out", metavar="CSV", help=out)
    arg = parser.add_argument_group("names, images and embeddings").add_argument
    arg("--names", metavar="CSV", help="also write the locations by name, with probability and held-out F1")
    arg("--sheet", metavar="HTML", help="also write a page of images, locations, and where the network looks")
    text = "images on the page, the first ones (default: %(default)s)"
    arg("--sheet-limit", type=int, default=100, metavar="N", help=text)
    text = "thresholds.json, or one number for all classes (default: the run's)"
    arg("--thresholds", metavar="JSON|NUMBER", help=text)
    text = "average --names over images alike in this column of --ids, or of a table of images, such as a well"
    arg("--combine", metavar="COLUMN", help=text)
    arg("--embed", metavar="FILE", help="also write embeddings, to an .h5ad (needs anndata) or .npz file")
    arg = parser.add_argument_group("cells").add_argument
    arg("--cells", metavar="CSV", help="also write scores of each cell of the images")
    text = "their label images <Id>.png (default: segmented and written to <CSV>_masks)"
    arg("--masks", metavar="FOLDER", help=text)
    text = "image: the image's; green: that, for cells with protein; map: it times the class map in the cell; logit: the map alone"
    text += " (default: %(default)s)"
    arg("--cell-score", choices=cell_scores.SCORES, default=cell_scores.SCORES[0], help=text)
    args = parser.parse_args()
    args.without = sorted({name.strip() for text in args.without or () for name in text.split(",")})
    args.out = args.out or (None if args.benchmark else "predictions.csv")
    return args


def main():
    args = parse_args()
    check_options(args)
    context, device = distributed.init(args.device)
    if args.compile:
        check_compiles(device)
    used = {}
    with explain_out_of_memory(device, lambda: saving_memory(**used)):
        predict(args, context, device, used)


def check_options(args):
    check_outputs([args.out, args.names, args.sheet, args.embed, args.cells])
    check_least(args, batch_size=(1, MOST_BATCH), workers=-1, sheet_limit=(1, MOST_ON_SHEET))
    pixel_size.check_pixel_size("--pixel-size", args.pixel_size)
    if other := [name for name in args.without if name not in MISSABLE]:
        raise InputError(f"--without {other[0] or repr('')} is not possible; give red, yellow or red,yellow")
    if args.fold is not None and not args.ids:
        raise InputError("--fold needs the table of folds; add --ids input/folds.csv")
    if args.benchmark and (args.names or args.sheet or args.embed or args.cells):
        raise InputError("--benchmark predicts nothing; leave out --names, --sheet, --embed and --cells")
    if args.masks and not args.cells:
        raise InputError("--masks names the cells to score; add --cells cells.csv")
    if args.cells and args.crops > 1:
        raise InputError("--cells needs each image whole or in tiles; leave out --crops")
    if args.thresholds and not (args.names or args.sheet):
        raise InputError("--thresholds is for locations by name; add --names cells.csv or --sheet cells.html")
    if args.combine and not (args.names and table_of_images(args)):
        raise InputError(f"--combine {args.combine} needs --names, and a table with this column as --ids or --images")
    if args.embed:
        embeddings.check_file(args.embed)


def table_of_images(args):
    """The table of --ids, else the first one of --images, else None."""
    return args.ids or next((path for path in args.images or () if Path(path).is_file()), None)


def saving_memory(networks=2, chunk=1):
    """What to do when memory runs out with these networks and images at once."""
    ways = [f"--batch-size {chunk // 2}"] * (chunk > 1) + ["fewer folds at once"] * (networks > 1)
    return f"give {' or '.join(ways) or '--device cpu'}"


def predict(args, context, device, used):
    """used: takes up what of memory depends on."""
    networks, configs = load_networks(args.runs, device)
    if args.without:
        configs = [without_channels(config, args.without) for config in configs]
        missing = f"without {' and '.join(args.without)}, black in every image"
        print(f"{missing}; images unlike the training images are not counted")
    config = configs[0]
    check_runs(args, networks, configs)
    decisions = read_decisions(args, config.class_names) if args.names or args.sheet else None
    mapped = args.cells and args.cell_score in cell_scores.OF_MAPS and cell_scores.with_maps(networks, configs)
    last_layer = embeddings.find_layer(networks, config) if args.embed else None
    tta = args.tta or same_tta(args.runs, configs)
    amp = amp_dtype(args.amp or config.amp, device)
    batch_size = args.batch_size or config.batch_size
    chunk = args.batch_size or inference.pick_chunk(batch_size, config.size, device)
    used |= {"networks": len(networks), "chunk": chunk}

    channels = parse_channels(config.channels)
    watch = None if args.benchmark or args.without else unlike_training.watch(fold_folders(args.runs), channels.names)
    found = find_images(args, channels)
    images, sizes, configs = open_at_scale(args, found, channels, configs, context)
    samples = Samples(images, channels, config.size, configs[0].fit, config.normalise, crops=args.crops)
    rescaled = isinstance(images, pixel_size.RescaledImages)
    samples.watch = watch.middles(config.size) if watch and rescaled else watch
    tiles = max(args.crops, most_tiles(sizes, config.size, configs[0].fit))
    normalisers = [Normaliser(channels.mix, c.normalise, c.mean, c.std, device, amp) for c in configs]
    if args.benchmark:
        times = measure_stages(samples, networks[0].eval(), normalisers[0], device, amp, tta, tiles, chunk)
        if args.out:
            write_csv(args.out, times)
            print(f"-> {args.out}")
        return
    if context.is_main:
        warn_of_bits(images, config.bits, "train with --bits")
    cells = None
    if args.cells:
        how = args.cell_score, channels.names.index("green"), config.activation, [each.grid for each in mapped or ()]
        cells = cell_scores.CellScorer(images, configs[0].fit, config.size, find_labels(args, found), *how)
        samples.watch = cells.watching(samples.watch)
    workers = pick_workers(args.workers, device, context)
    loader = make_loader(samples, max(1, batch_size // tiles), workers, device, context=context)
    counts = plural(len(networks), "network"), plural(len(found.ids), "image"), plural(tta, "TTA view")
    crops = f" of {args.crops} crops" if args.crops > 1 else ""
    print(f"{counts[0]} ({config.model}), {', '.join(counts[1:])}{crops} each")
    print(f"on {context.describe()}{describe_device(device, amp)}")

    started = time.time()
    compiling = explaining_compile_errors(config.model) if args.compile else contextlib.nullcontext()
    with compiling, tqdm(total=len(found.ids), desc="predicting", unit="img", disable=None) as bar:
        views = {"tta": tta, "reduce": args.tta_reduce, "activation": config.activation, "chunk": chunk}
        views["reduce_tiles"] = args.tta_reduce if args.crops > 1 else "mean"
        how = {"bar": bar, "context": context, "compiled": args.compile, "cells": cells}
        networks_or_maps = mapped or networks
        rows, probabilities = inference.predict(networks_or_maps, normalisers, loader, device, amp, **views, **how)
    seconds = time.time() - started
    ids = [found.ids[row] for row in rows]
    if context.is_main:
        write_predictions(args.out, ids, probabilities, config.class_names)
    print(f"{plural(len(ids), 'image')} in {seconds:.1f} s, {len(ids) / seconds:.1f} img/s -> {args.out}")
    of_cells = write_cells(args, ids, cells.cells(context), config.class_names, context) if cells else None
    unlike = watch.judge(context) if watch else None
    samples.watch = None  # --embed reads the images once more
    if watch:
        print(unlike_training.describe(ids, unlike))
        if wider := watch.nuclei_wider():
            fix = "check the pixel size" if rescaled else "give --pixel-size, or expect less of the result"
            print(f"warning: nuclei are {wider:.2g} times as wide as in the training images; {fix}")
    if args.embed:
        inputs = embeddings.embed(networks[0], last_layer, normalisers[0], loader, device, amp, chunk, context)
        if context.is_main:
            about = {"fold": config.fold, "run": args.runs[0], "model": config.model, "layer": last_layer}
            about |= {"without": ",".join(args.without)}
            embeddings.write(args.embed, ids, inputs, probabilities, config.class_names, **about)
        print(f"input of {last_layer}, {plural(inputs.shape[1], 'number')} an image -> {args.embed}")
    if decisions and context.is_main:
        rule, f1 = decisions
        scores = rule.scores(probabilities.astype(str).astype(np.float64))  # as read from a file
        calls = location_table.call(config.class_names, scores, rule.thresholds, f1)
        if args.names:
            columns = {} if unlike is None else dict(unlike if found.groups is None else unlike[["unlike_training"]])
            count = location_table.write(args.names, calls, ids, found.groups, ",".join(args.without), **columns)
            print(f"{plural(count, 'location')} -> {args.names}")
        if args.sheet:
            outlined = of_cells and name_cells(args, found, of_cells, rule, calls)
            write_sheet(args, networks, configs, calls, found, images, unlike, outlined)
    context.barrier()  # no process leaves while another still listens to it


def check_runs(args, networks, configs):
    """Refuse what cannot be done with these networks."""
    if args.benchmark and (len(networks) > 1 or args.tta_reduce != "mean"):
        raise InputError(
            "--benchmark measures one network and the mean of its TTA views; name one fold, and no --tta-reduce"
        )
    if args.crops > 1 and configs[0].fit == "crop":
        raise InputError(f"{args.runs[0]} was trained on crops and predicts all tiles of an image; leave out --crops")
    if args.crops > 1 and args.pixel_size:
        raise InputError("--crops and --pixel-size exclude each other; leave one of them out")
    if args.fold is not None and args.fold >= 0:
        check_fold(configs, args.fold)
    if args.sheet:
        grad_cam.check_maps(networks, configs)
    if args.cells:
        cells_file.check_names(configs[0].class_names)
        if "green" not in parse_channels(configs[0].channels).names:
            raise InputError(f"--cells needs a network that sees green, not {configs[0].channels}")


class Found(NamedTuple):
    """The images to predict. scanned: of `scan_folders`. files: of each of `ids`, as the networks read them. groups: of
    `location_table.read_groups`, or None."""

    folders: list
    scanned: dict
    ids: list
    files: list
    groups: pd.Series | None


def find_images(args, channels):
    folders = args.images or ["input/test"]
    scanned = scan_folders(folders)
    ids = read_ids(args.ids, args.fold) if args.ids else sorted(scanned)
    if not ids:
        fix = "name the folder with --images, or list files of other names with python -m utils.tools.find_images"
        raise InputError(f"no <Id>_<colour>.png files in {', '.join(folders)}; {fix}")
    files = find_files(folders, ids, channels, scanned, MISSABLE)
    groups = location_table.read_groups(table_of_images(args), args.combine, ids) if args.combine else None
    return Found(folders, scanned, ids, files, groups)


def open_at_scale(args, found, channels, configs, context):
    """-> Images, their sizes (N, 2), and the configs with the fit by which the networks see them."""
    config, given = configs[0], 0 if args.crops > 1 else args.pixel_size
    scales = pixel_size.find_scales(given, found.folders, found.ids, config, args.runs[0])
    if scales is None:
        fit = "zoom" if args.crops > 1 else config.fit
        packed = None if args.no_cache or args.benchmark else args.cache
        what = found.files, channels.names, config.size, fit, packed, config.bits
        images, sizes = context.local_main_first(lambda: open_images(*what))
    else:
        images, sizes = pixel_size.open_rescaled(found.files, config, scales)
        fit = "crop" if config.fit == "crop" else "tiles"
    return images, sizes, [replace(each, fit=fit) for each in configs]


def find_labels(args, found):
    """-> the function from a row to the label image of its cells."""
    if args.masks:
        return cells_file.masks_reader(args.masks, found.ids, found.files)
    of_images = [found.scanned[id_].items() for id_ in found.ids]
    stains = [{name: path for name, path in of_image if name not in args.without} for of_image in of_images]
    sizes = [args.pixel_size] * len(stains)
    if args.pixel_size is None:
        sizes = pixel_size.read_pixel_sizes(found.folders, found.ids)
    return cells_file.segmenter(cells_file.masks_folder(args.cells), found.ids, stains, sizes)


def write_cells(args, ids, cells, classes, context):
    """-> `cells`, of `CellScorer.cells`."""
    if context.is_main:
        count = cells_file.write_cells(args.cells, ids, *zip(*cells, strict=True), classes)
        masks = "" if args.masks else f", {cells_file.masks_folder(args.cells)}"
        print(f"{plural(count, 'cell')} of {plural(len(ids), 'image')} -> {args.cells}{masks}")
    return cells


def name_cells(args, found, cells, rule, calls):
    """-> `location_sheet.name_cells` of the images on the page."""
    first = slice(args.sheet_limit)
    masks = args.masks or cells_file.masks_folder(args.cells)
    labels = cells_file.masks_reader(masks, found.ids[first], found.files[first])
    tables, scores = zip(*cells[first], strict=True)
    return location_sheet.name_cells(labels, tables, [calls._replace(scores=rule.scores(each)) for each in scores])


def read_decisions(args, classes):
    """-> DecisionRule, held-out F1 of each class."""
    thresholds = args.thresholds or find_thresholds(args.runs)
    return read_rule(thresholds, classes), read_held_out_f1(thresholds, classes)


def write_sheet(args, networks, configs, calls, found, images, unlike, cells):
    """Write the page of the first images. images: Images, as the networks read them. unlike: of `unlike_training.judge`, or None.
    cells: of `name_cells`, or None."""
    first = found.ids[: args.sheet_limit]
    channels = [name for name in RGB if all(name in found.scanned[id_] for id_ in first)]
    channels = channels or parse_channels(configs[0].channels).names

    def cards():
        for row, id_ in enumerate(tqdm(first, desc="drawing", unit="img", disable=None)):
            image = load_sample([found.scanned[id_][name] for name in channels], bits=configs[0].bits)
            map_ = grad_cam.mean_map(networks, configs, images[[row]], calls.order()[row, 0])
            rows, unusual = location_sheet.rows_of(calls, row), "" if unlike is None else unlike["reason"][row]
            more = unusual, cells and cells(row)
            yield location_sheet.card(id_, image, channels, images.inside(map_, row), rows, *more)

    location_sheet.write_sheet(args.sheet, args.runs, len(first), len(found.ids), cards(), args.without, bool(cells))
    print(f"{plural(len(first), 'image')} -> {args.sheet}")


def read_ids(path, fold=None):
    """Ids in the order of a table's rows; with `fold` only those of one fold of a folds.csv."""
    table = read_table(path, ["Id"] if fold is None else ["Id", "fold"], what="a list of Ids")
    check_ids(path, table["Id"])
    ids = table["Id"] if fold is None else table["Id"][table["fold"] == str(fold)]
    if not len(ids):
        raise InputError(f"{path} has no row of fold {fold}; it has {listing(sorted(set(table['fold'])), 12)}")
    return ids.tolist()


if __name__ == "__main__":
    run_script(main)

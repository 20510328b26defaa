"""Train one fold: folds.csv, images -> runs/<name>/fold<k>/

    python train.py --fold 0      # recipe chen, input/folds.csv, input/train/
    python train.py --recipe chen --folds input/folds.csv --fold 0 \\
        --images input/train --name chen
    python train.py --recipe gapnet_pl --fold 0 --size 256 --fit resize
    python train.py --fold 0 --limit 200 --epochs 2 --name try    # a trial
    python train.py --fold 0 --loss "1:bce 4:soft_f1+weighted_bce"

The run directory holds config.json (every option), rows.csv (the images
trained and validated on), skipped.csv (those that --skip-bad left out),
last.pt and best.safetensors, log.csv (a row an epoch), steps.csv and
TensorBoard events (every step), oof.csv (best epoch's probabilities for the
validation fold) and validation/ (every epoch's, in 16 bits). Interrupted in
any way, the same command goes on with the step after the last one saved and
ends with the same weights (on a CPU to the bit; with --max-minutes perhaps an
epoch earlier). Ctrl+C and SIGTERM save first.
"""

import argparse
import contextlib
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils import distributed, models
from utils.cli import check_least, parse_span, run_script
from utils.data import augment, packing
from utils.data.dataset import FITS, NORMALISATIONS, Samples, begin_epoch, dataset_moments, make_loader, pick_workers
from utils.data.images import LEAST_SIDE, MOST_SIDE, most_tiles, parse_channels
from utils.data.labels import encode, load_classes, split_fold
from utils.data.packing import warn_of_bits
from utils.data.readable import open_readable
from utils.data.workers import naming_what_they_held
from utils.device import AMP, amp_dtype, describe, explaining_out_of_memory, on_device, peak_memory
from utils.engine import activation_checkpointing, inference, losses, resume
from utils.engine.compiling import check_compiles
from utils.engine.console import print_epoch, print_header, print_summary
from utils.engine.interrupt import Stop, Stopped
from utils.engine.recipes import RECIPES
from utils.engine.run_log import RunLog
from utils.engine.trainer import OPTIMISERS, NotFinite, Trainer
from utils.engine.weights import check_apart_from_start, load_start, moments_of_start
from utils.errors import InputError
from utils.files import check_name, check_writable
from utils.models.layers import STEMS
from utils.parallel import CoreWatch, closing
from utils.runs.config import MOST_BATCH, MOST_FOLD
from utils.runs.run_folder import UNSAID, WEIGHTS
from utils.safe_load import is_line
from utils.scoring.metrics import best_global_threshold, f1_per_class


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    def arg(*names, help, group=parser, **kwargs):
        shown = "" if kwargs.get("required") or "action" in kwargs else " (default: %(default)s)"
        group.add_argument(*names, help=help + shown, **kwargs)

    arg("--recipe", choices=RECIPES, default="chen", metavar="NAME",
        help=f"published system whose options are taken: {', '.join(RECIPES)}")  # fmt: skip
    arg("--fold", type=int, required=True, help="which fold validates")
    data = parser.add_argument_group("data")
    arg("--folds", default="input/folds.csv", help="table made by make_folds.py", group=data)
    arg("--images", action="append", help="folder of the images, may be repeated; input/train if not given", group=data)
    arg("--classes", default="hpa", help="hpa, cyto or a CSV class,name", group=data)
    arg("--channels", help="rgby in any order, rgb, green, rgb+y/3", group=data)
    arg("--size", type=int, help="pixels of the square the network sees", group=data)
    arg("--bits", type=int, default=0, metavar="N", group=data,
        help="bits of a 16-bit file's pixels that the camera used, 8 to 16, 12 say; 0: as the file says, else 16")  # fmt: skip
    arg("--fit", choices=FITS, help="resize whole images to --size, or crop squares of it", group=data)
    arg(
        "--normalise",
        choices=NORMALISATIONS,
        help="by statistics of the training set, of each image, or not",
        group=data,
    )
    arg("--augment", help='none, d4, chen, or stages by epoch: "1:chen 20:chen_strong"', group=data)
    arg(
        "--limit",
        type=int,
        default=0,
        metavar="N",
        help="use only N training and N validation images; 0: all",
        group=data,
    )
    arg("--single-label", action="store_true", help="use only images of exactly one class", group=data)
    net = parser.add_argument_group("network")
    arg("--model", help=f"{', '.join(models.NETWORKS)}, timm:NAME or pretrainedmodels:NAME", group=net)
    arg("--weights", help="imagenet, none or a file of weights", group=net)
    arg("--layers", choices=["all", "last"], default="all", help="which are trained", group=net)
    arg("--stem", choices=STEMS, help="how RGB filters are widened to other channels", group=net)
    opt = parser.add_argument_group("optimisation")
    arg("--epochs", type=int, help="most epochs", group=opt)
    arg("--max-minutes", type=float, default=0.0, metavar="M", group=opt,
        help="stop before the epoch that would go over this time, in all, but not before the first; 0: no limit")  # fmt: skip
    arg("--batch-size", type=int, help="images a step", group=opt)
    arg("--accumulate", type=int, default=1, metavar="N", help="parts of a batch, one in memory at a time", group=opt)
    arg("--loss", help='terms by first epoch: "1:bce 11:soft_f1+2*weighted_bce"', group=opt)
    arg("--optimiser", choices=OPTIMISERS, help="optimiser", group=opt)
    arg("--lr", type=float, help="learning rate", group=opt)
    arg("--momentum", type=float, help="momentum of sgd", group=opt)
    arg("--weight-decay", type=float, help="L2 penalty (adamw: decoupled)", group=opt)
    arg("--l1", type=float, help="L1 penalty", group=opt)
    arg("--clip", type=float, help="largest gradient norm; 0: any", group=opt)
    arg("--plateau", choices=["step", "epoch", "none"], group=opt,
        help="halve the learning rate when training soft F1 (each step) or validation macro F1 (each epoch) stands still")  # fmt: skip
    arg("--patience", type=float, help="epochs without gain before halving", group=opt)
    arg("--min-gain", type=float, help="smallest rise that counts as gain", group=opt)
    arg("--ema", type=float, default=0.0, metavar="DECAY",
        help="validate and keep a moving average of the weights, 0.999 say; 0: off", group=opt)  # fmt: skip
    arg("--early-stop", type=int, help="stop after so many epochs without a better macro F1; 0: never", group=opt)
    arg("--skip-nan", type=int, default=0, metavar="N", group=opt,
        help="batches of NaN or infinite loss or gradient to leave out, in all, before training stops")  # fmt: skip
    run = parser.add_argument_group("run")
    arg("--name", help="name of the run", group=run)
    arg("--runs", default="runs", help="folder of all runs", group=run)
    arg("--seed", type=int, default=0, help="start of everything random", group=run)
    arg("--amp", choices=AMP, default="auto", help="16-bit arithmetic where the device is fast at it", group=run)
    arg("--checkpointing", action="store_true", help="less memory: compute activations twice", group=run)
    arg("--compile", action="store_true", help="compile the network for training; takes minutes at first", group=run)
    arg("--device", default="auto", help="cuda, cuda:1, cpu, …", group=run)
    arg("--workers", type=int, default=-1, help="loading processes; -1: by the machine", group=run)
    arg("--cache", default=packing.DEFAULT, metavar="FOLDER", help="where packed images are kept", group=run)
    arg("--no-cache", action="store_true", help="decode the images each time instead of packing them", group=run)
    arg(
        "--skip-bad",
        action="store_true",
        help="leave out images that cannot be read; skipped.csv lists them",
        group=run,
    )
    arg("--save-every", default="10min", metavar="SPAN", group=run,
        help="45s, 10min, 1h30m: save within epochs too; 0: only at their ends")  # fmt: skip
    arg("--time-limit", default="0", metavar="SPAN", group=run,
        help="8h30m say: after this time finish the step, save and end; 0: none")  # fmt: skip
    arg("--overwrite", action="store_true", help="start anew, each time, where a run of this name exists", group=run)

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # the recipe decides the others' defaults
    first.add_argument("--recipe", default="chen")
    recipe = first.parse_known_args()[0].recipe
    parser.set_defaults(**RECIPES.get(recipe, {}), name=recipe)
    return parser.parse_args()


def main():
    started = time.time()
    args = parse_args()
    check_options(args)
    group, device = distributed.join(args.device)
    if args.compile:
        check_compiles(device, args.checkpointing)
    run = Path(args.runs) / args.name / f"fold{args.fold}"
    stop = Stop(started, parse_span("--time-limit", args.time_limit), tells=group.first)
    with (
        resume.lock_run(run) if group.first else contextlib.nullcontext(),
        explaining_out_of_memory(device, lambda: saving_memory(args, run / "last.pt")),
    ):
        for name in resume.FILES:
            check_writable(run / name)
        if ready := prepare(args, group, device, run, started):
            try:
                trainer, train_loader, valid_loader, record = ready
                record.begin()
                with stop, naming_what_they_held(train_loader, record.last), record:
                    fit(trainer, train_loader, valid_loader, record, stop)
            except Stopped as stopped:
                print(f"{stopped}; the same command{' without --overwrite' if args.overwrite else ''} goes on")
            except Exception:
                if group.first and not any((run / name).is_file() for name in ("last.pt", WEIGHTS)):
                    resume.clear(run)  # nothing was learned yet: leave nothing half-done
                raise
        group.wait()  # none leaves while another still hears from it


def prepare(args, group, device, run, started):
    """Read, check and pack all that a training needs: -> trainer, loaders of training and validation, record; None where it is
    trained already."""
    amp = amp_dtype(args.amp, device)
    schedule = losses.parse_schedule(args.loss)
    channels = parse_channels(args.channels)
    augmentation = augment.build(args.augment, channels.names)
    classes = load_classes(args.classes)
    train_rows, valid_rows = split_fold(args.folds, classes, args.fold, args.limit, args.seed, single=args.single_label)

    arithmetic = str(amp or torch.float32).removeprefix("torch.")
    config = vars(args) | {"class_names": classes, "planes": channels.planes, "arithmetic": arithmetic}
    config |= resume.provenance(train_rows, valid_rows)
    saved = resume.find(run, config, args.overwrite)
    if saved and saved["finished"]:
        print(f"{run} is trained already (best macro F1 {saved['score']:.4f}); --overwrite starts anew")
        return None

    torch.manual_seed(args.seed)
    network = models.build(args.model, len(classes), channels.planes, args.size, args.stem)
    check_batch_norm(args, network, channels.planes, len(train_rows))
    if args.checkpointing and not activation_checkpointing.checkpoint_blocks(network):
        raise InputError(f"--checkpointing finds no blocks in {args.model}; give --accumulate to save memory instead")
    config["parameters"] = sum(weight.numel() for weight in network.parameters())
    if saved:
        started_from = f"going on from {run / 'last.pt'}"
    else:
        check_apart_from_start(args.weights, valid_rows["Id"])
        started_from = load_start(network, config)
    train_rows, valid_rows, images, sizes, skipped = open_readable(
        train_rows, valid_rows, channels, config, saved and (UNSAID | saved["config"])["skipped"], group
    )
    check_batch_norm(args, network, channels.planes, len(train_rows))
    if group.first:
        warn_of_bits(images, args.bits)
    config["skipped"] = skipped["Id"].tolist()
    tiles = most_tiles(sizes, args.size, args.fit)
    seen = (channels, args.size, args.fit, args.normalise)
    train_set = Samples(images[: len(train_rows)], *seen, targets=encode(train_rows["Target"], classes),
                        augment=augmentation, random_crop=True, seed=args.seed)  # fmt: skip
    valid_set = Samples(images[len(train_rows) :], *seen, targets=encode(valid_rows["Target"], classes))

    network = group.share_batch_norm(network.to(device, memory_format=torch.channels_last), device)
    workers = pick_workers(args.workers, device, group)
    train_loader = make_loader(train_set, args.batch_size, workers, device, shuffle=True, ranks=group)
    valid_loader = make_loader(valid_set, max(1, args.batch_size // tiles), workers, device, ranks=group)

    config["mean"], config["std"] = (None, None)
    if args.normalise == "dataset":
        known = saved["config"] if saved else moments_of_start(config) if args.layers == "last" else None
        config["mean"], config["std"] = (known["mean"], known["std"]) if known else dataset_moments(train_set)
    trainer = Trainer(network, train_set, config, schedule, device, amp, len(train_loader), started, group)
    if saved:
        resume.restore(trainer, saved, run / "last.pt")
    group.check_alike(images=config["rows_sha256"], statistics=(config["mean"], config["std"]), arithmetic=arithmetic,
                      progress=(trainer.epoch, trainer.step))  # fmt: skip
    group.wait()  # until all have read what is there
    machine = group.describe() + describe(device, amp)
    print_header(config, started_from, train_rows, valid_rows, machine, train_loader.num_workers)
    every = parse_span("--save-every", args.save_every)
    return (
        trainer,
        train_loader,
        valid_loader,
        RunLog(run, trainer, train_rows, valid_rows, skipped, every, group.first),
    )


def check_options(args):
    """Refuse impossible numbers before any file is opened."""
    check_least(args, fold=(0, MOST_FOLD), size=(LEAST_SIDE, MOST_SIDE), limit=0, epochs=1, batch_size=(1, MOST_BATCH), lr=0, momentum=0,
                weight_decay=0, l1=0, clip=0, patience=0, min_gain=0, early_stop=0, max_minutes=0, seed=0, workers=-1, accumulate=1,
                skip_nan=0)  # fmt: skip
    parse_span("--save-every", args.save_every)
    check_name(args.name)
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if text and isinstance(text, str) and not is_line(text):
                raise InputError(f"--{name.replace('_', '-')} {text[:80]!r} is not one line of text; mend it")
    if args.accumulate > max(1, args.batch_size // 2):
        raise InputError(
            f"--accumulate {args.accumulate} leaves parts of less than two images of --batch-size {args.batch_size}; give fewer"
        )
    if args.bits and not 8 <= args.bits <= 16:
        raise InputError(f"--bits {args.bits} is out of range; give 8 to 16, or 0 for what the files say")
    if not 0 <= args.ema < 1:  # with 1 it would never leave the first weights
        raise InputError(f"--ema {args.ema:g} is out of range; give 0 or more, less than 1, 0.999 say")
    if args.layers == "last" and args.weights == "none":
        raise InputError("--layers last trains on what the other layers have learned; name the run with --weights")


def check_batch_norm(args, network, planes, images):
    """Refuse batches of one image where batch norm could not learn from them."""
    if min(args.batch_size, images) == 1 and not models.learns_from_one(network, planes, args.size, args.layers):
        raise InputError(
            f"batch norm of {args.model} would see a single value of each channel in a batch of one image at --size {args.size}; give "
            f"--batch-size 2 or more{'' if images > 1 else ', and more than one image to train on'}, or a larger --size"
        )


def saving_memory(args, last):
    """What to do where the memory was not enough."""
    parts, half = min(2 * args.accumulate, args.batch_size // 2), args.batch_size // 2
    smaller = [f"--accumulate {parts}"] * (parts > args.accumulate) + [f"--batch-size {half}"] * (half > 0)
    again = [] if args.checkpointing else ["--checkpointing"]
    if last.is_file():
        same = f"the same command{' without --overwrite' if args.overwrite else ''}"
        again = [f"--checkpointing, with which {same} goes on from {last}"] if again else []
        smaller = [f"{option} and another --name" for option in smaller]
    used = f"{args.model} at --size {args.size} ran with --batch-size {args.batch_size}, --accumulate {args.accumulate}"
    return (
        f"{used}{', --checkpointing' * args.checkpointing}; give {' or '.join(again + smaller) or 'a smaller --size'}"
    )


def fit(trainer, train_loader, valid_loader, record, stop):
    """Epochs until the end: train, validate, report, save. Raises Stopped, all saved, where it is to end before."""
    truth, config, device, group = valid_loader.dataset.targets, trainer.config, trainer.device, trainer.ranks
    chunk = inference.pick_chunk(config["batch_size"], config["size"], device)
    cores = CoreWatch(torch.get_num_threads() if device.type == "cpu" else 1, train_loader.num_workers)
    started, upcoming = time.time(), None
    while not trainer.finished and not group.agree(trainer.out_of_time):
        train_epoch(trainer, train_loader, record, stop, cores, upcoming)
        speed = len(train_loader.dataset) / trainer.seconds_in_epoch
        # The next epoch's first batches are made while this one's validation is computed.
        upcoming = begin_epoch(train_loader, trainer.epoch + 1) if trainer.epoch < config["epochs"] else None
        group.share_buffers(trainer.network, trainer.evaluated)
        _, probabilities = inference.predict([trainer.evaluated], [trainer.normaliser], valid_loader, device, trainer.amp,
                                             chunk=chunk, ranks=group, between=watch(trainer, valid_loader, record, stop))  # fmt: skip
        threshold, score = group.agree(best_global_threshold(truth, probabilities))
        valid = validation_curves(truth, probabilities, threshold, config["class_names"])
        values = {"macro_f1": score, "threshold": threshold, "images_per_second": speed, "seconds": trainer.seconds_in_epoch,
                  "peak_gb": peak_memory(device)}  # fmt: skip
        means = record.epoch(probabilities, trainer.end_epoch(score), values, valid)
        print_epoch(trainer, means, score, threshold, speed)
        if not trainer.finished and group.most(bool(stop.why), device):
            record.wait()
            raise Stopped(f"stopped {stop.why or 'by a signal'} after epoch {trainer.epoch}, saved in {record.last}")
    record.wait()
    if not trainer.finished:
        print(f"--max-minutes {config['max_minutes']:g} used up; with more the same command goes on")
    if group.first:
        print_summary(trainer, record, truth, time.time() - started)


def train_epoch(trainer, loader, record, stop, cores, upcoming=None):
    """One pass over the training images, or the rest of one that was interrupted. upcoming: its batches, where they were begun."""
    trainer.begin_epoch()
    size, images = trainer.config["batch_size"], len(loader.dataset)
    done = trainer.position * size
    if upcoming is None or done:
        upcoming = begin_epoch(loader, trainer.epoch, done)
    source = on_device(upcoming, trainer.device)
    bar = tqdm(
        total=images, initial=min(done, images), desc=f"epoch {trainer.epoch}", unit="img", disable=None, leave=False
    )
    following = []

    def meanwhile():
        record.catch_up()
        if line := cores.starved():
            bar.write(line)
        following.append(next(source, None))
        return wish_of(record, stop)

    with bar, closing(source):
        batch = next(source, None)
        while batch is not None:
            try:
                curves = trainer.train_step(batch, meanwhile)
            except NotFinite as trouble:
                record.left_out(trouble.what, sorted(sum(trainer.ranks.collect(trouble.rows), [])))
            else:
                record.step(curves)
                bar.set_postfix_str(f"loss {curves['loss']:.3f}", refresh=False)
            bar.update(min(size, bar.total - bar.n))
            grant(trainer.wish, trainer, record, stop)
            batch = following.pop()


GO_ON, SAVE, STOP = range(3)  # what a process wishes between two steps; the largest wish of all is granted


def wish_of(record, stop, limited=True):
    """limited: does the time limit count?"""
    return STOP if (stop.why if limited else stop.by_signal) else SAVE if record.due else GO_ON


def grant(wish, trainer, record, stop):
    """Save the state, and stop the run after that by raising Stopped, where that is wished."""
    if wish:
        record.save()
    if wish == STOP:
        record.wait()
        where = (
            f"step {trainer.step:,} (batch {trainer.position:,} of {trainer.steps_an_epoch:,} of epoch {trainer.epoch})"
        )
        raise Stopped(f"stopped {stop.why or 'by a signal'} after {where}, saved in {record.last}")


def watch(trainer, loader, record, stop):
    """What to call between batches of a validation, so that it can be saved before and stopped in."""
    # Ranks may have one batch more or less than others; only as many as all have can they agree after.
    shared = iter(range(-(-(len(loader.dataset) // trainer.ranks.count) // loader.batch_size)))
    # Without a step since the start a limit shorter than a validation would never let it get any further.
    limited = trainer.step > record.first_step

    def between():
        record.catch_up()
        if next(shared, None) is not None:
            grant(trainer.ranks.most(wish_of(record, stop, limited), trainer.device), trainer, record, stop)

    return between


def validation_curves(truth, probabilities, threshold, classes):
    """BCE and, for Figs. 6 and 7 of Chen, focal loss and each class's F1 at the epoch's cut-off."""
    logits = torch.logit(torch.from_numpy(probabilities), eps=1e-6)
    targets = torch.from_numpy(truth.astype(np.float32))
    values = {"valid_bce": float(losses.bce(logits, targets)), "valid_focal": float(losses.focal(logits, targets))}
    f1 = f1_per_class(truth, probabilities >= threshold)
    return values | {f"f1 {name}": float(value) for name, value in zip(classes, f1, strict=True)}


if __name__ == "__main__":
    run_script(main)

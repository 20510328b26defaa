"""Train one fold: folds.csv, images -> runs/<name>/fold<k>/

    python train.py --fold 0      # recipe chen, input/folds.csv, input/train/
    python train.py --recipe chen --folds input/folds.csv --fold 0 \\
        --images input/train --name chen
    python train.py --recipe gapnet_pl --fold 0 --size 256 --fit resize
    python train.py --fold 0 --limit 200 --epochs 2 --name try    # a trial
    python train.py --fold 0 --loss "1:bce 4:soft_f1+weighted_bce"

The run directory holds config.json (every option), rows.csv (the images
trained and validated on), skipped.csv (those that --skip-bad left out),
last.pt and best.safetensors, image_statistics.json, by which predict.py marks
images unlike the training images, log.csv (a row an epoch), steps.csv and
TensorBoard events (every step), oof.csv (the probabilities of the epoch kept,
see --keep, for the validation fold) and validation/ (every epoch's, in 16
bits). Interrupted in any way, the same command goes on with the step after the
last one saved and ends with the same weights (on a CPU to the bit; with
--max-minutes perhaps an epoch earlier). Ctrl+C and SIGTERM save first.
"""

import argparse
import contextlib
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils import distributed, models
from utils.cli import check_least, option_parser, parse_span, run_script
from utils.data import augment, mixing, pixel_size, sampling
from utils.data.cache import warn_of_bits
from utils.data.crops import most_tiles
from utils.data.dataset import Samples, dataset_moments
from utils.data.images import LEAST_SIDE, MISSABLE, MOST_SIDE, parse_channels
from utils.data.labels import encode, load_classes, split_fold
from utils.data.loader import begin_epoch, count_steps, make_loader, naming_file_of_crashed_worker, pick_workers
from utils.data.readable import open_readable
from utils.device import amp_dtype, describe_device, explain_out_of_memory, peak_memory, prefetch_to_device
from utils.engine import activation_checkpointing, inference, losses, resume
from utils.engine.compiling import check_compiles
from utils.engine.console import print_epoch, print_header, print_summary
from utils.engine.interrupt import Stop, Stopped, act_on, checks_during_validation, requested
from utils.engine.recipes import RECIPES
from utils.engine.run_log import RunLog
from utils.engine.trainer import OPTIMISERS, NotFinite, Trainer
from utils.engine.weights import check_apart_from_start, load_start, moments_of_start
from utils.errors import InputError
from utils.files import check_name, check_writable
from utils.parallel import CoreWatch, closing, cores
from utils.runs import unlike_training
from utils.runs.config import (
    AMP,
    DEFAULTS,
    FITS,
    GAIN_MODES,
    HEADS,
    KEEPS,
    LAYERS,
    LR_SCHEDULES,
    MOST_BATCH,
    MOST_FOLD,
    NORMALISATIONS,
    PLATEAUS,
    STEMS,
    TTA_VIEWS,
    RunConfig,
    is_score_threshold,
)
from utils.runs.pseudo_labels import add_pseudo_labels, read_pseudo_labels, soft_targets
from utils.runs.run_folder import WEIGHTS
from utils.safe_load import is_line
from utils.schedule import first_steps
from utils.scoring.metrics import best_global_threshold, f1_per_class, macro_f1

NOT_NEGATIVE = (
    *("limit", "lr", "momentum", "weight_decay", "l1", "clip", "patience", "min_gain"),
    *("early_stop", "max_minutes", "seed", "skip_nan", "warmup"),
)


def parse_args():
    parser = option_parser(__doc__, allow_abbrev=False)

    def arg(*names, help, group=parser, **kwargs):
        shown = "" if kwargs.get("required") or "action" in kwargs else " (default: %(default)s)"
        group.add_argument(*names, help=help + shown, **kwargs)

    recipes = ", ".join(RECIPES)
    arg(
        "--recipe",
        choices=RECIPES,
        metavar="NAME",
        help=f"published system, or the kit's own, best, whose options are taken: {recipes}",
    )
    arg("--fold", type=int, required=True, help="which fold validates")
    data = parser.add_argument_group("data")
    arg("--folds", help="table made by make_folds.py", group=data)
    images = "folder of the images or images.csv, may be repeated; input/train if not given"
    arg("--images", action="append", help=images, group=data)
    arg("--classes", help="hpa, cyto, hpa2021 or a CSV class,name", group=data)
    arg("--channels", help="rgby in any order, rgb, green, rgb+y/3", group=data)
    arg("--size", type=int, help="pixels of the square the network sees", group=data)
    bits = "bits of a 16-bit file's pixels that the camera used, 8 to 16, 12 say; 0: as the file says, else 16"
    arg("--bits", type=int, metavar="N", help=bits, group=data)
    pixel = "micrometres of a pixel of the images, 0.32 say, recorded for predict.py --pixel-size; 0: not known"
    arg("--pixel-size", type=float, metavar="UM", help=pixel, group=data)
    fit = "resize whole images to --size; zoom: a random part of two thirds or more, the whole in validation; or crop squares of it"
    arg("--fit", choices=FITS, help=fit, group=data)
    normalise = "by statistics of the training set, of each image, or not"
    arg("--normalise", choices=NORMALISATIONS, help=normalise, group=data)
    arg("--augment", help='none, d4, gain, chen, or stages: "1:chen 21:chen_strong"', group=data)
    drop = "of red and of yellow of a training image to be black, for predict.py --without"
    arg("--drop-channels", type=float, metavar="P", help=f"probability {drop}", group=data)
    mix = "join training images and labels in pairs: a rectangle or the mean, labels of both or by area"
    arg("--mix", choices=["none", *mixing.MIXES], help=mix, group=data)
    arg("--mix-probability", type=float, metavar="P", help="of a training image to be mixed", group=data)
    sampler = "rare classes more often: by repeat factors, or half of the draws balanced by class, fewer later"
    arg("--sampler", choices=["none", *sampling.SAMPLERS], help=sampler, group=data)
    limit = "use only N training, N validation and N --pseudo images; 0: all"
    arg("--limit", type=int, metavar="N", help=limit, group=data)
    single = "use only images of exactly one class"
    arg("--single-label", action=argparse.BooleanOptionalAction, help=single, group=data)
    source = "validate on the rows of this source alone, kaggle say; the fold's other rows are left out"
    arg("--valid-source", metavar="NAME", help=source, group=data)
    pseudo = "predictions of images to train on too, with the probabilities as targets; --images names their folder too"
    arg("--pseudo", metavar="CSV", help=pseudo, group=data)
    net = parser.add_argument_group("network")
    arg("--model", help=f"{', '.join(models.NETWORKS)}, timm:NAME or pretrainedmodels:NAME", group=net)
    head = "what follows the last feature map: the network's own, average and maximum, or attention of each class"
    arg("--head", choices=HEADS, help=head, group=net)
    arg("--weights", help="imagenet, none or a file of weights", group=net)
    arg("--layers", choices=LAYERS, help="which are trained", group=net)
    arg("--stem", choices=STEMS, help="how pretrained RGB filters are widened to other channels", group=net)
    opt = parser.add_argument_group("optimisation")
    arg("--epochs", type=int, help="most epochs", group=opt)
    minutes = "stop before the epoch that would exceed this time, in all, but not before the first; 0: no limit"
    arg("--max-minutes", type=float, metavar="M", help=minutes, group=opt)
    arg("--batch-size", type=int, help="images per step", group=opt)
    arg("--accumulate", type=int, metavar="N", help="micro-batches per batch, one in memory at a time", group=opt)
    arg("--loss", help='terms by first epoch or step: "1:bce 11:focal step9000:bce"', group=opt)
    arg("--optimiser", choices=OPTIMISERS, help="optimiser", group=opt)
    arg("--lr", type=float, help="learning rate", group=opt)
    arg("--momentum", type=float, help="momentum of sgd", group=opt)
    arg("--weight-decay", type=float, help="L2 penalty (adamw: decoupled)", group=opt)
    norms = "weight decay also of biases and normalisation layers"
    arg("--decay-norms", action=argparse.BooleanOptionalAction, help=norms, group=opt)
    arg("--l1", type=float, help="L1 penalty", group=opt)
    arg("--clip", type=float, help="largest gradient norm; 0: any", group=opt)
    warmup = "epochs, 0.5 say, in whose steps the learning rate rises from 0 by equal amounts"
    arg("--warmup", type=float, metavar="EPOCHS", help=warmup, group=opt)
    cosine = "cosine: the rate then falls to 0, at the last step of the last of --epochs"
    arg("--lr-schedule", choices=LR_SCHEDULES, help=cosine, group=opt)
    plateau = (
        "halve the learning rate when training soft F1 (each step) or validation macro F1 (each epoch) stands still"
    )
    arg("--plateau", choices=PLATEAUS, help=plateau, group=opt)
    arg("--patience", type=float, help="epochs without gain before halving", group=opt)
    arg("--min-gain", type=float, help="smallest rise that counts as gain", group=opt)
    mode = "the gain as it is, or as a share of the best so far"
    arg("--min-gain-mode", choices=GAIN_MODES, help=mode, group=opt)
    ema = "validate and keep a moving average of the weights, 0.999 say; 0: off"
    arg("--ema", type=float, metavar="DECAY", help=ema, group=opt)
    early = "stop after N epochs without a better macro F1 under the same loss; 0: never"
    arg("--early-stop", type=int, metavar="N", help=early, group=opt)
    keep = "epoch whose weights and oof.csv are kept: that of the best macro F1, or the last"
    arg("--keep", choices=KEEPS, help=keep, group=opt)
    score = "threshold at which an epoch's validation macro F1 counts: the best one for all classes, or a number"
    arg("--score-threshold", metavar="best|P", help=score, group=opt)
    arg("--valid-tta", type=int, choices=TTA_VIEWS, help="TTA views per image in validation", group=opt)
    tta = "TTA views per image in predict.py without its own --tta"
    arg("--tta", type=int, choices=TTA_VIEWS, help=tta, group=opt)
    skip = "batches of NaN or infinite loss or gradient to leave out, in all, before training stops"
    arg("--skip-nan", type=int, metavar="N", help=skip, group=opt)
    run = parser.add_argument_group("run")
    arg("--name", help="name of the run", group=run)
    arg("--runs", help="folder of all runs", group=run)
    arg("--seed", type=int, help="seed of everything random", group=run)
    arg("--amp", choices=AMP, help="16-bit arithmetic where the device is fast at it", group=run)
    arg("--checkpointing", action="store_true", help="less memory: compute activations twice", group=run)
    arg("--compile", action="store_true", help="compile the network for training; takes minutes at first", group=run)
    arg("--device", help="cuda, cuda:1, cpu, …", group=run)
    arg("--workers", type=int, help="DataLoader workers; -1: by the machine", group=run)
    arg("--cache", metavar="FOLDER", help="where packed images are kept", group=run)
    arg("--no-cache", action="store_true", help="decode the images each time instead of packing them", group=run)
    bad = "leave out images that cannot be read; skipped.csv lists them"
    arg("--skip-bad", action="store_true", help=bad, group=run)
    save = "45s, 10min, 1h30m: save within epochs too; 0: only at their ends"
    arg("--save-every", metavar="SPAN", help=save, group=run)
    limit = "8h30m say: after this time finish the step, save and end; 0: none"
    arg("--time-limit", metavar="SPAN", help=limit, group=run)
    arg("--overwrite", action="store_true", help="start anew, each time, if a run of this name exists", group=run)
    arg("--check", action="store_true", help="only check the options and print where the run will be", group=run)

    first = option_parser(None, add_help=False, allow_abbrev=False)  # the recipe decides the others' defaults
    first.add_argument("--recipe", default="chen")
    recipe = first.parse_known_args()[0].recipe
    parser.set_defaults(**DEFAULTS | RECIPES.get(recipe, {}), recipe=recipe, name=recipe)
    return parser.parse_args()


def main():
    started = time.time()
    args = parse_args()
    check_options(args)
    if args.check:
        models.build(
            args.model, len(load_classes(args.classes)), parse_channels(args.channels).planes, args.size, args.head
        )
        print_plan(args)
        return
    context, device = distributed.init(args.device)
    if args.compile:
        check_compiles(device, args.checkpointing)
    run = Path(args.runs) / args.name / f"fold{args.fold}"
    stop = Stop(started, parse_span("--time-limit", args.time_limit), prints=context.is_main)
    with (
        resume.lock_run(run) if context.is_main else contextlib.nullcontext(),
        explain_out_of_memory(device, lambda: saving_memory(args, run / "last.pt")),
    ):
        for name in resume.FILES:
            check_writable(run / name)
        if ready := prepare(args, context, device, run, started):
            try:
                trainer, train_loader, valid_loader, record = ready
                record.begin()
                if context.is_main:
                    write_image_statistics(run, train_loader.dataset)
                with stop, naming_file_of_crashed_worker(train_loader, record.last), record:
                    fit(trainer, train_loader, valid_loader, record, stop)
            except Stopped as stopped:
                print(f"{stopped}; the same command{' without --overwrite' if args.overwrite else ''} goes on")
            except Exception:
                if context.is_main and not any((run / name).is_file() for name in ("last.pt", WEIGHTS)):
                    resume.clear(run)  # nothing was learned yet: leave nothing half-done
                raise
        context.barrier()  # no process leaves while another still listens to it


def prepare(args, context, device, run, started):
    """Read, check and pack all that a training needs: -> trainer, loaders of training and validation, record; None if it is
    trained already."""
    amp = amp_dtype(args.amp, device)
    schedule, channels = losses.parse_schedule(args.loss), parse_channels(args.channels)
    classes = load_classes(args.classes)
    choice = {"single": args.single_label, "valid_source": args.valid_source}
    train_rows, valid_rows = split_fold(args.folds, classes, args.fold, args.limit, args.seed, **choice)
    soft = read_pseudo_labels(args.pseudo, args.folds, classes, args.limit) if args.pseudo else None
    if soft is not None:
        train_rows = add_pseudo_labels(train_rows, soft)
    options = {name: value for name, value in vars(args).items() if name != "check"}
    config = RunConfig(
        **options,
        class_names=classes,
        planes=channels.planes,
        activation="softmax" if losses.is_exclusive(schedule) else "sigmoid",
        arithmetic=str(amp or torch.float32).removeprefix("torch."),
        **resume.provenance(train_rows, valid_rows, soft),
    )
    plan_epoch(args, schedule, channels, encode(train_rows["Target"], classes))
    saved = resume.find(run, config, args.overwrite)
    if saved and saved["finished"]:
        print(
            f"{run} is trained already (macro F1 {saved['score']:.4f} in the {args.keep} epoch); --overwrite starts anew"
        )
        return None

    torch.manual_seed(args.seed)
    network = models.build(args.model, len(classes), channels.planes, args.size, args.head)
    check_batch_norm(args, network, channels.planes, len(train_rows))
    if args.checkpointing and not activation_checkpointing.checkpoint_blocks(network):
        raise InputError(f"--checkpointing finds no blocks in {args.model}; give --accumulate to save memory instead")
    config.parameters = sum(weight.numel() for weight in network.parameters())
    if saved:
        started_from = f"going on from {run / 'last.pt'}"
    else:
        check_apart_from_start(args.weights, valid_rows["Id"])
        started_from = load_start(network, config)
    train_rows, valid_rows, images, sizes, skipped = open_readable(
        train_rows, valid_rows, channels, vars(config), saved and saved["config"].skipped, context
    )
    check_batch_norm(args, network, channels.planes, len(train_rows))
    if context.is_main:
        warn_of_bits(images, args.bits)
    config.skipped = skipped["Id"].tolist()
    if args.pixel_size:
        config.input_pixel_size = pixel_size.of_input(args.pixel_size, sizes, args.size, args.fit)
    seen = (channels, args.size, args.fit, args.normalise)
    targets = encode(train_rows["Target"], classes) if soft is None else soft_targets(train_rows, soft)
    sampler, augmentation = plan_epoch(args, schedule, channels, targets)
    mix = mixing.build(args.mix, args.mix_probability)
    training = {"augment": augmentation, "random_crop": True, "seed": args.seed, "mix": mix}
    train_images, valid_images = images[: len(train_rows)], images[len(train_rows) :]
    train_set = Samples(train_images, *seen, targets=targets, **training)
    valid_set = Samples(valid_images, *seen, targets=encode(valid_rows["Target"], classes))

    network = context.sync_batch_norm(network.to(device, memory_format=torch.channels_last), device)
    workers = pick_workers(args.workers, device, context)
    train_loader = make_loader(train_set, args.batch_size, workers, device, True, context, sampler)
    valid_batch = max(1, args.batch_size // most_tiles(sizes, args.size, args.fit))
    valid_loader = make_loader(valid_set, valid_batch, workers, device, context=context)

    if args.normalise == "dataset":
        start = saved["config"] if saved else moments_of_start(config) if args.layers == "last" else None
        config.mean, config.std = (start.mean, start.std) if start else dataset_moments(train_set)
    trainer = Trainer(network, train_set, config, schedule, device, amp, len(train_loader), started, context)
    if saved:
        resume.restore(trainer, saved, run / "last.pt")
    progress = trainer.progress.epoch, trainer.progress.step
    statistics = config.mean, config.std
    context.check_equal(
        images=config.rows_sha256, statistics=statistics, arithmetic=config.arithmetic, progress=progress
    )
    context.barrier()  # until all have read what is there
    machine = context.describe() + describe_device(device, amp)
    print_header(config, started_from, train_rows, valid_rows, machine, train_loader)
    every = parse_span("--save-every", args.save_every)
    record = RunLog(run, trainer, train_rows, valid_rows, skipped, every, context.is_main)
    return trainer, train_loader, valid_loader, record


def write_image_statistics(run, train_set):
    """What predict.py compares images with; of too few images there is none."""
    if len(train_set) >= unlike_training.LEAST_IMAGES:
        channels = train_set.channels.names
        unlike_training.write(run, unlike_training.fit(unlike_training.measure(train_set.images, channels), channels))


def plan_epoch(args, schedule, channels, targets):
    """Check that the stages of loss and augmentation follow one another in a training on images with these labels: -> RowSampler or
    None, Augmentation or None."""
    sampler = sampling.build(args.sampler, targets, args.epochs)
    steps = count_steps(len(targets) if sampler is None else len(sampler), args.batch_size)
    first_steps(schedule, steps, f"--loss {args.loss!r}")
    return sampler, augment.build(args.augment, channels.names, steps, args.drop_channels)


def check_options(args):
    """Refuse impossible numbers before any file is opened."""
    ranges = dict.fromkeys(NOT_NEGATIVE, 0) | dict.fromkeys(("epochs", "accumulate"), 1) | {"workers": -1}
    ranges |= {"fold": (0, MOST_FOLD), "size": (LEAST_SIDE, MOST_SIDE), "batch_size": (1, MOST_BATCH)}
    check_least(args, **ranges)
    parse_span("--save-every", args.save_every)
    parse_span("--time-limit", args.time_limit)
    check_name(args.name)
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if text and isinstance(text, str) and not is_line(text):
                raise InputError(f"--{name.replace('_', '-')} {text[:80]!r} is not one line of text; fix it")
    schedule = losses.parse_schedule(args.loss)
    check_labels(args, schedule)
    if args.lr_schedule == "cosine" and args.plateau != "none":
        fix = "add --plateau none"
        raise InputError(f"--lr-schedule cosine and --plateau {args.plateau} both set the learning rate; {fix}")
    if args.warmup > args.epochs:
        raise InputError(f"--warmup {args.warmup:g} is longer than --epochs {args.epochs}; give less")
    if args.keep == "last" and args.early_stop:
        fix = "add --early-stop 0"
        raise InputError(f"--keep last keeps no best epoch, which --early-stop {args.early_stop} counts from; {fix}")
    if not is_score_threshold(args.score_threshold):
        raise InputError(f"--score-threshold {args.score_threshold!r} is neither best nor a number from 0 to 1; fix it")
    augment.parse(args.augment)
    pixel_size.check_pixel_size("--pixel-size", args.pixel_size)
    if not 0 <= args.drop_channels < 1:
        raise InputError(f"--drop-channels {args.drop_channels:g} is out of range; give 0 or more, less than 1")
    if not set(MISSABLE) & set(parse_channels(args.channels).names) and args.drop_channels:
        what = f"--drop-channels is of {' and '.join(MISSABLE)}, which --channels {args.channels} lack"
        raise InputError(f"{what}; leave it out")
    if args.accumulate > max(1, args.batch_size // 2):
        raise InputError(
            f"--accumulate {args.accumulate} leaves micro-batches of less than two images of --batch-size {args.batch_size}; give fewer"
        )
    if args.bits and not 8 <= args.bits <= 16:
        raise InputError(f"--bits {args.bits} is out of range; give 8 to 16, or 0 for what the files say")
    if not 0 <= args.ema < 1:  # with 1 it would never leave the first weights
        raise InputError(f"--ema {args.ema:g} is out of range; give 0 or more, less than 1, 0.999 say")
    if args.layers == "last" and args.weights == "none":
        raise InputError("--layers last needs pretrained weights; give --weights")


def check_labels(args, schedule):
    """Refuse losses that cannot be computed for the labels: of exactly one class, of several, or between 0 and 1."""
    exclusive, soft = losses.is_exclusive(schedule), args.mix in mixing.SOFT
    hard = sorted({term for stage in schedule for term in stage.value if not losses.loss_of(term).soft_targets})
    if exclusive and not args.single_label:
        raise InputError(f"--loss {args.loss!r} is for images of exactly one class; add --single-label")
    if args.pseudo and (hard or args.single_label):
        what = f"the loss {', '.join(hard)}" if hard else "--single-label"
        raise InputError(f"--pseudo gives labels between 0 and 1, which {what} cannot take; leave one out")
    if not 0 < args.mix_probability <= 1:
        raise InputError(f"--mix-probability {args.mix_probability:g} is out of range; give more than 0, at most 1")
    if exclusive and args.mix != "none" and not soft:
        raise InputError(
            f"--mix {args.mix} gives an image several classes, --loss {args.loss!r} takes one; give --mix cutmix_area"
        )
    if soft and hard:
        raise InputError(
            f"--mix {args.mix} gives labels between 0 and 1, which {', '.join(hard)} cannot take; give --mix cutmix"
        )


def print_plan(args):
    """Print a line each, for scripts: the run, its folds file, CPU cores, GPUs that it may use, the side of the crops that images must
    hold (0: any image is resized), options that predict.py needs too."""
    gpus = torch.cuda.device_count() if args.device in ("auto", "cuda") else 0
    cache = "--no-cache" if args.no_cache else f"--cache={args.cache}"
    print(f"run={Path(args.runs) / args.name}", f"folds={args.folds}", f"cores={cores()}", f"gpus={gpus}", sep="\n")
    print(f"crop={args.size if args.fit == 'crop' else 0}")
    for option in (f"--device={args.device}", f"--workers={args.workers}", cache):
        print(f"predict={option}")


def check_batch_norm(args, network, planes, images):
    """Refuse batches of one image if batch norm could not learn from them."""
    if min(args.batch_size, images) == 1 and not models.learns_from_one(network, planes, args.size, args.layers):
        raise InputError(
            f"batch norm of {args.model} would see a single value of each channel in a batch of one image at --size {args.size}; give "
            f"--batch-size 2 or more{'' if images > 1 else ', and more than one image to train on'}"
            f"{'' if args.head == 'avg_max' else ', or a larger --size'}"
        )


def saving_memory(args, last):
    """What to do when memory runs out."""
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
    """Epochs until the end: train, validate, log, save. Raises Stopped, everything saved, if it is to end before."""
    truth, config, device, context = valid_loader.dataset.targets, trainer.config, trainer.device, trainer.context
    chunk = inference.pick_chunk(config.batch_size, config.size, device)
    core_watch = CoreWatch(torch.get_num_threads() if device.type == "cpu" else 1, train_loader.num_workers)
    started, upcoming = time.time(), None
    while not trainer.finished and not context.broadcast(trainer.out_of_time):
        train_epoch(trainer, train_loader, record, stop, core_watch, upcoming)
        speed = len(train_loader.order) / trainer.seconds_in_epoch
        # The next epoch's first batches are made while this one's validation is computed.
        upcoming = (
            begin_epoch(train_loader, trainer.progress.epoch + 1) if trainer.progress.epoch < config.epochs else None
        )
        context.broadcast_buffers(trainer.network, trainer.evaluated)
        between = checks_during_validation(trainer, valid_loader, record, stop)
        own = [trainer.evaluated], [trainer.normaliser], valid_loader, device, trainer.amp
        views = {"tta": config.valid_tta, "activation": config.activation}
        _, probabilities = inference.predict(*own, **views, chunk=chunk, context=context, between=between)
        threshold, score = context.broadcast(scored(truth, probabilities, config.score_threshold))
        valid = validation_curves(truth, probabilities, threshold, config.class_names)
        values = {
            "macro_f1": score,
            "threshold": threshold,
            "images_per_second": speed,
            "seconds": trainer.seconds_in_epoch,
            "peak_gb": peak_memory(device),
        }
        means = record.epoch(probabilities, trainer.end_epoch(score), values, valid)
        print_epoch(trainer, means, score, threshold, speed)
        if not trainer.finished and context.largest(bool(stop.reason), device):
            record.wait()
            raise Stopped(
                f"stopped {stop.reason or 'by a signal'} after epoch {trainer.progress.epoch}, saved in {record.last}"
            )
    record.wait()
    if not trainer.finished:
        print(f"--max-minutes {config.max_minutes:g} used up; with more the same command goes on")
    if context.is_main:
        print_summary(trainer, record.run, truth, time.time() - started, record.seconds)


def train_epoch(trainer, loader, record, stop, core_watch, upcoming=None):
    """One pass over the training images, or the rest of one that was interrupted. upcoming: its batches, if they are being
    loaded already."""
    trainer.begin_epoch()
    size, images = trainer.config.batch_size, len(loader.order)
    done = trainer.progress.position * size
    if upcoming is None or done:
        upcoming = begin_epoch(loader, trainer.progress.epoch, done)
    source = prefetch_to_device(upcoming, trainer.device)
    bar = tqdm(
        total=images,
        initial=min(done, images),
        desc=f"epoch {trainer.progress.epoch}",
        unit="img",
        disable=None,
        leave=False,
    )
    following = []

    def meanwhile():
        record.catch_up()
        if line := core_watch.starved():
            bar.write(line)
        following.append(next(source, None))
        return requested(record, stop)

    with bar, closing(source):
        batch = next(source, None)
        while batch is not None:
            try:
                curves = trainer.train_step(batch, meanwhile)
            except NotFinite as trouble:
                record.left_out(trouble.what, sorted(sum(trainer.context.all_gather_object(trouble.rows), [])))
            else:
                record.step(curves)
                bar.set_postfix_str(f"loss {curves['loss']:.3f}", refresh=False)
            bar.update(min(size, bar.total - bar.n))
            act_on(trainer.request, trainer, record, stop)
            batch = following.pop()


def scored(truth, probabilities, threshold):
    """-> (threshold, macro F1 there). threshold: the text of a number, or "best": the best one for all classes together."""
    if threshold == "best":
        return best_global_threshold(truth, probabilities)
    return float(threshold), macro_f1(truth, probabilities >= float(threshold))


def validation_curves(truth, probabilities, threshold, classes):
    """BCE, binary accuracy at 0.5 and, for Figs. 6 and 7 of Chen, focal loss and each class's F1 at the epoch's threshold."""
    logits = torch.logit(torch.from_numpy(probabilities), eps=1e-6)
    targets = torch.from_numpy(truth.astype(np.float32))
    inputs = losses.LossInputs(logits, targets)
    values = {"valid_bce": float(losses.bce(inputs)), "valid_focal": float(losses.focal(inputs))}
    values["valid_accuracy"] = float(np.mean((probabilities >= 0.5) == truth))
    f1 = f1_per_class(truth, probabilities >= threshold)
    return values | {f"f1 {name}": float(value) for name, value in zip(classes, f1, strict=True)}


if __name__ == "__main__":
    run_script(main)

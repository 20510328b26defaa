"""The experiments, an arm a line, and the rule that decides them.

To add an arm, add its line here: its name, the options of train.py in which it differs from the baseline, and those of
predict.py. Networks with equal options are trained once, whichever experiments they belong to.
"""

import math
from typing import NamedTuple

from utils.engine.recipes import RECIPES
from utils.errors import InputError
from utils.runs.config import DEFAULTS

RULE = """adopt: in the first figure, macro average precision, the gain over the baseline
is two standard errors or more (paired over seeds), and on HEp-2, where the
experiment can be made there, there is no loss of more than one standard error;
otherwise the simpler, the baseline, stays"""
GAIN, LOSS = 2.0, 1.0  # standard errors
OWN_DATA = "fold0"  # the place that is no table's, but the user's


def verdict(gain, second=()):
    """Apply `RULE`. gain: (mean, standard error) of an arm's paired differences. second: the same on HEp-2, None while that is not
    measured, () if it cannot be."""
    if math.isnan(gain[1]):
        return "no verdict from one seed"
    if not (gain[0] > 0 and gain[0] >= GAIN * gain[1]):
        return "simpler stays"
    if second == ():
        return "adopt"
    if second is None or math.isnan(second[1]):
        return "adopt if no loss on HEp-2"
    return "adopt" if second[0] >= -LOSS * second[1] else "simpler stays: loss on HEp-2"


class Arm(NamedTuple):
    """train, predict: options of train.py and predict.py. images: how many times as many it is trained on, for the estimate of time."""

    train: str = ""
    predict: str = ""
    images: float = 1


class Experiment(NamedTuple):
    """arms: the first is the baseline. places: the first decides, HEp-2 as the second must show no loss. taken_off: the arms lack an
    ingredient that the baseline has, so gain is what the baseline has over the arm."""

    compares: str
    seeds: int
    arms: dict
    network: str = "gapnet_pl"
    places: tuple = ("atlas", "hep2")
    taken_off: bool = False


class Network(NamedTuple):
    """train, predict: images per second on one core (AMD EPYC, 128²). disk: MB of a run."""

    options: str
    train: float
    predict: float
    disk: float


# Options of all runs; others are the recipe's. The rate falls to 0 and the last epoch is kept, so that no arm has the luck of a best one.
COMMON = """--recipe gapnet_pl --size 128 --fit resize --augment d4 --batch-size 16 --optimiser adamw --lr 0.001 --loss 1:bce
    --plateau none --lr-schedule cosine --warmup 1 --keep last"""
NETWORKS = {
    "gapnet_pl": Network("--epochs 10", 280, 440, 12),
    "lite0": Network("--epochs 6 --model timm:tf_efficientnet_lite0 --weights {lite0}", 30, 200, 55),
}

LOSSES = {
    "BCE": Arm(),
    "focal": Arm("--loss 1:focal(2)"),
    "focal, Lovasz, hard": Arm("--loss 1:28*focal(2,.5)+.5*lovasz+.5*hard_negatives"),
    "asymmetric": Arm("--loss 1:asymmetric"),
    "pos_weight": Arm("--loss 1:pos_weight_bce"),
}
PLAIN = "--lr-schedule none --warmup 0 --keep best"
EXTERNAL = "--folds {data}/few_external.csv"
EXPERIMENTS = {
    "E1": Experiment("loss", 5, LOSSES),
    "E1b": Experiment("loss, pretrained network", 3, LOSSES, "lite0"),
    "E2": Experiment(
        "sampler",
        5,
        {
            "each image once": Arm(),
            "repeat factors": Arm("--sampler repeat"),
            "balanced, then less": Arm("--sampler balanced"),
        },
    ),
    "E3": Experiment(
        "mixing",
        4,
        {
            "none": Arm(),
            "CutMix, union": Arm("--mix cutmix"),
            "CutMix, by area": Arm("--mix cutmix_area"),
            "mixup, union": Arm("--mix mixup"),
        },
    ),
    "E4": Experiment(
        "head",
        4,
        {"average": Arm(), "average and maximum": Arm("--head avg_max"), "attention": Arm("--head attention")},
        "lite0",
    ),
    "E5": Experiment(
        "optimisation",
        5,
        {
            "constant, best epoch": Arm(PLAIN),
            "constant, last epoch": Arm(f"{PLAIN} --keep last"),
            "cosine, last epoch": Arm(),
            "decay .02": Arm(f"{PLAIN} --weight-decay .02"),
            "decay .02, not norms": Arm(f"{PLAIN} --weight-decay .02 --no-decay-norms"),
            "moving average": Arm(f"{PLAIN} --ema .99"),
            "cosine, moving average": Arm("--ema .99"),
        },
        places=("hep2",),
    ),
    "E6": Experiment(
        "external rows, darker test",
        4,
        {
            "1,500 rows": Arm("--normalise dataset"),
            "per image": Arm("--normalise image"),
            "gain": Arm("--normalise dataset --augment gain"),
            "external": Arm(f"{EXTERNAL} --normalise dataset", images=5),
            "external, per image": Arm(f"{EXTERNAL} --normalise image", images=5),
            "external, gain": Arm(f"{EXTERNAL} --normalise dataset --augment gain", images=5),
        },
        places=("external",),
    ),
    "E7": Experiment("zoom crop", 4, {"whole": Arm(), "zoom": Arm("--fit zoom")}, places=("atlas256", "hep2")),
    "E8": Experiment(
        "test-time views",
        5,
        {
            "1 view": Arm(),
            "4, mean": Arm(predict="--tta 4"),
            "4, maximum": Arm(predict="--tta 4 --tta-reduce max"),
            "8, mean": Arm(predict="--tta 8"),
            "8, maximum": Arm(predict="--tta 8 --tta-reduce max"),
            "8 x 4 crops, mean": Arm(predict="--tta 8 --crops 4"),
            "8 x 4 crops, maximum": Arm(predict="--tta 8 --crops 4 --tta-reduce max"),
        },
    ),
}
# For one's own data, --on fold0: the option that takes an ingredient out of a recipe; recipes that lack it have no such arm.
WITHOUT = {
    "its loss": Arm("--loss 1:bce"),
    "its head": Arm("--head own"),
    "pretrained weights": Arm("--weights none"),
    "sampler": Arm("--sampler none"),
    "mixing": Arm("--mix none"),
    "its augmentation": Arm("--augment d4"),
    "zoom crop": Arm("--fit resize"),
    "normalising per image": Arm("--normalise dataset"),
    "warm-up": Arm("--warmup 0"),
    "cosine": Arm("--lr-schedule none"),
    "decay groups": Arm("--decay-norms"),
    "clipping": Arm("--clip 0"),
    "moving average": Arm("--ema 0"),
    "the last epoch": Arm("--keep best"),
    "TTA views": Arm(predict="--tta 1"),
}

LACKING = {
    "augment": "none",
    "fit": "crop",
    "normalise": "none",
}  # values of recipes from which there is nothing to leave out


def take_apart(recipe, seeds=3):
    """-> the Experiment that leaves out each ingredient of a recipe in turn."""
    has = DEFAULTS | RECIPES[recipe]
    arms = {f"without {name}": arm for name, arm in WITHOUT.items() if not _has_already(has, arm)}
    if not arms:
        raise InputError(f"the recipe {recipe} has none of the ingredients {', '.join(WITHOUT)}; name another --recipe")
    return Experiment(f"ingredients of {recipe}", seeds, {recipe: Arm()} | arms, recipe, (OWN_DATA,), taken_off=True)


def _has_already(recipe, arm):
    """Return whether a recipe's options are the arm's, or others without the ingredient. A flag stands alone, others before a value."""
    words = f"{arm.train} {arm.predict}".split()
    option = words[0].removeprefix("--").replace("-", "_")
    value = recipe[option]
    return value == (type(value)(words[1]) if len(words) > 1 else True) or value == LACKING.get(option)

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
    train: str = ""
    predict: str = ""


class Experiment(NamedTuple):
    """arms: the first is the baseline. places: the first decides, HEp-2 as the second may object. taken_off: the arms lack an
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


# Options of all runs. The recipe has those that stand nowhere here.
COMMON = (
    "--recipe gapnet_pl --size 128 --fit resize --augment d4 --batch-size 16 --optimiser adamw --lr 0.001 --loss 1:bce"
)
NETWORKS = {
    "gapnet_pl": Network("--epochs 10", 280, 800, 12),
    "lite0": Network("--epochs 6 --model timm:tf_efficientnet_lite0 --weights {lite0}", 30, 90, 55),
}

LOSSES = {"BCE": Arm(), "focal": Arm("--loss 1:focal"), "pos_weight": Arm("--loss 1:pos_weight_bce")}
EXPERIMENTS = {
    "E1": Experiment("loss", 5, LOSSES),
    "E1b": Experiment("loss, pretrained network", 3, LOSSES, "lite0"),
    "E6": Experiment(
        "external rows, darker test",
        4,
        {
            "1,500 rows": Arm(),
            "normalised per image": Arm("--normalise image"),
            "by dataset": Arm("--normalise dataset"),
            "external": Arm("--folds {data}/few_external.csv"),
            "external, by dataset": Arm("--folds {data}/few_external.csv --normalise dataset"),
        },
        places=("external",),
    ),
    "E8": Experiment(
        "TTA views",
        5,
        {
            "1 view": Arm(),
            "4, mean": Arm(predict="--tta 4"),
            "4, maximum": Arm(predict="--tta 4 --tta-reduce max"),
            "8, mean": Arm(predict="--tta 8"),
            "8, maximum": Arm(predict="--tta 8 --tta-reduce max"),
        },
    ),
}
# For one's own data, --on fold0: what is left of a recipe without an ingredient. Those that a recipe lacks are left out.
WITHOUT = {
    "loss": Arm("--loss 1:bce"),
    "pretrained weights": Arm("--weights none"),
    "augmentation": Arm("--augment d4"),
    "clipping": Arm("--clip 0"),
    "moving average": Arm("--ema 0"),
    "TTA views": Arm(predict="--tta 1"),
}


def take_apart(recipe, seeds=3):
    """-> the Experiment that leaves out each ingredient of a recipe in turn."""
    has = DEFAULTS | RECIPES[recipe]
    arms = {f"without {name}": arm for name, arm in WITHOUT.items() if not _has_already(has, arm)}
    if not arms:
        raise InputError(f"the recipe {recipe} has none of the ingredients {', '.join(WITHOUT)}; name another --recipe")
    return Experiment(f"ingredients of {recipe}", seeds, {recipe: Arm()} | arms, recipe, (OWN_DATA,), taken_off=True)


def _has_already(options, arm):
    """Return whether a recipe's options are those of the arm, so that nothing would differ."""
    words = f"{arm.train} {arm.predict}".split()
    pairs = zip(words[::2], words[1::2], strict=True)
    return all(_same(options[name.removeprefix("--").replace("-", "_")], text) for name, text in pairs)


def _same(value, text):
    return type(value)(text) == value

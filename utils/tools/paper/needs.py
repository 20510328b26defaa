"""What training a paper's runs takes: data, disk, GPU memory, hours. Hours are estimated, the assumption is printed."""

import warnings
from collections import namedtuple

import torch

from utils.data.images import parse_channels
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES
from utils.engine.recipes import RECIPES
from utils.errors import data_size
from utils.tools.gpu_hours import ASSUMED, CARDS, FULL_SIDE, hours
from utils.tools.gpu_memory import estimate
from utils.tools.paper.published import PAPERS

# data: what has to be there. train, valid, test: images. classes: how many. minutes: of --small on two cores.
Needs = namedtuple("Needs", "data train valid test classes minutes")
KAGGLE = "Kaggle's files in input/ (37 GB with archives; fetched if missing)"
NEEDS = {
    "chen": Needs(
        [
            KAGGLE,
            "11,111 samples of HPAv18 (18 GB to fetch, 5 GB on disk)",
            "ImageNet weights of SE-ResNeXt50 (111 MB)",
        ],
        *(27_965, 3_107, 11_111, len(HPA_CLASSES), 11),
    ),
    "gapnet_pl": Needs(
        [
            "the Cyto Challenge's train.csv and train/ in input/cyto, made by",
            "python -m utils.tools.import_cyto from the published samples; else",
            "Kaggle's full-size TIFFs in input/train (250 GB), classes merged to 13",
        ],
        *(15_004, 1_876, 1_876, len(CYTO_CLASSES), 10),
    ),
    "mylavarapu": Needs([KAGGLE], 24_000, 3_000, 4_072, len(HPA_CLASSES), 12),
    "poster": Needs([KAGGLE, "ImageNet weights of Xception (92 MB)"], 27_965, 3_107, 0, len(HPA_CLASSES), 5),
}


def print_needs(name):
    needs, recipes = NEEDS[name], [recipe for recipe in PAPERS[name].recipes if recipe != "liimatainen_fcn"]
    print(f"{PAPERS[name].title}\n")
    print("data        " + f"\n{'':12}".join(needs.data))
    packed = {_seen(recipe): _packed(recipe, needs) for recipe in recipes}
    print(f"disk        {data_size(sum(packed.values()))} for packed images, half of it if they are compressed")
    print(f"\n{'recipe':22}{'epochs':>7}{'images':>9}{'GPU memory, 16 bits':>21}{'hours, H200':>13}")
    memory = 0.0
    for recipe in recipes:
        options = RECIPES[recipe]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gigabytes = estimate(options, needs.classes, torch.bfloat16) / 1e9 + 1
        memory, own = max(memory, gigabytes), _hours(recipe, needs, "H200")
        print(f"{recipe:22}{options['epochs']:>7}{needs.train:>9,}{gigabytes:>18.1f} GB{own:>13.1f}")
    print("\nhours of all on one GPU, estimated")
    print("".join(f"{card:>10}" for card in CARDS))
    print("".join(f"{sum(_hours(recipe, needs, card) for recipe in recipes):>10.0f}" for card in CARDS))
    print("".join(f"{'fits' if memory < room else 'too small':>10}" for room, _ in CARDS.values()))
    print(f"{ASSUMED} If a card is too small, add --accumulate 2\nor --checkpointing.")
    print(f"\nsmall form  bash run.sh paper {name} --small")
    print(f"{'':12}about {needs.minutes} minutes on two cores; it needs no GPU and no data")


def _hours(recipe, needs, card):
    return hours(RECIPES[recipe], needs.train, needs.valid, needs.classes, card)


def _seen(recipe):
    return RECIPES[recipe]["channels"], _side(recipe)


def _side(recipe):
    return FULL_SIDE if RECIPES[recipe]["fit"] == "crop" else RECIPES[recipe]["size"]


def _packed(recipe, needs):
    """Bytes of the packed images that a recipe's runs read."""
    planes = len(parse_channels(RECIPES[recipe]["channels"]).names)
    return (needs.train + needs.valid + needs.test) * planes * _side(recipe) ** 2

"""The trained runs of a paper's recipes, and in what each differs from the recipe."""

from collections import namedtuple
from pathlib import Path

from utils.data.labels import CYTO_CLASSES, TEST_FOLD, read_folds
from utils.engine.recipes import RECIPES
from utils.errors import InputError
from utils.kaggle.submit import check_trained
from utils.runs.config import DEFAULTS, IGNORED_ON_RESUME
from utils.runs.predictions import check_same_ids
from utils.runs.run_folder import read_config, read_fold, read_numbers
from utils.tools import compare

TEST = "test.csv"  # in a run's folder: predict.py's file of the rows of fold -2
KAGGLES = "sample_submission.csv"  # lies beside the folders of Kaggle's images
SINGLE = "single"  # key of the run that was trained again on images of one class

# A trained run: its folder (Path), fold (of `read_fold`), changed {option: (the recipe's value, the run's)}, and
# note: what differs from the recipe, in words.
Trained = namedtuple("Trained", "folder fold changed note")
# One number of ours: its value, in what its setting differs, and which reading of the paper's word it is, if there are
# several.
Ours = namedtuple("Ours", "value note reading", defaults=("", ""))
# values: {(source of the table, row, column): [Ours]}. missing: {row or column: why there is none}. figures: [(file
# name, caption)]. labels: {row: what the page calls it}.
Results = namedtuple("Results", "values missing figures labels", defaults=({},))


def find_runs(folder, paper):
    """Find the runs of a paper's recipes in a folder: -> {row or column name of `Paper.recipes`: Trained}, and under
    `SINGLE` one trained with --single-label. Raises InputError for none, two of one recipe, or an unfinished one."""
    runs = {}
    for path in sorted(Path(folder).glob("*/fold0/config.json")):
        config = read_config(path.parent, "recipe")
        if config.recipe in paper.recipes and (path.parent / "oof.csv").is_file():
            again = config.single_label and not RECIPES[config.recipe]["single_label"]
            name = SINGLE if again else paper.recipes[config.recipe]
            if name in runs:
                both = f"{runs[name].folder} and {path.parent.parent}"
                raise InputError(f"{both} are of one recipe, {config.recipe}; move one to another folder")
            check_trained(path.parent.parent, [0])
            runs[name] = read_run(path.parent.parent)
    if not set(runs) & set(paper.recipes.values()):
        first = next(iter(paper.recipes))
        raise InputError(f"{folder} holds no trained run of the recipe {first}; train one with bash run.sh paper")
    return {name: runs[name] for name in [*paper.recipes.values(), SINGLE] if name in runs}


def read_run(folder):
    """Read fold 0 of a run: -> Trained."""
    fold = read_fold(folder / "fold0", "recipe", "epochs", "size", "weights", "loss")
    recipe, ignored = DEFAULTS | RECIPES[fold.config.recipe], IGNORED_ON_RESUME | {"recipe", "fold", "seed"}
    if fold.config.single_label:  # trained again as in the paper: the last layer, from the network's weights
        ignored |= {"single_label", "layers", "loss", "weights"}
    changed = {
        option: (recipe.get(option), value)
        for option, value in fold.config.changed_options(recipe).items()
        if option not in ignored
    }
    epochs = len(read_numbers(fold.folder / "log.csv", ["epoch"]))
    return Trained(folder, fold, changed, describe(fold.config, changed, epochs))


def describe(config, changed, epochs):
    """Say in what a run differs from its recipe: ``'random weights, 128² not 512², 10 of 40 epochs'``. changed: of
    `Trained`. epochs: that were trained."""
    rest, recipe = dict(changed), RECIPES[config.recipe]
    words = list(filter(None, [origin(config)]))
    if "weights" in rest:
        words.append("random weights" if config.weights == "none" else f"weights {config.weights}")
    if "size" in rest:
        words.append(f"{config.size}² not {recipe['size']}²")
    if epochs != recipe["epochs"]:
        words.append(f"{epochs} of {recipe['epochs']} epochs")
    if others := [option.replace("_", " ") for option in rest if option not in ("weights", "size", "epochs")]:
        words.append(f"other {', '.join(others)}")
    return ", ".join(words)


def origin(config):
    """Say where a run's images are from if it is not where the paper's are, else None."""
    beside = [Path(folder).parent for folder in config.images or []]
    if any((folder / "atlas.json").is_file() for folder in beside):
        return "simulated images"
    if config.class_names == list(CYTO_CLASSES) and any((folder / KAGGLES).is_file() for folder in beside):
        return "Kaggle's images, their 28 classes merged to 13"
    return None


def tested(run):
    """Read a run's predictions of the test rows, those of fold -2: Trained -> method_tables.Run. Raises InputError if
    they are not of exactly these rows, or if the run was trained on one of them."""
    table = run.fold.config.folds
    (own,) = compare.read_runs([run.folder])
    test = compare.predicted(own, TEST, table)
    rows = read_folds(table, run.fold.classes)
    check_same_ids(run.folder / TEST, test.ids, f"fold {TEST_FOLD} of {table}", rows["Id"][rows["fold"] == TEST_FOLD])
    return test

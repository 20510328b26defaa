"""The numbers of the two posters from trained runs: Mylavarapu's four models, and ConvNet, Xception and GapNet."""

from utils.data.labels import HPA_CLASSES
from utils.errors import InputError
from utils.plots import comparison as figures
from utils.runs.run_folder import kept_epoch, read_numbers
from utils.scoring.metrics import best_global_threshold, macro_f1
from utils.tools.method_tables import compare_methods, pooled
from utils.tools.paper.trained import Ours, Results, tested

RARE = ("Endosomes", "Lysosomes", "Rods & rings")
COLUMNS = {"train accuracy": "accuracy", "validation accuracy": "valid_accuracy"}
COLUMNS |= {"train loss": "bce", "validation loss": "valid_bce"}


def measure_mylavarapu(runs, human, out):
    """Measure macro F1 and the rarest classes of the test set, and draw figures into the folder `out`. -> Results."""
    _check(runs, human)
    tests, values = {name: tested(run) for name, run in runs.items()}, {}
    for name, test in tests.items():
        run, decisions = runs[name], test.probabilities >= 0.5
        values["Models and Results", name, "macro F1"] = _macro_f1(run, test, "the best for validation")
        for row in RARE:
            number = HPA_CLASSES.index(row)
            images = f"of {test.truth[:, number].sum():,} test images, at 0.5"
            right = int((test.truth[:, number] * decisions[:, number]).sum())
            values["Discussion", row, name] = [Ours(right, f"{images}; {run.note}".removesuffix("; "))]
    fold, note = next((run.fold, run.note) for run in runs.values())
    test = next(iter(tests.values()))
    counts = {"to train on": len(fold.train), "to validate on": len(fold.truth), "to test on": len(test.ids)}
    values |= {("Architecture, 3", row, "images"): [Ours(count, note)] for row, count in counts.items()}
    return Results(values, {}, _draw(runs, tests, "test", out))


def measure_poster(runs, human, out):
    """Measure accuracy, loss and macro F1 of the epochs kept, and draw figures into the folder `out`. -> Results."""
    _check(runs, human)
    validation, values = {name: pooled([run.fold]) for name, run in runs.items()}, {}
    for name, run in runs.items():
        log, best = read_numbers(run.fold.folder / "log.csv", ["epoch", *COLUMNS.values()]), kept_epoch(run.fold.folder)
        kept = log[log["epoch"] == best].iloc[0]
        for column, key in COLUMNS.items():
            notes = [run.note, f"epoch {best}, the one kept"]
            if column.endswith("accuracy"):
                notes.append(f"of all labels, at 0.5; with no class for any image {1 - run.fold.truth.mean():.3f}")
            values["Results & Analysis", name, column] = [Ours(kept[key], "; ".join(filter(None, notes)))]
        values["F1 Performance", name, "macro F1"] = _macro_f1(run, validation[name], "the best for these images")
    return Results(values, {}, _draw(runs, validation, "validation", out))


def _check(runs, human):
    if human:
        raise InputError("the posters compare no person; leave --human out")
    for run in runs.values():
        if run.fold.classes != list(HPA_CLASSES):
            raise InputError(f"{run.folder} has other classes than the competition's 28; train with --classes hpa")


def _macro_f1(run, images, how):
    """Macro F1 of `images` (a method_tables.Run) at 0.5 and at one threshold fitted on the run's validation images."""
    threshold, _ = best_global_threshold(run.fold.truth, run.fold.oof)
    ways = {"at 0.5": 0.5, f"at one threshold, {how}": threshold}
    scores = {way: macro_f1(images.truth, images.probabilities >= value) for way, value in ways.items()}
    return [Ours(score, run.note, way) for way, score in scores.items()]


def _draw(runs, images, which, out):
    compared = compare_methods({name: [own] for name, own in images.items()})
    figures.methods_by_class(compared.by_class_f1(), compared.positives, out / "classes.png")
    logs = {
        name: [read_numbers(runs[name].fold.folder / "log.csv", ["seconds", "macro_f1"])] for name in compared.order
    }
    figures.learning_curves(logs, out / "curves.png")
    classes = f"F1 of each class at 0.5, {which} images"
    return [("classes.png", classes), ("curves.png", "Macro F1 of the validation images by training time")]

"""The numbers and figures of Rumetshofer et al. from trained runs of the networks, and their predictions of a test set."""

import numpy as np

from utils.data.labels import CYTO_CLASSES
from utils.errors import InputError
from utils.plots import comparison as figures
from utils.runs.run_folder import read_numbers
from utils.scoring.significance import mcnemar, wilcoxon
from utils.tools.confusion import count, read_answers, single_scores
from utils.tools.method_tables import compare_methods
from utils.tools.paper.trained import SINGLE, TEST, Ours, Results, tested

BEST, EXPERT = "GapNet-PL", "human expert"
ROWS = {"both": "both right", "only_first": "only GapNet-PL right", "only_second": "only expert right"}
ROWS |= {"neither": "neither right"}
PRINTED = {"both": 121, "only_first": 60, "only_second": 7, "neither": 12}  # Table 4
OWN_COUNTS = "from the counts of the paper's Table 4"
NO_PERSON = "no person's labels; give --human"


def measure(runs, human, out):
    """Measure Tables 1, 2, 7 and the expert's 3 and 4, and draw figures into the folder `out`. runs: of `find_runs`.
    human: the file of a person's labels of test images of one class, or None. -> Results."""
    for run in runs.values():
        if run.fold.classes != list(CYTO_CLASSES):
            raise InputError(f"{run.folder} has other classes than the paper's 13; train with --classes cyto")
    tests = {name: tested(run) for name, run in runs.items()}
    single = judge(tests[SINGLE], human) if SINGLE in runs else None
    compared = compare_methods({name: [test] for name, test in tests.items() if name != SINGLE})
    notes = {name: run.note for name, run in runs.items()}
    values = table_one(compared, notes) | table_two(compared, notes) | table_seven(compared, notes)
    values |= _data(next(iter(runs.values())), next(iter(tests.values())), runs.get(SINGLE), single)
    drawn = [("classes.png", "F1 of each class"), ("curves.png", "Macro F1 of the validation images by training time")]
    figures.methods_by_class(compared.by_class_f1(), compared.positives, out / "classes.png")
    logs = {
        name: [read_numbers(runs[name].fold.folder / "log.csv", ["seconds", "macro_f1"])] for name in compared.order
    }
    figures.learning_curves(logs, out / "curves.png")
    missing = dict.fromkeys([EXPERT, *ROWS.values()], NO_PERSON)
    if single:
        values |= tables_three_and_four(single, runs[SINGLE].note, human)
        draw_matrices(single, list(CYTO_CLASSES), out / "confusion.png")
        drawn.append(("confusion.png", "Fig. 5: confusion matrices, images of one class"))
    else:
        rows = ["of one class, to fine-tune on", "of one class, network against expert", EXPERT, *ROWS.values(), "p"]
        missing |= dict.fromkeys(rows, "no run of gapnet_pl with --single-label")
    return Results(values, missing, drawn)


def _data(run, test, fine_tuned, single):
    counts = {"to train on": len(run.fold.train), "to validate on": len(run.fold.truth), "to test on": len(test.ids)}
    if single:
        counts["of one class, to fine-tune on"] = len(fine_tuned.fold.train)
        counts["of one class, network against expert"] = len(single["true"])
    return {("Section 2", row, "images"): [Ours(value, run.note)] for row, value in counts.items()}


def table_one(compared, notes):
    """Table 1, at 0.5: -> values of `Results`."""
    values = {}
    for name, scores in compared.by_class.items():
        numbers = {"F1": scores["f1"].mean(), "F1 ±": scores["f1"].std()}
        numbers |= {key: scores[key].mean() for key in ("precision", "recall")}
        numbers |= {"AUC": np.nanmean(scores["auc"]), "AUC ±": np.nanstd(scores["auc"])}
        if BEST in compared.by_class and name != BEST:
            numbers["p"] = wilcoxon(compared.by_class[BEST]["f1"], scores["f1"])
        values |= {("Table 1", name, column): [Ours(value, notes[name])] for column, value in numbers.items()}
    return values


def table_two(compared, notes):
    """Table 2, at 0.5: -> values of `Results`."""
    winners, values = compared.by_class_f1()["winner"].tolist(), {}
    for name, scores in compared.by_class.items():
        rows = dict(zip(CYTO_CLASSES, scores["f1"], strict=True)) | {"Mean": scores["f1"].mean()}
        rows["classes won"] = winners.count(name)
        values |= {("Table 2", row, name): [Ours(value, notes[name])] for row, value in rows.items()}
    return values


def table_seven(compared, notes):
    values = {}
    for name, cost in compared.cost.iterrows():
        numbers = {"seconds per epoch": cost["epoch_seconds"], "parameters": cost["parameters"]}
        values |= {("Table 7", name, column): [Ours(value, notes[name])] for column, value in numbers.items()}
    return values


def judge(test, human):
    """Answers for the test images of one class: -> {true, network, person (None without `human`): (n,) class numbers}."""
    rows = test.truth.sum(axis=1) == 1
    person = read_answers(human, test.classes, np.array(test.ids), TEST) if human else None
    if human:
        rows &= person >= 0
    if not rows.any():
        raise InputError(f"no test image{' in ' + human if human else ''} has exactly one class; give such images")
    answers = {"true": test.truth.argmax(axis=1), "network": test.probabilities.argmax(axis=1), "person": person}
    return {who: None if part is None else part[rows] for who, part in answers.items()}


def tables_three_and_four(single, note, human):
    """-> values of `Results`. Without a person, what follows from the paper's own counts."""
    answers = {BEST: single["network"]} | ({EXPERT: single["person"]} if human else {})
    present = np.unique(np.concatenate([single["true"], *answers.values()]))
    values = {}
    for who, part in answers.items():
        scores = single_scores(single["true"], part, present)
        names = {"accuracy": "accuracy", "F1": "f1", "precision": "precision", "recall": "recall"}
        values |= {("Table 3", who, column): [Ours(scores[key], note)] for column, key in names.items()}
    if human:
        test = mcnemar(*(part == single["true"] for part in answers.values()))
        values |= {("Table 4", row, "images"): [Ours(test[key], note)] for key, row in ROWS.items()}
        values["Table 4", "p", "images"] = [Ours(test["p"], note)]
        return values
    cases = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], list(PRINTED.values()), axis=0).astype(bool)
    values["Table 3", EXPERT, "accuracy"] = [Ours(cases[:, 1].mean(), OWN_COUNTS)]
    values["Table 4", "p", "images"] = [Ours(mcnemar(*cases.T)["p"], OWN_COUNTS)]
    return values


def draw_matrices(single, classes, path):
    answers = {"network": single["network"]} | ({} if single["person"] is None else {"person": single["person"]})
    right = {who: (part == single["true"]).mean() for who, part in answers.items()}
    titles = [f"{who}: {right[who]:.1%} of {len(single['true']):,} images right" for who in answers]
    matrices = [count(single["true"], part, len(classes)) for part in answers.values()]
    figures.confusion_matrices(dict(zip(titles, matrices, strict=True)), classes, path)

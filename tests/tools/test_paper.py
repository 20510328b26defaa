"""bash run.sh paper, and python -m utils.tools.paper: a paper's numbers beside ours."""

import json
import os
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, lay_out_kit, random_table, refuse, succeed, write_labels
from scipy.stats import wilcoxon
from sklearn import metrics as sk

from utils import models
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES, decode, encode
from utils.engine.recipes import RECIPES
from utils.scoring.significance import mcnemar
from utils.tools import gpu_hours
from utils.tools.paper.published import PAPERS, number

PAPER, OPTIONS = "utils.tools.paper.__main__", {"average": None, "zero_division": 0}
NOTHING = "no person's labels; give --human"


def published(paper, source):
    """A table of a paper: {row: {column: value or None}}."""
    (table,) = [table for table in PAPERS[paper].tables if table.source == source]
    cells = {row: [None if cell is None else number(cell) for cell in cells] for row, cells in table.rows.items()}
    return {row: dict(zip(table.columns, values, strict=True)) for row, values in cells.items()}


def column(rows, name):
    return np.array([row[name] for row in rows.values()], float)


def test_the_printed_numbers_agree_with_each_other():
    """A slip of the pen in one would show in another."""
    two = published("chen", "Table II")
    for who in ("human", "machine"):
        part = {row: cells[who] for row, cells in two.items()}
        assert part["correct labels"] / part["total labels"] == pytest.approx(part["binary accuracy"], abs=1e-4)
    text = published("chen", "Sections III and IV")
    images, labelled = (
        text[row]["machine"] for row in ("test images, never trained on", "images that a person labelled")
    )
    assert (two["total labels"]["machine"], labelled) == (28 * images, 203) and two["total labels"]["human"] == 28 * 210
    raw = column(published("chen", "Table I"), "raw")[1:]
    assert np.abs(raw * 999 - np.round(raw * 999)).max() < 0.06 and len(raw) == 28, "grid points, rounded"
    speed = published("chen", "Table III")
    speed = {row: cells["one P100, 16 vCPU"] for row, cells in speed.items()}
    assert speed["images per second"] == 1 / speed["4x512x512 .npy, batch 64"]

    one, rows = published("gapnet_pl", "Table 1"), published("gapnet_pl", "Table 2")
    f1 = {name: column({row: rows[row] for row in CYTO_CLASSES}, name) for name in rows["Mean"]}
    for name, values in f1.items():
        assert values.mean() == pytest.approx(rows["Mean"][name], abs=1e-3)
        assert values.mean() == pytest.approx(one[name]["F1"], abs=6e-3)
        assert values.std() == pytest.approx(one[name]["F1 ±"], abs=6e-3)
        if name != "GapNet-PL":
            p = wilcoxon(f1["GapNet-PL"], values, alternative="greater", method="approx").pvalue
            assert p == pytest.approx(one[name]["p"], abs=6e-5)
    winners = np.bincount(np.argmax(list(f1.values()), axis=0), minlength=5)
    assert winners.tolist() == [rows["classes won"][name] or 0 for name in f1]
    four = published("gapnet_pl", "Table 4")
    counts = [int(cells["images"]) for cells in list(four.values())[:4]]
    cases = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], counts, axis=0)
    assert len(cases) == 200 and f"{mcnemar(*cases.T)['p']:.0e}" == "2e-10" and four["p"]["images"] == 2e-10
    split = column(published("gapnet_pl", "Section 2"), "images")[:3]
    assert split.sum() == 18_756 and column(published("mylavarapu", "Architecture, 3"), "images").sum() == 31_072
    for recipe, name in list(PAPERS["gapnet_pl"].recipes.items())[:5]:
        network = models.build(RECIPES[recipe]["model"], 13, 4, 1024) if recipe != "deeploc" else None
        if network:
            parameters = sum(weight.numel() for weight in network.parameters())
            assert parameters == published("gapnet_pl", "Table 7")[name]["parameters"]


class Page(HTMLParser):
    """The cells of a page's tables, row by row, and the files that it shows."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.files, self.open = [], [], None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.open = tag
        self.files += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open in ("td", "th"):
            self.rows[-1][-1] += data


def read_page(folder, paper):
    """numbers.csv of a page, {(source, what): row}, after checking the page against it and against the paper."""
    page, numbers = Page(folder / "index.html"), pd.read_csv(folder / "numbers.csv")
    assert page.files and all((folder / file).is_file() for file in page.files)
    shown = [row for row in page.rows if len(row) == 5 and row[1:3] != ["paper", "ours"] and row[1] != "folder"]
    lines = shown[len(shown) - len(numbers) :]
    assert [row[0] for row in lines] == numbers["what"].tolist()
    for table in PAPERS[paper].tables:
        printed = [cell for cells in table.rows.values() for cell in cells if cell is not None]
        own = numbers["source"] == table.source
        texts = [row[1] for row, mine in zip(lines, own, strict=True) if mine]
        for cell in set(printed):
            assert texts.count(cell) >= printed.count(cell), (table.source, cell)
    for row, (_, line) in zip(lines, numbers.iterrows(), strict=True):
        assert np.isnan(line["paper"]) or number(row[1]) == line["paper"]
        if not np.isnan(line["ours"]):
            assert number(row[2].replace("<", "")) == pytest.approx(line["ours"], rel=0.3, abs=0.06)
            assert np.isnan(line["paper"]) or line["difference"] == pytest.approx(line["ours"] - line["paper"])
        assert line["note"] != "not measured"
    return numbers.fillna({"note": ""}).set_index(["source", "what"])


def truth_of(path, ids, classes):
    targets = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("Id")["Target"]
    return encode(targets.loc[list(ids)], classes)


def read(path):
    table = pd.read_csv(path, dtype={"Id": str}).set_index("Id")
    return table.index.tolist(), table.to_numpy()


def scores(truth, decisions):
    """Chen's Table II by scikit-learn: {(name, way of averaging): value}."""
    found = {("binary accuracy", ""): (truth == decisions).mean(), ("correct labels", ""): (truth == decisions).sum()}
    found["F1, macro", ""] = sk.f1_score(truth, decisions, average="macro", zero_division=0)
    functions = {"precision": sk.precision_score, "recall": sk.recall_score, "IoU": sk.jaccard_score}
    for name, function in functions.items():
        ways = {"class mean": "macro", "sample mean": "samples", "pooled": "micro"}
        found |= {(name, w): function(truth, decisions, average=a, zero_division=0) for w, a in ways.items()}
    return found


def test_chens_paper_in_one_command(tmp_path, python, monkeypatch):
    """bash run.sh paper chen --small, smaller still, from nothing to the page; then with a person's labels."""
    kit = lay_out_kit(tmp_path / "kit", python)

    def call(*words):
        environment = os.environ | {"IMAGES": "40", "OMP_NUM_THREADS": "1"}
        command = ["bash", kit / "run.sh", "paper", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    for words, says in (["other"], "unknown paper"), (["chen", "--small", "--fold=1"], "--fold is given by the paper"):
        wrong = call(*words)
        assert wrong.returncode == 2 and says in wrong.stderr and not (kit / "input").exists()
    options = ["--model", "gapnet_pl", "--size", "32", "--epochs", "2", "--workers", "0", "--loss", "1:bce"]
    done = call("chen", "--small", *options, "--augment", "none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("-> runs/small_chen/page/index.html")

    monkeypatch.chdir(kit)
    run, table = kit / "runs/small_chen/chen", kit / "input/small/paper_chen.csv"
    numbers = read_page(kit / "runs/small_chen/page", "chen")
    ids, probabilities = read(run / "test.csv")
    truth = truth_of(table, ids, HPA_CLASSES)
    fitted = np.array(json.loads((run / "thresholds.json").read_text())["thresholds"])
    for way, thresholds in {"threshold 0.268": 0.268, "fitted thresholds": fitted}.items():
        for (name, reading), value in scores(truth, probabilities >= thresholds).items():
            what = f"{name}, machine ({', '.join(filter(None, [way, reading]))})"
            assert numbers.loc[("Table II", what), "ours"] == pytest.approx(value), what
    iou = sk.jaccard_score(truth, probabilities >= 0.268, **OPTIONS)
    text = numbers.loc["Sections III and IV", "ours"]
    assert text["accuracy of the best class"] == pytest.approx(iou.max())
    assert text["accuracy of Nucleoli"] == pytest.approx(iou[2])
    assert (text["test images, never trained on"], text["epochs"]) == (len(ids), 2)
    log, speed = pd.read_csv(run / "fold0/log.csv"), pd.read_csv(run / "speed.csv")
    last = log[["soft_f1", "precision", "recall"]].iloc[-1].tolist()
    assert text[["training F1", "training precision", "training recall"]].tolist() == [1 - last[0], *last[1:]]
    own, oof = read(run / "fold0/oof.csv")
    grid, labels = np.linspace(0, 1, 1000), truth_of(table, own, HPA_CLASSES)
    f1 = [sk.f1_score(labels, oof >= point, average="macro", zero_division=0) for point in grid]
    assert numbers.loc[("Table I", "All, raw"), "ours"] == text["threshold for all classes"] == grid[np.argmax(f1)]
    f1 = [sk.f1_score(labels[:, 0], oof[:, 0] >= point, zero_division=0) for point in grid]
    assert numbers.loc[("Table I", "0 Nucleoplasm, raw"), "ours"] == grid[np.argmax(f1)]
    three = numbers.loc["Table III", "ours"]
    assert three["4x1728x1728 .jpg, batch 1"] == speed["all"][0] and three["images per second"] == 1 / speed["all"][2]
    setting = numbers.loc[("Table II", "F1, macro, machine (threshold 0.268)"), "note"]
    assert all(word in setting for word in ("simulated", "random weights", "32² not 512²", "2 of 40 epochs", "model"))
    assert numbers.loc[("Table II", "IoU, human"), "note"] == NOTHING

    human = write_labels(kit / "human.csv", dict.fromkeys(ids[:3], "0 25"))
    succeed(PAPER, "chen", "--runs", "runs/small_chen", "--human", human)
    numbers = read_page(kit / "runs/small_chen/page", "chen")
    answers = encode(["0 25"] * 3, HPA_CLASSES)
    for (name, reading), value in scores(truth[:3], answers).items():
        what = f"{name}, human" + f" ({reading})" * bool(reading)
        assert numbers.loc[("Table II", what), "ours"] == pytest.approx(value), what
    pd.read_csv(run / "test.csv").iloc[1:].to_csv(run / "test.csv", index=False)
    refuse(PAPER, "chen", "--runs", "runs/small_chen", says=["test.csv", "1 Id missing", "fold -2"])


def commands(folder, paper):
    """What bash run.sh paper prints on the real data if nothing is run: a list of words per command."""
    text = (ROOT / "run.sh").read_text()
    start, end = text.index("step() {"), text.index("# once FILE")
    (folder / "run.sh").write_text(text[:start] + 'step() { typed "$@"; }\n' + text[end:])
    (folder / ".venv/bin").mkdir(parents=True, exist_ok=True)
    for name in ("requirements.txt", ".venv/requirements.installed"):
        (folder / name).touch()
    python = folder / ".venv/bin/python"
    python.write_text("#!/bin/sh\necho gpus=0\necho crop=1024\n")
    python.chmod(0o755)
    done = subprocess.run(["bash", folder / "run.sh", "paper", paper], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()[1:]]


@pytest.mark.parametrize("paper", PAPERS)
def test_the_commands_of_a_paper_on_real_data(paper, tmp_path):
    """Data, folds, each recipe trained and found finished before the next, predictions of the test rows, the page."""
    called, place = commands(tmp_path, paper), f"runs/paper_{paper}"
    assert called[0][2:] == [PAPER.removesuffix(".__main__"), paper, "--needs"]
    assert called[-1][2:] == [PAPER.removesuffix(".__main__"), paper, "--runs", place]
    trained = [
        (words[words.index("--recipe") + 1], words[words.index("--name") + 1])
        for words in called
        if "train.py" in words
    ]
    wanted = [(recipe, recipe) for recipe in PAPERS[paper].recipes if recipe != "liimatainen_fcn"]
    single = [("gapnet_pl", "single")] if paper == "gapnet_pl" else []
    assert sorted(trained[: len(wanted)]) == sorted(wanted) and trained[len(wanted) :] == single
    finished = [words[3] for before, words in zip(called, called[1:]) if "train.py" in before]
    assert finished == [f"{place}/{name}" for _, name in trained]
    predicted = [words[2] for words in called if words[1] == "predict.py" and "--benchmark" not in words]
    assert predicted == ([] if paper == "poster" else finished)
    texts = "\n".join(map(" ".join, called))
    table = f"input/paper_{paper}.csv"
    assert texts.count(f"--folds {table}") >= len(trained) and f"-o {table}" in texts and "utils.kaggle.fetch" in texts
    for words in {
        "chen": ["--limit 11111", "--test other=input/hpav18.csv", "threshold.py", "--benchmark"],
        "gapnet_pl": ["--crop 1024", "utils.kaggle.merge_labels", "--split 8:1:1"],
        "mylavarapu": ["--split 24000:3000:4072"],
        "poster": [],
    }[paper]:
        assert words in texts
    if paper == "gapnet_pl":
        (tmp_path / "input/cyto").mkdir(parents=True)
        (tmp_path / "input/cyto/train.csv").touch()
        texts = "\n".join(map(" ".join, commands(tmp_path, paper)))
        assert "--labels input/cyto/train.csv" in texts and "utils.kaggle.fetch" not in texts


@pytest.fixture
def place(run, tmp_path, monkeypatch):
    """A function that lays a run of a recipe into the folder `own`, with random predictions: (recipe, classes, name,
    **config)."""
    monkeypatch.chdir(tmp_path)
    rows, tests = 48, 30

    def lay(recipe, classes, name=None, **changes):
        seed = list(RECIPES).index(recipe) + len(changes)
        truth, oof = random_table(0, rows, len(classes), absent=False)[0], random_table(seed, rows, len(classes))[1]
        test, predicted = (
            random_table(1, tests, len(classes), absent=False)[0],
            random_table(seed, tests, len(classes))[1],
        )
        predicted = np.clip(0.6 * predicted + 0.4 * test, 0, 1)  # better than chance
        folder = tmp_path / "own" / (name or recipe)
        shutil.copytree(run / "fold0", folder / "fold0")
        ids = {"train": [f"a{n}" for n in range(rows)], "valid": [f"b{n}" for n in range(rows)]}
        targets = decode(truth)
        parts = [pd.DataFrame({"Id": part, "Target": targets, "part": what}) for what, part in ids.items()]
        pd.concat(parts).to_csv(folder / "fold0/rows.csv", index=False)
        for path, names, values in (
            (folder / "fold0/oof.csv", ids["valid"], oof),
            (folder / "test.csv", [f"t{n}" for n in range(tests)], predicted),
        ):
            pd.DataFrame(values, columns=list(classes)).assign(Id=names).to_csv(path, index=False)
        folds = [part.assign(fold=fold) for part, fold in zip(parts, (-1, 0), strict=True)]
        unseen = pd.DataFrame({"Id": [f"t{n}" for n in range(tests)], "Target": decode(test), "fold": -2})
        pd.concat([*folds, unseen]).to_csv("folds.csv", index=False)
        path = folder / "fold0/config.json"
        config = json.loads(path.read_text()) | RECIPES[recipe] | {"recipe": recipe, "class_names": list(classes)}
        planes = {"green": 1, "gbr": 3, "rgb": 3, "rgb+y/3": 3}.get(config["channels"], 4)
        config |= {"folds": "folds.csv", "planes": planes, "mean": [0.1] * planes, "std": [0.1] * planes} | changes
        path.write_text(json.dumps(config))
        return folder

    return lay


def expected_f1(path, labels, classes, threshold=0.5):
    ids, probabilities = read(path)
    return sk.f1_score(truth_of(labels, ids, classes), probabilities >= threshold, **OPTIONS)


def test_tables_of_the_comparison_of_networks(place, tmp_path):
    names = dict(list(PAPERS["gapnet_pl"].recipes.items())[:5])
    runs = {name: place(recipe, CYTO_CLASSES) for recipe, name in names.items()}
    single = place("gapnet_pl", CYTO_CLASSES, "single", single_label=True, layers="last", loss="1:cross_entropy")
    succeed(PAPER, "gapnet_pl", "--runs", "own", "-o", "page")
    numbers = read_page(tmp_path / "page", "gapnet_pl")
    f1 = {name: expected_f1(folder / "test.csv", "folds.csv", CYTO_CLASSES) for name, folder in runs.items()}
    for name, folder in runs.items():
        ids, probabilities = read(folder / "test.csv")
        truth, ours = truth_of("folds.csv", ids, CYTO_CLASSES), numbers["ours"]
        assert ours["Table 1", f"{name}, F1"] == pytest.approx(f1[name].mean())
        assert ours["Table 1", f"{name}, F1 ±"] == pytest.approx(f1[name].std())
        for score, function in {"precision": sk.precision_score, "recall": sk.recall_score}.items():
            assert ours["Table 1", f"{name}, {score}"] == pytest.approx(
                function(truth, probabilities >= 0.5, **OPTIONS).mean()
            )
        auc = [sk.roc_auc_score(own, p) for own, p in zip(truth.T, probabilities.T) if 0 < own.sum() < len(own)]
        assert ours["Table 1", f"{name}, AUC"] == pytest.approx(np.mean(auc))
        assert ours["Table 1", f"{name}, AUC ±"] == pytest.approx(np.std(auc))
        assert [ours["Table 2", f"{row}, {name}"] for row in CYTO_CLASSES] == pytest.approx(f1[name].tolist())
        assert ours["Table 2", f"Mean, {name}"] == pytest.approx(f1[name].mean())
        log = pd.read_csv(folder / "fold0/log.csv")
        assert ours["Table 7", f"{name}, seconds per epoch"] == pytest.approx(log["seconds"].mean())
        if name != "GapNet-PL":
            p = wilcoxon(f1["GapNet-PL"], f1[name], alternative="greater", method="approx").pvalue
            assert ours["Table 1", f"{name}, p"] == pytest.approx(p)
    ids, probabilities = read(single / "test.csv")
    truth = truth_of("folds.csv", ids, CYTO_CLASSES)
    alone = truth.sum(axis=1) == 1
    true, answers = truth[alone].argmax(axis=1), probabilities[alone].argmax(axis=1)
    three = {"accuracy": sk.accuracy_score(true, answers), "F1": sk.f1_score(true, answers, average="macro")}
    for key, value in three.items():
        assert numbers.loc[("Table 3", f"GapNet-PL, {key}"), "ours"] == pytest.approx(value)
    assert numbers.loc[("Table 3", "human expert, accuracy"), "ours"] == pytest.approx(0.64)  # 128 of 200
    assert numbers.loc[("Table 4", "p"), "ours"] == pytest.approx(2.1e-10, rel=0.01)
    assert numbers.loc[("Section 2", "of one class, network against expert"), "ours"] == alone.sum()
    assert numbers.loc[("Table 1", "Liimatainen et al., F1"), "note"] == "no run of the recipe liimatainen_fcn"
    assert "other loss" not in numbers.loc[("Table 3", "GapNet-PL, accuracy"), "note"]

    person = {
        id_: str((answer + (place_ % 2)) % 13) for place_, (id_, answer) in enumerate(zip(np.array(ids)[alone], true))
    }
    human = write_labels(tmp_path / "human.csv", person)
    succeed(PAPER, "gapnet_pl", "--runs", "own", "-o", "page", "--human", human)
    four = read_page(tmp_path / "page", "gapnet_pl").loc["Table 4", "ours"]
    right = np.arange(len(true)) % 2 == 0
    assert (
        four["both right"] == (right & (answers == true)).sum()
        and four["only expert right"] == (right & (answers != true)).sum()
    )

    shutil.rmtree(runs["DeepLoc"])
    succeed(PAPER, "gapnet_pl", "--runs", "own", "-o", "page")
    assert (
        read_page(tmp_path / "page", "gapnet_pl").loc[("Table 1", "DeepLoc, F1"), "note"]
        == "no run of the recipe deeploc"
    )
    place("gapnet_pl", CYTO_CLASSES, "again")
    refuse(PAPER, "gapnet_pl", "--runs", "own", says=["again", "one recipe"])


def test_four_models_and_their_channels(place, tmp_path):
    runs = {f"model {number}": place(f"mylavarapu_{number}", HPA_CLASSES) for number in range(1, 5)}
    succeed(PAPER, "mylavarapu", "--runs", "own")
    numbers = read_page(tmp_path / "own/page", "mylavarapu")
    for name, folder in runs.items():
        f1 = expected_f1(folder / "test.csv", "folds.csv", HPA_CLASSES).mean()
        assert numbers.loc[("Models and Results", f"{name} (at 0.5)"), "ours"] == pytest.approx(f1)
        ids, probabilities = read(folder / "test.csv")
        truth = truth_of("folds.csv", ids, HPA_CLASSES)
        for row in ("Endosomes", "Lysosomes", "Rods & rings"):
            number = HPA_CLASSES.index(row)
            right = (truth[:, number] * (probabilities[:, number] >= 0.5)).sum()
            assert numbers.loc[("Discussion", f"{row}, {name}"), "ours"] == right
    refuse(PAPER, "mylavarapu", "--runs", "own", "--human", "x.csv", says="leave --human out")
    (folder / "test.csv").unlink()
    refuse(PAPER, "mylavarapu", "--runs", "own", says=["test.csv", "predict.py"])
    refuse(PAPER, "poster", "--runs", "own", says=["poster_convnet_rgb", "run.sh paper"])


def test_accuracy_and_loss_of_the_posters_systems(place, tmp_path):
    runs = {name: place(recipe, HPA_CLASSES) for recipe, name in PAPERS["poster"].recipes.items()}
    for seed, folder in enumerate(runs.values()):
        log = pd.read_csv(folder / "fold0/log.csv")
        columns = ["accuracy", "valid_accuracy", "bce", "valid_bce"]
        log[columns] = np.random.default_rng(seed).random((len(log), 4))
        log.to_csv(folder / "fold0/log.csv", index=False)
    succeed(PAPER, "poster", "--runs", "own")
    numbers = read_page(tmp_path / "own/page", "poster")
    titles = ["train accuracy", "validation accuracy", "train loss", "validation loss"]
    for name, folder in runs.items():
        log = pd.read_csv(folder / "fold0/log.csv")
        best = log.loc[log["macro_f1"].idxmax(), columns]
        ours = [numbers.loc[("Results & Analysis", f"{name}, {title}"), "ours"] for title in titles]
        assert ours == pytest.approx(best.tolist())
        f1 = expected_f1(folder / "fold0/oof.csv", "folds.csv", HPA_CLASSES).mean()
        assert numbers.loc[("F1 Performance", f"{name} (at 0.5)"), "ours"] == pytest.approx(f1)


def test_what_a_paper_needs_is_printed():
    """SE-ResNeXt50 has 4.25 billion multiply-adds at 224² (Hu et al. 2018, Table 2)."""
    expected = 2 * 4.25e9 * (512 / 224) ** 2
    assert gpu_hours.operations(RECIPES["chen"], 28) == pytest.approx(expected, rel=0.03)
    out = succeed(PAPER, "chen", "--needs").out
    (line,) = [line for line in out.splitlines() if line.startswith("chen ")]
    steps = 437 * gpu_hours.STEP  # of 64 images
    hours = 40 * ((27_965 + 3_107 / 3) / 577 + steps) / 3600
    assert line.split()[1:3] == ["40", "27,965"] and float(line.split()[-1]) == pytest.approx(hours, abs=0.06)
    lines = [line.replace("RTX 4090", "RTX4090").split() for line in out.splitlines()]
    cards = next(place for place, words in enumerate(lines) if "T4" in words)
    on = dict(zip(*lines[cards : cards + 2], strict=True))
    assert list(on) == [card.replace(" ", "") for card in gpu_hours.CARDS] and int(on["T4"]) > 2 * int(on["A100"]) > 0

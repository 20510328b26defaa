"""make_folds.py: every row once, classes even, groups unbroken, seeded."""

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed, train_options, write_images, write_labels
from hypothesis import given, settings
from hypothesis import strategies as st

import make_folds
from utils.data.labels import load_classes, split_fold
from utils.errors import InputError
from utils.opencv import cv2
from utils.runs.predictions import read_predictions
from utils.scoring.stratify import even_out
from utils.simulator import write
from utils.simulator.plan import Settings


@pytest.fixture(scope="module")
def real_table(tmp_path_factory):
    """A label table with the real counts: every tenth image of each of the 577 real label sets, rare ones all."""
    sets = pd.read_csv("utils/simulator/label_sets.csv", dtype={"Target": str})
    counts = np.where(sets["count"] < 30, sets["count"], sets["count"] // 10)
    targets = np.repeat(sets["Target"].to_numpy(), counts)
    path = tmp_path_factory.mktemp("labels") / "train.csv"
    return write_labels(path, {f"row{i:05}": target for i, target in enumerate(targets)})


def read(path):
    return pd.read_csv(path, dtype={"Id": str, "Target": str}, keep_default_na=False)


def matrix(table):
    labels = np.zeros((len(table), 28), int)
    for row, target in enumerate(table["Target"]):
        labels[row, [int(word) for word in target.split()]] = 1
    return labels


def test_every_row_once_classes_even_and_seeded(real_table, tmp_path):
    source = read(real_table)
    assert matrix(source)[:, 27].sum() == 11
    folds = []
    for number, seed in enumerate((0, 0, 1)):
        succeed("make_folds", "--labels", real_table, "--seed", seed, "-o", tmp_path / f"{number}.csv")
        table = read(tmp_path / f"{number}.csv")
        folds.append(table["fold"].tolist())
        assert table["Id"].tolist() == source["Id"].tolist() and table["Target"].tolist() == source["Target"].tolist()
        labels = matrix(table)
        counts = np.stack([labels[table["fold"] == fold].sum(axis=0) for fold in range(10)])
        assert counts.sum() == labels.sum() and sorted(counts[:, 27]) == [1] * 9 + [2]
        rare = labels.sum(axis=0) < 60
        assert rare.sum() >= 4 and (counts.max(axis=0) - counts.min(axis=0))[rare].max() <= 1
        assert np.abs(counts - labels.sum(axis=0) / 10).max() < 3
    assert folds[0] == folds[1] != folds[2]


def test_external_rows_are_split_and_always_train_rows_are_not(tmp_path):
    labels = write_labels(tmp_path / "train.csv", {f"k{i}": str(i % 3) for i in range(30)})
    more = write_labels(tmp_path / "more.csv", {f"e{i}": str(i % 3) for i in range(30)})
    only = write_labels(tmp_path / "only.csv", {f"a{i}": "27" for i in range(5)})
    succeed("make_folds", "--labels", labels, "--external", f"hpav18={more}", "--always-train", f"lab={only}",
            "--folds", 5, "-o", tmp_path / "folds.csv")  # fmt: skip
    table = read(tmp_path / "folds.csv")
    assert table["source"].value_counts().to_dict() == {"kaggle": 30, "hpav18": 30, "lab": 5}
    assert (table["fold"][table["source"] == "lab"] == -1).all()
    assert table["fold"][table["source"] != "lab"].value_counts().to_dict() == {fold: 12 for fold in range(5)}


def test_one_source_validates_alone_and_the_others_are_trained_on_in_other_folds(tmp_path):
    labels = write_labels(tmp_path / "train.csv", {f"k{i}": str(i % 3) for i in range(30)})
    more = write_labels(tmp_path / "more.csv", {f"e{i}": str(i % 3) for i in range(30)})
    only = write_labels(tmp_path / "only.csv", {f"a{i}": "27" for i in range(5)})
    path, classes = tmp_path / "folds.csv", load_classes("hpa")
    sources = ["--external", f"hpav18={more}", "--always-train", f"lab={only}"]
    succeed("make_folds", "--labels", labels, *sources, "--folds", 3, "-o", path)
    table, validated = read(path), []
    for fold in range(3):
        train, valid = split_fold(path, classes, fold, valid_source="kaggle")
        own = table["fold"] == fold
        assert valid["Id"].tolist() == table["Id"][own & (table["source"] == "kaggle")].tolist()
        assert train["Id"].tolist() == table["Id"][~own].tolist() and set(train["source"]) == {
            "kaggle",
            "hpav18",
            "lab",
        }
        assert train.equals(split_fold(path, classes, fold)[0])
        validated += valid["Id"].tolist()
    assert sorted(validated) == sorted(read(labels)["Id"]), "each once"
    with pytest.raises(InputError, match="no row of the source lab to validate on, only of hpav18, kaggle"):
        split_fold(path, classes, 0, valid_source="lab")
    table.drop(columns="source").to_csv(path, index=False)
    with pytest.raises(InputError, match="lacks the column source"):
        split_fold(path, classes, 0, valid_source="kaggle")


def test_near_duplicates_share_a_fold_even_with_an_always_train_row(own_atlas, tmp_path):
    """A darker exposure, and a copied file among rows that are only trained on."""
    table, images = read(own_atlas / "train.csv"), own_atlas / "train"
    first, second = table["Id"].iloc[:2]
    for channel in ("red", "green", "blue", "yellow"):
        darker = cv2.imread(str(images / f"{first}_{channel}.png"), cv2.IMREAD_UNCHANGED) // 2
        cv2.imwrite(str(images / f"dark_{channel}.png"), darker)
        shutil.copy(images / f"{second}_{channel}.png", images / f"copy_{channel}.png")
    labels = write_labels(tmp_path / "train.csv", dict(zip(table["Id"], table["Target"])) | {"dark": "0"})
    only = write_labels(tmp_path / "only.csv", {"copy": "0"})
    words = ["--always-train", f"lab={only}", "--images", images, "--folds", 4, "-o", tmp_path / "folds.csv"]
    succeed("make_folds", "--labels", labels, *words)
    folds = read(tmp_path / "folds.csv").set_index("Id")
    assert folds["fold"]["dark"] == folds["fold"][first] and folds["group"]["dark"] == folds["group"][first]
    assert folds["fold"]["copy"] == folds["fold"][second] >= 0, "training on its near-duplicate would leak"
    pairs = {frozenset(pair) for pair in read(tmp_path / "folds_duplicates.csv")[["Id", "twin"]].to_numpy()}
    assert {frozenset({first, "dark"}), frozenset({second, "copy"})} <= pairs


def test_groups_unbroken_on_the_atlas(folds):
    table = read(folds)
    assert table["group"].nunique() < len(table), "the atlas has near-duplicates"
    assert (table.groupby("group")["fold"].nunique() == 1).all()


def test_different_images_are_no_duplicates(tmp_path):
    write_images(tmp_path / "images", [f"i{n}" for n in range(40)], size=64)
    labels = write_labels(tmp_path / "train.csv", {f"i{n}": "0" for n in range(40)})
    words = ["--labels", labels, "--images", tmp_path / "images", "--folds", 2, "-o", tmp_path / "f.csv"]
    assert "0 pairs" in succeed("make_folds", *words).out


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_groups_of_any_size_stay_whole_and_even(seed, folds):
    rng = np.random.default_rng(seed)
    labels = (rng.random((120, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).astype(np.uint8)
    labels[:, 0] |= ~labels.any(axis=1)
    groups = rng.integers(0, 80, 120).astype(str)
    fold = make_folds.assign_folds(labels, groups, np.zeros(120, bool), dict.fromkeys(range(folds), 1 / folds), seed)
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 0.35 * 120 / folds + 6


def test_evening_out_never_makes_it_worse():
    rng = np.random.default_rng(0)
    counted = np.column_stack(
        [(rng.random((90, 4)) < 0.2) * rng.integers(1, 4, (90, 1)), rng.integers(1, 4, 90)]
    ).astype(float)
    start = rng.integers(0, 3, 90)

    def unevenness(fold):
        table = np.stack([counted[fold == k].sum(axis=0) for k in range(3)])
        return ((table - counted.sum(axis=0) / 3) ** 2 / counted.sum(axis=0)).sum()

    assert unevenness(even_out(counted, start.copy(), np.full(3, 1 / 3))) < 0.1 * unevenness(start)


def test_sources_without_images_are_split_unhashed(atlas, tmp_path):
    more = write_labels(tmp_path / "more.csv", {f"e{i}": str(i % 3) for i in range(30)})
    words = ["--labels", atlas / "train.csv", "--images", atlas / "train", "--folds", 3, "-o", tmp_path / "folds.csv"]
    out = succeed("make_folds", *words, "--external", f"lab={more}", "--plot", tmp_path / "f.png").out
    assert "not looked for in source lab" in out and (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    table = read(tmp_path / "folds.csv")
    assert table["fold"][table["source"] == "lab"].value_counts().max() <= 13 and len(table) == 78
    assert table["group"].nunique() < len(table), "the others are"


def test_the_papers_split_8_1_1(tmp_path):
    """18,756 rows into 15,004 / 1,876 / 1,876 (Rumetshofer et al., Fig. 3), every class in proportion."""
    rng = np.random.default_rng(0)
    labels = rng.random((18_756, 13)) < np.linspace(0.02, 0.4, 13)
    targets = [" ".join(map(str, np.flatnonzero(row))) for row in labels]
    write_labels(tmp_path / "train.csv", {f"s{i}": target for i, target in enumerate(targets)})
    words = ["--labels", tmp_path / "train.csv", "--classes", "cyto", "--split", "8:1:1", "-o", tmp_path / "f.csv"]
    succeed("make_folds", *words)
    fold = pd.read_csv(tmp_path / "f.csv")["fold"].to_numpy()
    assert [(fold == part).sum() for part in (-1, 0, -2)] == [15_004, 1_876, 1_876]
    for part, share in ((-1, 0.8), (0, 0.1), (-2, 0.1)):
        assert np.abs(labels[fold == part].sum(0) - share * labels.sum(0)).max() < 2.5


def test_mylavarapus_split_24000_3000_4072(tmp_path):
    """The real 31,072 label sets into exactly these sizes, every class in proportion."""
    sets = pd.read_csv("utils/simulator/label_sets.csv", dtype={"Target": str})
    targets = np.repeat(sets["Target"].to_numpy(), sets["count"])
    write_labels(tmp_path / "train.csv", {f"s{i}": target for i, target in enumerate(targets)})
    words = ["--labels", tmp_path / "train.csv", "--split", "24000:3000:4072", "-o", tmp_path / "f.csv"]
    assert "sizes 24,000 / 3,000 / 4,072\n" in succeed("make_folds", *words).out
    table = read(tmp_path / "f.csv")
    labels = matrix(table)
    for part, size in ((-1, 24_000), (0, 3_000), (-2, 4_072)):
        rows = (table["fold"] == part).to_numpy()
        assert rows.sum() == size and np.abs(labels[rows].sum(0) - size / 31_072 * labels.sum(0)).max() < 4


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_split_is_exact_where_groups_stay_whole(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((120, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).astype(np.uint8)
    groups = np.where(rng.random(120) < 0.6, rng.integers(0, 30, 120), np.arange(1000, 1120)).astype(str)
    always = np.zeros(120, bool)
    parts, sizes = {-1: 0.7, 0: 0.2, -2: 0.1}, {-1: 85, 0: 23, -2: 12}
    fold = make_folds.assign_folds(labels, groups, always, parts, seed, sizes)
    assert {part: (fold == part).sum() for part in parts} == sizes
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))


def test_sizes_that_groups_do_not_allow_are_approached_and_reported(tmp_path):
    """Twelve pairs of equal images make no part of 15 or 5."""
    for first in "ab":
        write_images(tmp_path / "images", [f"{first}{n}" for n in range(12)], size=64)
    labels = write_labels(tmp_path / "train.csv", {f"{first}{n}": str(n % 3) for first in "ab" for n in range(12)})
    words = ["--labels", labels, "--images", tmp_path / "images", "--split", "15:4:5", "-o", tmp_path / "f.csv"]
    out = succeed("make_folds", *words).out
    assert "near-duplicates stay together, so the sizes are not 15 / 4 / 5" in out
    sizes = pd.read_csv(tmp_path / "f.csv")["fold"].value_counts()
    assert [sizes[-1], sizes[0], sizes[-2]] in ([16, 4, 4], [14, 4, 6])


def test_a_split_is_trained_validated_and_predicted(atlas, tmp_path):
    """Near-duplicates are in one part; train.py reads the first two parts, predict.py the third."""
    table, images = tmp_path / "f.csv", ["--images", atlas / "train"]
    words = ["--labels", atlas / "train.csv", *images, "--split", "6:2:2", "-o", table, "--plot", tmp_path / "f.png"]
    succeed("make_folds", *words)
    rows = pd.read_csv(table, dtype=str).set_index("Id")
    assert (rows.groupby("group")["fold"].nunique() == 1).all() and set(rows["fold"]) == {"-1", "0", "-2"}
    succeed("train", *train_options(atlas, table, tmp_path, epochs=1))
    used = pd.read_csv(tmp_path / "mini/fold0/rows.csv", dtype=str).set_index("Id")["part"]
    assert set(used.index[used == "train"]) == set(rows.index[rows["fold"] == "-1"])
    assert set(used.index[used == "valid"]) == set(rows.index[rows["fold"] == "0"])
    ids = ["--ids", table, "--fold", -2, "--workers", 0, "-o", tmp_path / "t.csv"]
    succeed("predict", tmp_path / "mini", *images, *ids)
    assert set(read_predictions(tmp_path / "t.csv").index) == set(rows.index[rows["fold"] == "-2"])


def test_split_refuses(atlas, tmp_path):
    labels, out = ["--labels", atlas / "train.csv"], ["-o", tmp_path / "f.csv"]
    for split in ("8:1", "8:1:0", "a:b:c", "-8:1:1"):
        refuse("make_folds", *labels, f"--split={split}", *out, says="such as 8:1:1")
    words = ["--split", "8:1:1", *out]
    refuse("make_folds", *labels, *words, "--folds", 3, says="exclude each other")
    refuse("make_folds", *labels, *words, "--test", f"x={atlas / 'train.csv'}", says="a test part of its own")
    few = write_labels(tmp_path / "few.csv", dict.fromkeys("abcd", "0"))
    refuse("make_folds", "--labels", few, *words, says="valid, test parts are empty")
    write_labels(few, dict.fromkeys("ab", "0"))
    refuse("make_folds", "--labels", few, *words, says="give more rows")
    assert not (tmp_path / "f.csv").exists()


def test_always_train_rows_beside_a_split_are_reported(tmp_path):
    write_labels(tmp_path / "a.csv", {f"a{i}": str(i % 3) for i in range(60)})
    write_labels(tmp_path / "b.csv", {f"b{i}": "1" for i in range(7)})
    words = ["--labels", tmp_path / "a.csv", "--always-train", f"x={tmp_path / 'b.csv'}", "--split", "8:1:1"]
    out = succeed("make_folds", *words, "-o", tmp_path / "f.csv").out
    assert "sizes 48 / 6 / 6; always trained on: 7 rows" in out
    assert (pd.read_csv(tmp_path / "f.csv")["fold"] == -1).sum() == 55


def test_corrupt_samples_are_left_out_and_listed(tmp_path):
    """Those that the atlas damaged, one cut short inside its pixels and one without a channel; in the Cyto form."""
    data = tmp_path / "cyto"
    write.write_atlas(data, Settings(40, 4, size=64, seed=5, power=0.5, form="cyto", corrupt=0.2, duplicates=0.0))
    truth = pd.read_csv(data / "truth.csv", dtype=str, keep_default_na=False).set_index("Id")
    damaged = set(truth.index[(truth["corrupt"] != "") & (truth["split"] == "train")])
    whole = [id_ for id_ in pd.read_csv(data / "train.csv", dtype=str)["Id"] if id_ not in damaged]
    (data / "train" / f"{whole[0]}_red.tif").unlink()
    options = ["--labels", data / "train.csv", "--images", data / "train", "--classes", "cyto", "--folds", 2]
    options += ["-o", tmp_path / "f.csv"]
    refuse("make_folds", *options, says=["unusable image file", ".tif"])
    out = succeed("make_folds", *options, "--drop-corrupt").out
    dropped = pd.read_csv(tmp_path / "f_dropped.csv", dtype=str)
    assert set(dropped["Id"]) == damaged | {whole[0]} and len(damaged) > 3 and dropped["why"].str.len().min() > 5
    assert dropped.set_index("Id").loc[whole[0], "why"] == "red missing"
    assert set(pd.read_csv(tmp_path / "f.csv", dtype=str)["Id"]) == set(whole[1:])
    assert f"{len(damaged) + 1} samples of 40 left out" in out
    refuse("make_folds", "--labels", data / "train.csv", "--drop-corrupt", says="needs the images")


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_damage_inside_a_file_is_found(tmp_path, ending):
    """Head and end are whole, only decoding shows it; OpenCV reads such a TIFF to wrong pixels without a word."""
    write_images(tmp_path / "i", ["a", "b", "c", "d"], size=64, ending=ending)
    path = tmp_path / "i" / f"b_green.{ending}"
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    write_labels(tmp_path / "l.csv", dict.fromkeys("abcd", "0"))
    words = ["--labels", tmp_path / "l.csv", "--images", tmp_path / "i", "--folds", 2, "-o", tmp_path / "f.csv"]
    succeed("make_folds", *words, "--drop-corrupt")
    dropped = pd.read_csv(tmp_path / "f_dropped.csv", dtype=str)
    assert dropped["Id"].tolist() == ["b"] and "damaged" in dropped["why"][0]


def test_what_most_samples_lack_is_not_missing_and_a_missing_sample_is_an_error(tmp_path):
    """One stray yellow file does not condemn three-channel samples; a forgotten folder is no damage."""
    write_images(tmp_path / "i", "abcd", channels=("red", "green", "blue"))
    write_images(tmp_path / "i", "a", channels=("yellow",))
    write_labels(tmp_path / "l.csv", dict.fromkeys("abcd", "0"))
    words = ["--images", tmp_path / "i", "--folds", 2, "--drop-corrupt", "-o", tmp_path / "f.csv"]
    succeed("make_folds", "--labels", tmp_path / "l.csv", *words)
    assert len(pd.read_csv(tmp_path / "f_dropped.csv")) == 0 and len(pd.read_csv(tmp_path / "f.csv")) == 4
    write_labels(tmp_path / "l.csv", dict.fromkeys("abcde", "0"))
    refuse("make_folds", "--labels", tmp_path / "l.csv", *words, says="1 Id of 5 without an image")
    for path in (tmp_path / "i").glob("*_green.png"):
        path.write_bytes(b"")
    write_labels(tmp_path / "l.csv", dict.fromkeys("abcd", "0"))
    refuse("make_folds", "--labels", tmp_path / "l.csv", *words, says=["no sample in", "can be used"])

"""Tables as spreadsheets, Windows, macOS and other competitions write them: read as they are meant, or refused with the
cause."""

import csv
import gzip
import io
import shutil
import unicodedata

import pandas as pd
import pytest
import targets
from conftest import refuse, submission_of, succeed, write_images, write_labels

from utils.data.labels import read_labels
from utils.data.tables import read_table
from utils.errors import InputError
from utils.runs.predictions import read_predictions


def separated(mark, text):
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=mark, lineterminator="\r\n").writerows(csv.reader(io.StringIO(text, newline="")))
    return stream.getvalue()


def spaced(text):
    return "\n".join(
        ", ".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in csv.reader(text.splitlines())
    )


FORMS = {
    "semicolons": lambda text: separated(";", text).encode(),
    "tabs": lambda text: separated("\t", text).encode(),
    "bars": lambda text: separated("|", text).encode(),
    "sep= and semicolons": lambda text: b"sep=;\r\n" + separated(";", text).encode(),
    "sep= and commas": lambda text: b"sep=,\n" + text.encode(),
    "spaces after the commas": lambda text: spaced(text).encode(),
    "UTF-8 with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "sep= after a byte order mark": lambda text: ("sep=;\n" + separated(";", text)).encode("utf-8-sig"),
    "UTF-16 and tabs": lambda text: separated("\t", text).encode("utf-16"),
    "UTF-16, the other end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip of UTF-16": lambda text: gzip.compress(separated(";", text).encode("utf-16")),
}
COMMANDS = {
    "labels": (targets.FOLDS, "f.csv"),
    "classes": (targets.FOLDS, "f.csv"),
    "predictions": (targets.ENSEMBLE, "s.csv"),
    "sample": (targets.ENSEMBLE, "s.csv"),
    "twins": (f"{targets.ENSEMBLE} --twins {{twins}} --use-leak {{labels}}", "s.csv"),
    "shares": ("threshold {run}/fold0 --repeats 1 --shares {shares} -o {out}/t.json", "t.json"),
    "solution": ("utils.tools.evaluate {predictions} --labels {solution} --classes {classes} --thresholds 0.5 -o {out}/e.json", "e.json"),
    "oof": (targets.EVALUATE, "e.json"),
}  # fmt: skip


def outcome(folder, kind):
    text, name = COMMANDS[kind]
    succeed(*targets.words(text, folder, "labels"))
    return (folder / "out" / name).read_bytes()


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("form", ["sep= and semicolons", "UTF-16 and tabs", "spaces after the commas", "gzip"])
def test_every_table_is_read_in_every_form(own_files, kind, form):
    path = own_files / (targets.KINDS[kind].file if kind in targets.KINDS else f"{kind}.csv")
    expected = outcome(own_files, kind)
    shutil.rmtree(own_files / "out")
    path.write_bytes(FORMS[form](path.read_text()))
    assert outcome(own_files, kind) == expected


@pytest.mark.parametrize("form", FORMS)
def test_no_cell_is_changed_by_the_form(tmp_path, form):
    text = 'Id,Target,source,é\na,0 2,"x, y",1\nb,,z;w,2\nc,27 5,a b,3\n'
    for name in ("t.csv", "t.csv.gz"):
        (tmp_path / name).write_bytes(FORMS[form](text))
        table = read_table(tmp_path / name, ["Id", "Target"])
        assert list(table.columns) == ["Id", "Target", "source", "é"]
        assert table.values.tolist() == [["a", "0 2", "x, y", "1"], ["b", "", "z;w", "2"], ["c", "27 5", "a b", "3"]]
        assert read_labels(tmp_path / name, range(28))["Target"].tolist() == ["0 2", "", "5 27"]


def test_a_list_of_ids_and_folds_are_read_in_other_forms(own_files):
    predict = (
        "predict {run}/fold0 --images {train} --ids {folds} --fold 0 --tta 1 --workers 0 --no-cache -o {out}/p.csv"
    )
    for text, name in ((predict, "p.csv"), (targets.FROM_FOLDS, "mini/fold0/rows.csv")):
        succeed(*targets.words(text, own_files, "folds"))
        expected = (own_files / "out" / name).read_bytes()
        shutil.rmtree(own_files / "out")
        plain = (own_files / "folds.csv").read_text()
        (own_files / "folds.csv").write_bytes(FORMS["UTF-16 and tabs"](plain))
        succeed(*targets.words(text, own_files, "folds"))
        assert (own_files / "out" / name).read_bytes() == expected
        (own_files / "folds.csv").write_text(plain)


def test_the_comma_separates_wherever_it_can(tmp_path):
    (tmp_path / "t.csv").write_text("Id,a;b,c|d\nx,1;2,3|4\n")
    assert read_table(tmp_path / "t.csv", ["Id"]).to_dict("list") == {"Id": ["x"], "a;b": ["1;2"], "c|d": ["3|4"]}


REFUSED = {
    "UTF-16 without a byte order mark": ("Id,Target\na,0\n".encode("utf-16-le"), ["NUL bytes", "UTF-16", "save it in UTF-8"]),
    "Latin-1": ("Id,Target\né,0\n".encode("latin-1"), ["not text in UTF-8", "save it in UTF-8"]),
    "UTF-16 cut short": ("Id,Target\na,0\n".encode("utf-16")[:-1], ["not text in UTF-16", "save it in UTF-8"]),
    "gzip cut short": (gzip.compress(b"Id,Target\na,0\n" * 9)[:-12], ["not a CSV file", "fix it"]),
    "gzip with other bytes": (gzip.compress(b"Id,Target\na,0\n")[:12] + b"\xff" * 30, ["not a CSV file", "fix it"]),
    "a workbook": (b"PK\x03\x04" + bytes(30), ["a zip archive or an Excel workbook", "save it as CSV"]),
    "other columns after semicolons": (b"name;label\na;0\n", ["lacks the column Id and Target", "(it has: name, label)"]),
    "an unknown sep=": (b"sep=:\nId:Target\na:0\n", ["lacks the column Id and Target", "sep=:", "with commas between"]),
    "the single-cell competition's 19 classes as the 28": (b"ID,Label\na,0|2\n", ["ID,Label", "2021", "--classes hpa2021"]),
    "semicolons between the numbers": (b"Id,Target\na,0;2\n", ["row 2 ('0;2')", "separate the numbers by spaces, as in 0 2"]),
    "a row in another form": (b"Id;Target\na;0 2\nb,1\n", ["2 columns, but 1 row", "row 3 (1)"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_table_that_cannot_be_read_is_refused_with_the_cause(tmp_path, kind):
    content, says = REFUSED[kind]
    (tmp_path / "t.csv").write_bytes(content)
    refuse("make_folds", "--labels", tmp_path / "t.csv", "-o", tmp_path / "f.csv", says=["t.csv", *says])
    assert not (tmp_path / "f.csv").exists()


def test_a_gzip_file_that_unpacks_to_more_than_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.data.tables.MOST_BYTES", 10**6)
    (tmp_path / "t.csv").write_bytes(gzip.compress(b"Id\n" + b"\n" * 10**8))
    with pytest.raises(InputError, match="unpacks to more than 1,000,000 bytes"):
        read_table(tmp_path / "t.csv", ["Id"])


def test_decimal_commas_are_read_where_semicolons_separate(tmp_path):
    (tmp_path / "p.csv").write_text("Id;a;b\nx;0,25;1\ny;1e-3;0\n")
    assert read_predictions(tmp_path / "p.csv").to_numpy().tolist() == [[0.25, 1.0], [0.001, 0.0]]


def test_predictions_by_class_number_decide_as_those_by_name(predictions, thresholds, run, atlas, folds, tmp_path):
    def decided(*files, words=("--thresholds", thresholds)):
        sample = ["--sample", atlas / "sample_submission.csv", "-o", tmp_path / "s.csv"]
        succeed("ensemble", *files, *words, *sample)
        return (tmp_path / "s.csv").read_text()

    table = pd.read_csv(predictions, dtype=str)
    numbered = table.set_axis(["Id", *map(str, range(28))], axis=1)
    numbered.to_csv(tmp_path / "in_order.csv", index=False)
    numbered[["Id", *sorted(numbered.columns[1:])]].to_csv(tmp_path / "as_text.csv", index=False)  # 0, 1, 10, 11, …, 2
    expected = decided(predictions)
    for name in ("in_order.csv", "as_text.csv"):
        file = tmp_path / name
        assert decided(file) == decided(file, predictions) == decided(predictions, file) == expected
    for words in (("--thresholds", 0.3), ("--oof", run, "--repeats", 1, "--combine", "mean")):
        assert decided(file, words=words) == decided(predictions, words=words)
    own = pd.read_csv(run / "fold0/oof.csv", dtype=str)
    printed = []
    for columns in (own.columns, numbered.columns):
        own.set_axis(columns, axis=1).to_csv(tmp_path / "oof.csv", index=False)
        words = ["--labels", folds, "--method", "global", "--repeats", 1, "-o", tmp_path / "t.json"]
        printed.append(succeed("threshold", tmp_path / "oof.csv", *words).out)
    assert printed[0] == printed[1]
    numbered.drop(columns="27").to_csv(tmp_path / "fewer.csv", index=False)
    command = submission_of(tmp_path / "fewer.csv", thresholds, atlas, tmp_path / "s.csv")
    refuse("ensemble", *command, says="other classes")


NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("in_table, in_name", [(NFC, NFD), (NFD, NFC)])
def test_an_accent_matches_whether_composed_or_not(run, tmp_path, in_table, in_name):
    ids = [f"{letter}{number}" for letter in ("a", "cell {}") for number in range(2)]
    write_images(tmp_path / "images", [id_.format(in_name) for id_ in ids], size=32)
    labels = write_labels(tmp_path / "t.csv", {id_.format(in_table): "0" for id_ in ids})
    words = ["--images", tmp_path / "images", "-o", tmp_path / "f.csv"]
    succeed("make_folds", "--labels", labels, "--folds", 2, *words)
    words = ["--images", tmp_path / "images", "-o", tmp_path / "p.csv", "--workers", 0, "--tta", 1]
    succeed("predict", run / "fold0", *words, "--ids", labels)
    known = [id_.format(NFC) for id_ in ids]
    assert read_predictions(tmp_path / "p.csv").index.tolist() == known
    succeed("predict", run / "fold0", *words)
    assert read_predictions(tmp_path / "p.csv").index.tolist() == sorted(known)


def test_two_spellings_of_one_id_are_refused_with_both(run, tmp_path):
    write_images(tmp_path / "images", [NFC, NFD], size=32)
    words = ["--images", tmp_path / "images", "-o", tmp_path / "p.csv", "--workers", 0]
    refuse("predict", run / "fold0", *words, says=["4 channels in two files", r"'e\u0301_red.png' and '\xe9_red.png'"])
    labels = write_labels(tmp_path / "t.csv", {NFC: "0", NFD: "1"})
    words = ["--labels", labels, "--folds", 2, "-o", tmp_path / "f.csv"]
    refuse("make_folds", *words, says=["t.csv: 1 Id more than once", NFC])


def test_an_id_may_begin_with_a_dot(run, tmp_path):
    write_images(tmp_path / "images", [".a", "b"], size=32)
    write_images(tmp_path / "images", ["._b"], ("red",), size=32)  # as macOS leaves
    words = ["--images", tmp_path / "images", "-o", tmp_path / "p.csv", "--workers", 0, "--tta", 1]
    succeed("predict", run / "fold0", *words)
    assert read_predictions(tmp_path / "p.csv").index.tolist() == [".a", "b"]
    labels = write_labels(tmp_path / "t.csv", {"._b": "0"})
    says = ["1 Id of 1 without an image", "._b", "macOS", "rename"]
    refuse("predict", run / "fold0", *words, "--ids", labels, says=says)

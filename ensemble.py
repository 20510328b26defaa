"""Average predictions and decide: predictions, thresholds -> submission.csv

    python ensemble.py test.csv --thresholds runs/chen/thresholds.json
    python ensemble.py test.csv more.csv --thresholds thresholds.json \\
        --sample input/sample_submission.csv -o submission.csv
    python ensemble.py test.csv --thresholds 0.5    # one for all classes

Rows come out in the order of the sample submission, which the competition
matches by position.
"""

import argparse
import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from utils.errors import InputError, listing, plural, run_script
from utils.files import check_writable, write_csv
from utils.labels import check_ids, decode, read_table
from utils.predictions import read_all, same_ids


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg = parser.add_argument
    arg("predictions", nargs="+", metavar="CSV", help="files of predict.py; several are averaged")
    arg("--thresholds", required=True, metavar="JSON|NUMBER", help="thresholds.json, or one number for all classes")
    arg("--sample", default="input/sample_submission.csv", help="which Ids in which order (default: %(default)s)")
    arg("--empty", choices=["likeliest", "leave"], default="likeliest",
        help="a row below all cut-offs gets the class nearest to its own, or stays empty (default: %(default)s)")  # fmt: skip
    arg("-o", "--out", default="submission.csv", help="where to write (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_writable(args.out)
    tables = read_all(args.predictions)
    first = tables[args.predictions[0]]
    thresholds = read_thresholds(args.thresholds, list(first.columns))
    order = read_table(args.sample, ["Id"], what="the sample submission")["Id"]
    check_ids(args.sample, order)
    for path, table in tables.items():
        same_ids(path, table.index, args.sample, order)

    mean = np.mean([table.loc[order].to_numpy() for table in tables.values()], axis=0)
    decisions = mean >= thresholds
    empty = ~decisions.any(axis=1)
    if args.empty == "likeliest":
        decisions[empty, nearest(mean[empty], thresholds)] = True
    write_csv(args.out, pd.DataFrame({"Id": order, "Predicted": decode(decisions)}))

    rare = [f"{name} {count:,}" for name, count in zip(first.columns, decisions.sum(axis=0), strict=True)]
    print(
        f"mean of {plural(len(tables), 'file')}, {plural(len(order), 'row')}, {decisions.sum() / len(order):.2f} classes a row"
    )
    filled = "got their likeliest class" if args.empty == "likeliest" else "stay empty"
    print(f"{plural(int(empty.sum()), 'row')} below every cut-off {filled}")
    print(textwrap.fill(f"called: {', '.join(rare)}", 79, subsequent_indent="  "))
    print(f"-> {args.out}")


def nearest(probabilities, thresholds):
    """Most likely class relative to its threshold: largest log odds over the threshold's, (N, C) -> (N,)."""

    def log_odds(p):
        p = np.clip(p, 1e-7, 1 - 1e-7)
        return np.log(p) - np.log1p(-p)

    return (log_odds(probabilities) - log_odds(np.asarray(thresholds))).argmax(axis=1)


def read_thresholds(spec, classes):
    """(C,) thresholds from a thresholds.json that fits `classes`, or one number for all."""
    if not Path(spec).is_file() and (number := _number(spec)) is not None:
        values = [number] * len(classes)
    else:
        values = _read_json(spec, classes)
    if not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in values):
        raise InputError(f"{spec}: every threshold must be a number from 0 to 1; fit them with threshold.py")
    return np.array(values, np.float64)


def _number(text):
    try:
        return float(text)
    except ValueError:
        return None


def _read_json(path, classes):
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names, values = list(content["classes"]), list(content["thresholds"])
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; fit it with threshold.py, or give a number such as 0.5") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a thresholds.json with classes and thresholds ({str(error)[:100]}); fit it with threshold.py"
        ) from None
    if names != classes or len(values) != len(names):
        differing = sorted(set(map(str, names)) ^ set(classes)) or ["their order or number"]
        raise InputError(
            f"{path} was fitted for other classes than the predictions have: {listing(differing)}; fit it on the same run"
        )
    return values


if __name__ == "__main__":
    run_script(main)

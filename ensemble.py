"""Average predictions and decide: predictions, thresholds -> submission.csv

    python ensemble.py test.csv --thresholds runs/chen/thresholds.json
    python ensemble.py test.csv more.csv --thresholds thresholds.json \\
        --sample input/sample_submission.csv -o submission.csv
    python ensemble.py test.csv --thresholds 0.5    # one for all classes

Rows come out in the order of the sample submission, which the competition
matches by position.
"""

import argparse
import textwrap

import numpy as np
import pandas as pd

from utils.cutoffs import read_thresholds
from utils.errors import plural, run_script
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


if __name__ == "__main__":
    run_script(main)

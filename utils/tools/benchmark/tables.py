"""make_folds.py and threshold.py as whole commands, on made-up tables as long as the competition's and longer."""

import subprocess
import sys
import time

import pandas as pd
from tqdm import tqdm

from utils.data.labels import HPA_CLASSES, encode
from utils.files import write_csv
from utils.runs.predictions import write_predictions
from utils.tools.benchmark.bench import draw_targets
from utils.tools.benchmark.probe import ROOT
from utils.tools.benchmark.thresholds import probabilities_for


def measure(bench):
    """Seconds of each command and number of rows, from its start to its end."""
    rows = []
    with tqdm(total=2 * len(bench.args.tables), desc="tables", disable=None, leave=False) as bar:
        for count in bench.args.tables:
            labels, predictions = write_tables(bench.folder, count)
            commands = {
                "make_folds.py": ["--labels", labels, "-o", bench.folder / "folds.csv"],
                "threshold.py": [predictions, "--labels", labels, "-o", bench.folder / "thresholds.json"],
            }
            for script, options in commands.items():
                rows.append({"command": script, "rows": count, "seconds": seconds_of(script, options)})
                bar.update()
    return {"classes": len(HPA_CLASSES), "rows": rows}


def write_tables(folder, count):
    """Labels as often as the competition's, and predictions that know something of them: two paths."""
    labels, predictions = folder / f"labels{count}.csv", folder / f"predictions{count}.csv"
    ids, targets = [f"row{number:06}" for number in range(count)], draw_targets(count)
    write_csv(labels, pd.DataFrame({"Id": ids, "Target": targets}))
    write_predictions(predictions, ids, probabilities_for(encode(targets, HPA_CLASSES)), HPA_CLASSES)
    return labels, predictions


def seconds_of(script, options):
    start = time.perf_counter()
    done = subprocess.run([sys.executable, ROOT / script, *options], cwd=ROOT, capture_output=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def report(found):
    print(f"tables: whole commands, once each, on labels and predictions of {found['classes']} classes")
    for row in found["rows"]:
        print(f"{row['command']:20}{row['rows']:>10,} rows{row['seconds']:>10.1f} s")

"""Turn the GapNet-PL authors' weight file into a run directory.

    python -m utils.tools.import_weights authors.npz -o runs/published/fold0

is then ready for predict.py and for `train.py --weights runs/published/fold0/best.pt`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from utils import models
from utils.cli import run_script
from utils.data.labels import CYTO_CLASSES
from utils.engine import checkpoint
from utils.engine.weights import GAPNET_AUTHORS, load_start
from utils.errors import InputError
from utils.files import check_writable, write_json


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="the authors' .npz of GapNet-PL, 22 arrays")
    parser.add_argument("-o", "--out", required=True, help="run directory to write best.pt and config.json to")
    args = parser.parse_args()
    out = Path(args.out)
    check_writable(out / "best.pt")
    if Path(args.weights).suffix != ".npz":
        raise InputError(f"{args.weights} is no .npz; give the authors' file")
    config = replace(GAPNET_AUTHORS, weights=str(args.weights))
    network = models.build("gapnet_pl", len(CYTO_CLASSES), 4)
    told = load_start(network, config)
    checkpoint.save(
        out / "best.pt", {"config": config.to_dict(), "model": network.state_dict(), "epoch": 0, "score": None}
    )
    write_json(out / "config.json", config.to_dict())
    print(f"{told} -> {out / 'best.pt'}")


if __name__ == "__main__":
    run_script(main)

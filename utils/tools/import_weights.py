"""Turn the GapNet-PL authors' weight file into a run directory.

    python -m utils.tools.import_weights authors.npz -o runs/published/fold0

It is then ready for predict.py and for `train.py --weights
runs/published/fold0/best.safetensors`.
"""

from dataclasses import replace
from pathlib import Path

from utils import models
from utils.cli import option_parser, run_script
from utils.data.labels import CYTO_CLASSES
from utils.engine import checkpoint
from utils.engine.weights import GAPNET_AUTHORS, load_start
from utils.errors import InputError
from utils.files import check_writable, write_json
from utils.runs.run_folder import WEIGHTS


def main():
    parser = option_parser(__doc__, "utils.tools.import_weights")
    parser.add_argument("weights", help="the authors' .npz of GapNet-PL, 22 arrays")
    parser.add_argument("-o", "--out", required=True, help=f"run directory to write {WEIGHTS} and config.json to")
    args = parser.parse_args()
    out = Path(args.out)
    check_writable(out / WEIGHTS)
    if Path(args.weights).suffix != ".npz":
        raise InputError(f"{args.weights} is no .npz; give the authors' file")
    config = replace(GAPNET_AUTHORS, weights=str(args.weights))
    network = models.build("gapnet_pl", len(CYTO_CLASSES), 4)
    source = load_start(network, config)
    write_json(out / "config.json", config.to_dict())
    checkpoint.save_weights(out / WEIGHTS, network.state_dict(), epoch=0, score=None)
    print(f"{source} -> {out / WEIGHTS}")


if __name__ == "__main__":
    run_script(main)

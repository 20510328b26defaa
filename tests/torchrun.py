"""Scripts of several processes, started by torchrun."""

import os
import subprocess
import sys

from conftest import ROOT, succeed_together

from utils.data.cache import DEFAULT_FOLDER


def torchrun(*words, ranks=2):
    """Run a script in `ranks` processes: -> CompletedProcess."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([*launcher, *map(str, words)], cwd=ROOT, capture_output=True, text=True, env=environment)


def together(script, *words, ranks=2, cache=None):
    """Run one of the kit's scripts in `ranks` processes forked from this one, which must succeed: -> what they print."""
    return succeed_together(script, *words, "--cache", cache or DEFAULT_FOLDER, ranks=ranks)

"""Scripts of several processes, started by torchrun."""

import os
import subprocess
import sys

from conftest import ROOT


def torchrun(*words, ranks=2):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        *map(str, words),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def together(script, *words, ranks=2, cache=None):
    done = torchrun(ROOT / f"{script}.py", *words, "--cache", cache or cache.DEFAULT_FOLDER, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return done.stdout

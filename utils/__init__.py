"""What two or more of the scripts share, one concern a file. Nothing in here imports a script."""

import math
import os
from pathlib import Path

# What a picture's header may claim, here and to OpenCV, which reads this when it is imported: see utils/images.py.
MOST_PIXELS = 2**26
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # of a damaged file the kit says one sentence

import cv2  # noqa: E402

# Processes are the kit's parallelism. OpenCV's own threads would fight them over the cores, and a process forked while
# they live can hang (OpenCV 4.10 does, in setNumThreads), so they are switched off before any can start.
cv2.setNumThreads(0)


def cores():
    """How many CPU cores this process may use: a container often allows fewer than the machine has, by a list of them or by a
    share of their time."""
    listed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(listed, _core_quota())))


def _core_quota(root="/sys/fs/cgroup"):
    """Cores' worth of time that the container may use; infinite where nothing limits it."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroups 2 and 1
        try:
            quota, period = " ".join(Path(root, file).read_text() for file in files).split()
            return int(quota) / int(period) if int(quota) > 0 else math.inf
        except (OSError, ValueError, ZeroDivisionError):  # not there, or "max"
            continue
    return math.inf

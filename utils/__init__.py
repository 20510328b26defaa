"""What two or more of the scripts share, one concern a file. Nothing in here imports a script."""

import os

import cv2

# Processes are the kit's parallelism. OpenCV's own threads would fight them over the cores, and a process forked while
# they live can hang (OpenCV 4.10 does, in setNumThreads), so they are switched off before any can start.
cv2.setNumThreads(0)


def cores():
    """How many CPU cores this process may use; a container often allows fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

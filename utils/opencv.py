"""OpenCV, set up once: `from utils.opencv import cv2`."""

import os

MOST_PIXELS = 2**26  # that an image's header may claim, here and to OpenCV, which reads this on import
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # the kit reports a damaged file itself, in one sentence

import cv2  # noqa: E402

# The kit works in parallel by processes. OpenCV's own threads would compete with them for the cores, and a process
# forked while those threads live can hang (OpenCV 4.10 does, in setNumThreads).
cv2.setNumThreads(0)

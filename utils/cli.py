"""The command line: parsers, ranges of options, durations, and exit codes."""

import argparse
import errno
import os
import re
import sys
import time
from contextlib import suppress

from utils.errors import InputError, explain_system_error, more_files, one_line

MOST = 2**31 - 1  # of any option: the largest 32-bit integer
UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}  # seconds


def option_parser(doc, module=None, **kwargs):
    """Return an ArgumentParser that shows `doc` verbatim. module: the program's dotted name, if `python -m` runs it."""
    if module:
        kwargs["prog"] = f"python -m {module}"
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)


def check_least(args, **least):
    """Raise InputError for options that are NaN or out of range. least: the least value of each option, or a pair of
    the least and the most (default MOST). Options that are None are skipped."""
    for name, limits in least.items():
        value = getattr(args, name)
        low, high = limits if isinstance(limits, tuple) else (limits, MOST)
        if value is not None and not low <= value <= high:
            allowed = f"{low} or more" if value < low and high == MOST else f"a number from {low} to {high}"
            raise InputError(f"--{name.replace('_', '-')} {value} is out of range; give {allowed}")


def parse_span(option, text):
    """Parse a duration such as ``8h30m``, ``10min``, ``45s``, ``1d`` or ``0``: -> seconds. option: for the message."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(d|h|min|m|s)", text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise InputError(f"{option} {text!r} is not a duration; give one such as 8h30m, 10min or 45s")
    return float(sum(float(number) * UNITS[unit] for number, unit in parts))


def clock(seconds):
    """Format seconds as ``9:05`` or ``1:09:05``."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


def run_script(main):
    """Call a script's `main`. InputError becomes one line and exit code 2, Ctrl+C exit code 130.

    Printing never ends a script: if the terminal is gone, the disk of a log is full or a stream is closed, it continues
    silently; characters that the output's encoding lacks are escaped.
    """
    streams = sys.stdout, sys.stderr
    _fill_closed_streams()
    sys.stdout, sys.stderr = map(_Output, streams)
    try:
        main()
        sys.stdout.flush()  # errors are ignored here, but not at the interpreter's exit
        if _under_torchrun():
            _exit_at_once(0)
    except InputError as error:
        sys.exit(_refuse(str(error)))
    except MemoryError as error:
        sys.exit(_refuse(f"out of memory ({error}); give smaller files, or fewer at once"))
    except KeyboardInterrupt:
        print("\nstopped by Ctrl+C", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe (`| head`) has ended
        sys.stderr.close()
        sys.exit(141)
    except (OSError, RuntimeError) as error:
        if message := explain_system_error(error):
            sys.exit(_refuse(message))
        if _under_torchrun():
            time.sleep(10)  # if the cause is the failure of another process, torchrun ends this one meanwhile
        raise
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # ValueError: it is closed
                stream.flush()
        sys.stdout, sys.stderr = streams


def _fill_closed_streams():
    """Open the null device for closed standard streams; else the next file opened gets their number and output."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)


class _Output:
    """A stream that goes silent when writing fails. stream: None if it is closed, as for a daemon."""

    GONE = (errno.EIO, errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

    def __init__(self, stream):
        self.stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115
        with suppress(AttributeError, OSError):  # a stream in memory
            self.stream.reconfigure(errors="backslashreplace")

    def write(self, text):
        return self._try(self.stream.write, text)

    def flush(self):
        return self._try(self.stream.flush)

    def _try(self, action, *arguments):
        try:
            return action(*arguments)
        except OSError as error:
            if error.errno not in self.GONE:
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())  # the stream's buffer goes there, too
            os.close(null)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def _refuse(message):
    """Print an error message: -> exit code 2."""
    if _under_torchrun() and os.environ["RANK"] != "0":
        time.sleep(5)  # the main process reports an error of all processes, and torchrun ends the others
    sys.stdout.flush()
    if os.strerror(errno.EMFILE) in message and "ulimit" not in message:
        message = f"{message}; {more_files()}"
    print(f"error: {one_line(message)}", file=sys.stderr)
    if _under_torchrun():
        _exit_at_once(2)
    return 2


def _under_torchrun():
    return "TORCHELASTIC_RUN_ID" in os.environ


def _exit_at_once(code):
    """Exit without destroying the process group: after a failure the processes would wait for each other, with torch
    2.6 and gloo sometimes also after success."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

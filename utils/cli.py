"""The command line: parsers, ranges of options, spans of time, and how a script ends."""

import argparse
import errno
import os
import re
import sys
import time
from contextlib import suppress

from utils.errors import InputError, explain_system_error, more_files, one_line

MOST = 2**31 - 1  # of any option: what a 32-bit integer holds
UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}  # seconds


def option_parser(doc, module=None, **kwargs):
    """An ArgumentParser that shows `doc` as it is written. module: the dotted name by which `python -m` runs the
    program."""
    program = {"prog": f"python -m {module}"} if module else {}
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **program, **kwargs
    )


def check_least(args, **least):
    """Refuse options below their least value, above MOST, or NaN. A pair is the least and the most. None: not given."""
    for name, limits in least.items():
        value = getattr(args, name)
        low, high = limits if isinstance(limits, tuple) else (limits, MOST)
        if value is not None and not low <= value <= high:
            allowed = f"{low} or more" if value < low and high == MOST else f"a number from {low} to {high}"
            raise InputError(f"--{name.replace('_', '-')} {value} is out of range; give {allowed}")


def parse_span(option, text):
    """Seconds of ``8h30m``, ``10min``, ``45s``, ``1d`` or ``0``. Raises InputError that names the `option`
    otherwise."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(d|h|min|m|s)", text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise InputError(f"{option} {text!r} is no span of time; give one as 8h30m, 10min or 45s")
    return float(sum(float(number) * UNITS[unit] for number, unit in parts))


def clock(seconds):
    """``9:05`` or ``1:09:05``."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


def run_script(main):
    """Call a script's `main`; turn InputError into one line and exit code 2, Ctrl+C into exit code 130.

    Printing never ends a script: if the terminal is gone, a log's disk is full or a stream was closed before the start,
    it goes on without; characters that the output's encoding lacks are escaped.
    """
    streams = sys.stdout, sys.stderr
    _fill_closed_streams()
    sys.stdout, sys.stderr = map(_Output, streams)
    try:
        main()
        sys.stdout.flush()  # here what cannot be printed is passed over, at the interpreter's end it would not
        if _under_torchrun():
            _exit_at_once(0)
    except InputError as error:
        sys.exit(_refuse(str(error)))
    except MemoryError as error:
        sys.exit(_refuse(f"out of memory ({error}); give smaller files, or fewer at once"))
    except KeyboardInterrupt:
        print("\nstopped by Ctrl+C", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe (`| head`) went away
        sys.stderr.close()
        sys.exit(141)
    except (OSError, RuntimeError) as error:
        if message := explain_system_error(error):
            sys.exit(_refuse(message))
        if _under_torchrun():
            time.sleep(
                10
            )  # if it is only that another process has ended and reports why, torchrun ends this one meanwhile
        raise
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # ValueError: it is closed
                stream.flush()
        sys.stdout, sys.stderr = streams


def _fill_closed_streams():
    """Give the numbers of closed standard streams to the null device: libraries print there, whatever file is opened
    later."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)


class _Output:
    """A stream that falls silent when nothing can be written to it any more. stream: None if it was closed, as for a
    daemon."""

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
            os.dup2(null, self.stream.fileno())  # also for what the stream still buffers
            os.close(null)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def _refuse(message):
    """Print the message: -> exit code 2."""
    if _under_torchrun() and os.environ["RANK"] != "0":
        time.sleep(5)  # what is wrong for all processes the first reports, and torchrun ends the others
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
    """Exit without taking down the process group: after a failure that would wait for the others, who wait for this
    process, and with torch 2.6 and gloo it was seen to wait for ever after success too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

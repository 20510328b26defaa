"""The command line: how a script ends, what options may be, spans of time."""

import argparse
import errno
import os
import re
import sys
import time
from contextlib import suppress

from utils.errors import InputError, explain_system_error, more_files, one_line


def option_parser(doc, module=None, **kwargs):
    """An ArgumentParser that shows `doc` as it is written. module: the dotted name by which `python -m` runs the program."""
    program = {"prog": f"python -m {module}"} if module else {}
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **program, **kwargs
    )


MOST = 2**31 - 1  # of any option: what a 32-bit integer holds


def check_least(args, **least):
    """Refuse options below their least value, above MOST, or NaN. A pair is the least and the most an option may be. An option
    that is None was not given."""
    for name, limits in least.items():
        value = getattr(args, name)
        low, high = limits if isinstance(limits, tuple) else (limits, MOST)
        if value is not None and not low <= value <= high:
            allowed = f"{low} or more" if value < low and high == MOST else f"a number from {low} to {high}"
            raise InputError(f"--{name.replace('_', '-')} {value} is out of range; give {allowed}")


def run_script(main):
    """Call a script's `main`; turn InputError into one line and exit code 2, Ctrl+C into exit code 130.

    What is printed is an extra: where the terminal is gone, a log's disk is full or a stream was closed before the start, the
    script goes on without, and what the output's encoding lacks is printed as an escape.
    """
    streams = sys.stdout, sys.stderr
    _fill_closed()
    sys.stdout, sys.stderr = map(_Output, streams)
    try:
        main()
        sys.stdout.flush()  # what cannot be printed is passed over here, and no fault at the interpreter's end
        if _among_others():
            _end_at_once(0)
    except InputError as error:
        sys.exit(_refuse(error))
    except MemoryError as error:
        sys.exit(_refuse(f"the memory is not enough ({error}); give smaller files, or fewer at once"))
    except KeyboardInterrupt:
        print("\nstopped by Ctrl+C", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe (`| head`) went away: nothing left to say, and nobody to say it to
        sys.stderr.close()
        sys.exit(141)
    except (OSError, RuntimeError) as error:
        if refused := explain_system_error(error):
            sys.exit(_refuse(refused))
        if not (_among_others() and ("gloo" in str(error) or type(error).__name__.startswith("Dist"))):
            raise
        time.sleep(10)  # another process has ended, and says why
        _end_at_once(2)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the second: it is closed
                stream.flush()
        sys.stdout, sys.stderr = streams


def _fill_closed():
    """Let no file that is opened later get the number of a standard stream that is closed: libraries print there."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)


class _Output:
    """A stream that falls silent where nothing can be written to it, or not any more. stream: None where it was closed, as for a
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
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, self.stream.fileno())  # for what is still in the stream's own memory too
            os.close(silence)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def _refuse(error):
    if _among_others() and os.environ["RANK"] != "0":
        time.sleep(5)  # what is wrong for all of torchrun's processes the first has said, and torchrun ends the others
    sys.stdout.flush()
    text = str(error)
    if os.strerror(errno.EMFILE) in text and "ulimit" not in text:
        text = f"{text}; {more_files()}"
    print(f"error: {one_line(text)}", file=sys.stderr)
    if _among_others():
        _end_at_once(2)
    return 2


def _among_others():
    """Is this one of torchrun's processes?"""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _end_at_once(code):
    """An ordinary end takes down the process group: after a failure it would wait for the others, who wait for this process,
    and with torch 2.6 and gloo it was seen to wait for ever after success too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(d|h|min|m|s)")


def parse_span(option, text):
    """Seconds of ``8h30m``, ``10min``, ``45s``, ``1d``, or ``0``. Raises InputError naming the `option` otherwise."""
    parts = _PARTS.findall(text)
    if text == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InputError(f"{option} {text!r} is no span of time; give one as 8h30m, 10min or 45s")
    return float(sum(float(number) * UNITS[unit] for number, unit in parts))


def clock(seconds):
    """``9:05`` or ``1:09:05``."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"

"""How the kit refuses bad input: one sentence on stderr, exit code 2, no traceback."""

import errno
import os
import sys
import time
from contextlib import suppress

TOO_MANY = (errno.EMFILE, errno.ENFILE)  # files open at once: in this process, in the whole system
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class InputError(Exception):
    """Input the kit cannot work with. The message is one sentence: which file or row, what is wrong, how to mend it."""


def listing(items, show=3, sep=", ", count=None):
    """First few of `items` and how many more there are: ``'a, b, c and 7 more'``. count: how many there are in all, where `items`
    holds only the first."""
    items = [str(item) for item in items]
    count = len(items) if count is None else count
    head = sep.join(items[:show])
    return head if count <= show else f"{head} and {count - show:,} more"


def first_line(error, most=160):
    """What an exception says first, at most so many characters of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:most] if lines else type(error).__name__


def plural(count, noun, nouns=None):
    """``plural(1, 'row') -> '1 row'``, ``plural(2000, 'row') -> '2,000 rows'``; `nouns` where an s is not enough."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def data_size(count):
    """Bytes as a reader wants them: ``1.05 GB``, ``33 MB``, ``4.1 KB``, ``1 byte``."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return plural(count, "byte")


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
        if refused := refused_by_system(error):
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


def refused_by_system(error):
    """The sentence for an exception which says that this process may not use a file, or opens too many; None for any other."""
    number, text = getattr(error, "errno", None), str(error)
    # "ancdata": that a file which another process hands over could not be received
    if number in TOO_MANY or os.strerror(errno.EMFILE) in text or "ancdata" in text:
        return f"too many files are open at once ({first_line(error)}); {_more_files()}"
    if number in FORBIDDEN and error.filename is not None:
        return f"{error.filename} cannot be used ({error.strerror}); allow this user to (chmod, chown), or name another place"
    return None


def _more_files():
    try:
        import resource

        limit = f"ulimit -n allows {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} here"
    except (ImportError, OSError):  # Windows
        limit = "the system sets a limit"
    return f"{limit}: raise it with ulimit -n 4096, or give fewer --workers"


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
        text = f"{text}; {_more_files()}"
    print(f"error: {one_line(text)}", file=sys.stderr)
    if _among_others():
        _end_at_once(2)
    return 2


def one_line(text, most=2000):
    """`text` as one line for a terminal, whatever file it quotes: what cannot be printed is escaped, the middle of a very long
    one left out."""
    text = "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def _among_others():
    """Is this one of torchrun's processes?"""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _end_at_once(code):
    """An ordinary end takes down the process group: after a failure it would wait for the others, who wait for this process,
    and with torch 2.6 and gloo it was seen to wait for ever after success too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

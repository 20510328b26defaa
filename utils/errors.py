"""Bad input: the exception for it, and the words of its message."""

import contextlib
import errno
import os
import warnings

TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)  # open at once: in this process, in the whole system
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class InputError(Exception):
    """Input the kit cannot work with. The message is one sentence: which file or row, what is wrong, how to fix it."""


def listing(items, show=3, sep=", ", count=None):
    """The first of `items` and how many more there are: ``'a, b, c and 7 more'``. count: of all, if `items` are only
    the first."""
    items = [str(item) for item in items]
    count = len(items) if count is None else count
    head = sep.join(items[:show])
    return head if count <= show else f"{head} and {count - show:,} more"


def first_line(error, most=160):
    """The first line of an exception's message, at most `most` characters of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:most] if lines else type(error).__name__


def plural(count, noun, nouns=None):
    """``plural(1, 'row') -> '1 row'``, ``plural(2000, 'row') -> '2,000 rows'``. nouns: the plural, if it is not noun +
    s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def data_size(count):
    """Bytes in words: ``1.05 GB``, ``33 MB``, ``4.1 KB``, ``1 byte``."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return plural(count, "byte")


def explain_system_error(error):
    """The message for an exception which says that this process may not use a file, or opens too many; None for any
    other."""
    number, text = getattr(error, "errno", None), str(error)
    # torch raises RuntimeError if it cannot open or receive ("ancdata") a file, so only the message tells.
    if number in TOO_MANY_FILES or os.strerror(errno.EMFILE) in text or "ancdata" in text:
        return f"too many files are open at once ({first_line(error)}); {more_files()}"
    if number in FORBIDDEN and error.filename is not None:
        fix = "allow this user to (chmod, chown), or name another place"
        return f"{error.filename} cannot be used ({error.strerror}); {fix}"
    return None


def more_files():
    """How to be allowed more open files."""
    try:
        import resource

        limit = f"ulimit -n allows {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} here"
    except (ImportError, OSError):  # Windows
        limit = "the system sets a limit"
    return f"{limit}: raise it with ulimit -n 4096, or give fewer --workers"


def one_line(text, most=2000):
    """`text` as one line for a terminal: what cannot be printed is escaped, the middle of a very long one left out."""
    text = "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


@contextlib.contextmanager
def ignored_warnings():
    """A context without warnings: numpy's about headers that are damaged or written by Python 2, torch's about tensors that are
    rejected next."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def refusal(error, path):
    """Return the InputError that says why the image at `path` was not read; raise RuntimeError, which names it, for a fault of
    the kit."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, MemoryError):
        return InputError(f"out of memory while reading {path}; give fewer --workers")
    if refused := explain_system_error(error):
        return InputError(refused)
    raise RuntimeError(f"{path} could not be read") from error

"""Run a notebook as Kaggle would run it: without a network, and with one folder that can be written.

    unshare --user --map-root-user --net --mount PYTHON tests/sandbox.py NOTEBOOK OUT WORKING confined
    PYTHON tests/sandbox.py NOTEBOOK OUT WORKING

In the first form, inside its own namespaces, every file system is made read-only but WORKING and a new /dev/shm, and no network
interface is up; in the second the interpreter alone refuses connections (tests/kaggle/test_kernel.py puts that into its image). The
notebook is executed in WORKING and written to OUT, which lies in it. Kernel and client talk through Unix sockets.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MS_BIND, RDONLY, RECURSIVE, AT_FDCWD = 4096, 1, 0x8000, -100
MOUNT_SETATTR = 442  # mount_setattr(2), the same number on all 64-bit machines


class Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def confine(working):
    """Make all read-only but `working` and a new /dev/shm. Raises OSError where the kernel does not allow that."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result):
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def attributes(path, flags, **values):
        found = Attributes(**values)
        check(libc.syscall(MOUNT_SETATTR, AT_FDCWD, path, flags, ctypes.byref(found), ctypes.sizeof(found)))

    here = os.fsencode(Path(working).resolve())
    check(libc.mount(here, here, None, MS_BIND, None))
    attributes(b"/", RECURSIVE, set=RDONLY)
    attributes(here, 0, clear=RDONLY)
    check(libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, None))
    os.chdir(here)  # anew, through the mount that can be written


def execute(notebook, out, working):
    """Run the notebook from its first cell to its last, or to the one that fails: writes `out`; returns whether all succeeded."""
    import nbclient
    import nbformat
    from jupyter_client import AsyncKernelManager

    cells = nbformat.read(notebook, as_version=4)
    manager = AsyncKernelManager(
        transport="ipc", connection_file=os.path.join(os.environ["JUPYTER_RUNTIME_DIR"], "k.json")
    )
    client = nbclient.NotebookClient(cells, km=manager, timeout=300, resources={"metadata": {"path": str(working)}})
    try:
        client.execute()
        return True
    except nbclient.exceptions.CellExecutionError:
        return False
    finally:
        nbformat.write(cells, out)


if __name__ == "__main__":
    notebook, out, working, *how = sys.argv[1:]
    if how == ["confined"]:
        confine(working)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as home:  # what belongs to Jupyter and not to the kernel's output
        os.environ |= {name: home for name in ("HOME", "TMPDIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "XDG_CACHE_HOME")}
        if how == ["confined"]:  # nothing of this process's was opened before its mounts were there
            words = [sys.executable, __file__, notebook, out, working, "inside"]
            sys.exit(subprocess.run(words).returncode)
        sys.exit(0 if execute(notebook, out, working) else 3)

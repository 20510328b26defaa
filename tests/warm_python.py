"""A `python` for shell scripts under test, whose processes are forked from this one, which has imported everything already: a script
that starts a dozen of them takes seconds instead of half a minute."""

import contextlib
import importlib
import json
import multiprocessing
import os
import runpy
import socket
import socketserver
import sys
import threading
from pathlib import Path

from import_graph import SCRIPTS

CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({place!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(10)))
"""


@contextlib.contextmanager
def warm_python(folder):
    """-> the path of an executable in `folder` that runs `python SCRIPT …` and `python -m MODULE …`."""
    for name in (*SCRIPTS, "torch._dynamo"):
        importlib.import_module(name)
    path, place = Path(folder, "python"), str(Path(folder, "socket"))
    path.write_text(CLIENT.format(python=sys.executable, place=place))
    path.chmod(0o755)
    with socketserver.ThreadingUnixStreamServer(place, _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


class _Handler(socketserver.BaseRequestHandler):
    def handle(self):
        _, streams, _, _ = socket.recv_fds(self.request, 1, 3)
        text = b"".join(iter(lambda: self.request.recv(2**16), b""))
        process = multiprocessing.get_context("fork").Process(target=_run, args=(streams, *json.loads(text)))
        process.start()
        for number in streams:
            os.close(number)
        process.join()
        self.request.sendall(str(process.exitcode).encode())


def _run(streams, words, folder, environment):
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv = words[words[0] == "-m" :]
    if words[0] == "-m":
        sys.modules.pop(words[1], None)
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")

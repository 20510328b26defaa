"""Feed damaged files to the scripts: each must work or be refused in one sentence.

    python tests/fuzz.py                              # every kind, 5,000 each
    python tests/fuzz.py --mutants 500 --seed 1 png tiff
    python tests/fuzz.py --jobs 4 --keep /tmp/faults

A mutant is a file of one kind (see tests/targets.py), damaged byte by byte or
in its structure. A command that reads it must end with exit code 0, or with
code 2, one `error: …` sentence and nothing written; within 10 seconds of
computing and the memory that normal use fits in. Anything else is a fault: the
mutant is kept, the command shown, and the exit code is 1.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict, namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import mutators  # noqa: E402
import targets  # noqa: E402
from conftest import ROOT, kit  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from tqdm import tqdm  # noqa: E402

SECONDS = 10  # a mutant may compute
PATIENCE = 60  # seconds it may take, on a machine that others use too
DRAWN = 0.05  # of the figures are drawn: it takes a second each, and only a few of the values matter to it
MEMORY = 3 * 2**30  # bytes of address space that it may take beside what the process has already
Verdict = namedtuple("Verdict", "number name command")  # name: "succeeded", "refused" or the first line of a fault


class Hang(BaseException):
    """Not an Exception, so that nothing that is tested catches it."""


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python tests/fuzz.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg = parser.add_argument
    arg("kinds", nargs="*", metavar="KIND", choices=[*targets.KINDS, []], help=f"of {', '.join(targets.KINDS)}")
    arg("--mutants", type=int, default=5000, help="of each kind (default: %(default)s)")
    arg("--seed", type=int, default=0, help="the same seed makes the same mutants (default: %(default)s)")
    arg("--first", type=int, default=0, help="number of the first mutant (default: %(default)s)")
    arg("--jobs", type=int, default=1, help="kinds at a time (default: %(default)s)")
    arg("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-faults", help="folder for mutants at fault")
    return parser.parse_args()


def main():
    args = parse_args()
    kinds = args.kinds or list(targets.KINDS)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        base = prepare(Path(folder))
        with ThreadPoolExecutor(args.jobs) as pool:
            results = dict(zip(kinds, pool.map(lambda kind: fuzz(kind, base, args), kinds), strict=True))
    return report(results, args.keep)


def prepare(folder):
    """Make the files to damage, in a process of their own: this one must stay without threads to be forked."""
    base = folder / "base"
    process = multiprocessing.get_context("fork").Process(target=quietly, args=(targets.make, base))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("the files to damage could not be made")
    return base


def fuzz(kind, base, args):
    """-> (Counter of verdicts, {fault: (kept mutant, command)}) of one kind."""
    counts, examples = Counter(), {}
    with tqdm(total=args.mutants, desc=kind, unit="mutant", mininterval=10) as bar:
        for verdict, mutant in verdicts(kind, base, args):
            counts[verdict.name] += 1
            if mutant is not None and verdict.name not in examples:
                args.keep.mkdir(parents=True, exist_ok=True)
                kept = args.keep / f"{kind}-{args.seed}-{verdict.number}{Path(targets.KINDS[kind].file).suffix}"
                kept.write_bytes(mutant)
                examples[verdict.name] = (kept, verdict.command)
            bar.update()
            bar.set_postfix(faults=sum(counts.values()) - counts["succeeded"] - counts["refused"], refresh=False)
    return counts, examples


def verdicts(kind, base, args):
    """Yield a verdict on each mutant, and the mutant where it is at fault. A process that dies of one is begun anew after it."""
    number, end = args.first, args.first + args.mutants
    context = multiprocessing.get_context("fork")
    while number < end:
        with tempfile.TemporaryDirectory(prefix=f"fuzz-{kind}-") as folder:
            here, there = context.Pipe(duplex=False)
            job = (there, kind, base, Path(folder), args.seed, number, end)
            process = context.Process(target=quietly, args=(work, *job))
            process.start()
            there.close()
            with contextlib.suppress(EOFError):
                while number < end and here.poll(2 * PATIENCE):
                    verdict, mutant = here.recv()
                    yield verdict, mutant
                    number = verdict.number + 1
            if number < end:
                process.join(1)
                process.kill()
                process.join()
                code = process.exitcode
                name = "hung where no alarm reaches" if code == -signal.SIGKILL else f"the process died with {code}"
                path = targets.victim(Path(folder), kind, random.Random(f"{args.seed} {kind} {number}"))
                yield (
                    Verdict(number, name, f"--seed {args.seed} --first {number} --mutants 1 {kind}"),
                    path.read_bytes(),
                )
                number += 1
            process.join()


def quietly(function, *arguments):
    """Call in a process whose C libraries' complaints go nowhere."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(1)


def work(pipe, kind, base, folder, seed, first, end):
    """Try the mutants `first` to `end`, and send each verdict."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    if kind in targets.PACKED_KINDS:
        targets.pack(folder)
    (folder / "empty").mkdir()
    os.chdir(folder / "empty")
    limit_memory()
    for number in range(first, end):
        verdict, mutant = attempt(kind, folder, number, random.Random(f"{seed} {kind} {number}"))
        pipe.send((verdict, None if verdict.name in ("succeeded", "refused") else mutant))


def limit_memory():
    """Of this process, beside what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 2**22
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def mutate(kind, data, random):
    """Damage of any bytes, or of what the format is made of."""
    change = random.choice([mutators.damage, targets.KINDS[kind].structure, targets.KINDS[kind].structure])
    try:
        return change(data, random)
    except Exception:  # damage that the mutator itself cannot get through
        return mutators.damage(data, random)


def attempt(kind, folder, number, random):
    """One mutant in its place, one command that reads it, all put back: -> Verdict, the mutant."""
    path = targets.victim(folder, kind, random)
    whole = path.read_bytes()
    mutant = mutate(kind, whole, random)
    command = random.choice(targets.KINDS[kind].commands)
    path.write_bytes(mutant)
    before = listing(folder)
    try:
        with contextlib.nullcontext() if random.random() < DRAWN else mock.patch.object(Figure, "savefig", _undrawn):
            verdict = judge(targets.words(command, folder, kind), folder, before)
        return Verdict(number, verdict, command), mutant
    finally:
        path.write_bytes(whole)
        clean(folder, before)


def _undrawn(_, file, **__):
    file.write(b"no figure")


def judge(words, folder, before):
    """ "succeeded", "refused", or what is wrong."""
    clock, spent = time.monotonic(), time.process_time()

    def alarm(*_):
        if time.process_time() - spent >= SECONDS or time.monotonic() - clock >= PATIENCE:
            raise Hang
        signal.alarm(1)

    signal.signal(signal.SIGALRM, alarm)
    signal.alarm(SECONDS)
    try:
        result = kit(*words)
    except Hang:
        return f"{words[0]}: took more than {SECONDS} s at {_where(sys.exc_info()[2])}"
    except BaseException as error:
        told = str(error).partition("\n")[0][:80]
        return f"{words[0]}: {type(error).__name__}: {told} at {_where(error.__traceback__)}"
    finally:
        signal.alarm(0)
    message = result.err.strip()
    if result.code == 0:
        return "succeeded"
    if result.code != 2:
        return f"{words[0]}: exit code {result.code}"
    if not message.startswith("error: ") or len(message.splitlines()) != 1:
        return f"{words[0]}: no one sentence: {message.splitlines()[0][:100] if message else 'nothing'}"
    if "error: out of memory (" in message:
        return f"{words[0]}: out of memory"
    if left := sorted(set(listing(folder).items()) ^ set(before.items())):
        return f"{words[0]}: refused, but {Path(left[0][0]).name} was written"
    return "refused"


def _where(trace):
    """The last line of the kit that a traceback goes through."""
    own = [
        frame
        for frame in traceback.extract_tb(trace)
        if frame.filename.startswith(str(ROOT)) and "tests" not in frame.filename
    ]
    return f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno}" if own else "an unknown place"


def listing(folder):
    """{path: (size, time of change)} of all files below a folder, but locks and what packing keeps for itself."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if "/cache" not in place and not name.endswith(".lock"):
                state = os.stat(os.path.join(place, name))
                found[os.path.join(place, name)] = (state.st_size, state.st_mtime_ns)
    return found


def clean(folder, before):
    """Put back what a command wrote, and packed copies that it made anew."""
    for name in ("out", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    if (folder / "whole").exists():
        shutil.copytree(folder / "whole", folder / "cache")
    for path in set(listing(folder)) - set(before):
        os.unlink(path)


def report(results, keep):
    """Print the table and the faults: -> exit code."""
    width = max(map(len, results))
    print(f"{'kind':{width}}{'mutants':>9}{'succeeded':>11}{'refused':>9}{'faults':>8}")
    total, kept = Counter(), defaultdict(list)
    for kind, (counts, examples) in results.items():
        numbers = Counter(succeeded=counts["succeeded"], refused=counts["refused"], mutants=sum(counts.values()))
        numbers["faults"] = numbers["mutants"] - numbers["succeeded"] - numbers["refused"]
        print(f"{kind:{width}}" + _row(numbers))
        total += numbers
        for fault, (path, command) in examples.items():
            kept[fault].append((counts[fault], path, command))
    print(f"{'all':{width}}" + _row(total))
    for fault, examples in kept.items():
        print(f"\n{sum(count for count, *_ in examples):,} times {fault}")
        for _, path, command in examples:
            print(f"   {path}: {command}")
    return 1 if total["faults"] else 0


def _row(numbers):
    return "".join(
        f"{numbers[name]:>{room},}" for name, room in (("mutants", 9), ("succeeded", 11), ("refused", 9), ("faults", 8))
    )


if __name__ == "__main__":
    sys.exit(main())

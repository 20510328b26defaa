"""Where the memory is while a network trains from packed data: its own process, and those that load."""

from textwrap import fill

from utils.tools.benchmark import probe

PARTS = {"resident_mb": "in all", "own_mb": "own", "shared_mb": "shared", "files_mb": "files", "packed_mb": "packed"}


def measure(bench):
    """Rows of MB for each process, see `resident.resident`."""
    size = {"model": bench.args.model, "size": bench.args.size, "workers": bench.workers}
    return size | (probe.ask(bench, "training") or {"packed_mb": None, "batch": bench.batch_size, "rows": []})


def report(found):
    told = f"{found['size']}², batches of {found['batch']}; MB resident of each process at its largest"
    print(fill(f"memory: {found['model']}, {told}", 79))
    if not found["rows"]:
        print("nothing is known of it: the process was killed, or this system does not tell")
        return
    print(f"{'process':14}" + "".join(f"{title:>10}" for title in PARTS.values()))
    for row in found["rows"]:
        print(f"{row['process']:14}" + "".join(f"{row[part]:>10,.0f}" for part in PARTS))
    told = f"of them packed images ({found['packed_mb']:,.0f} MB)"
    print("own: written by it alone; shared: with its loading processes; files: pages as")
    print(f"they are on the disk, which the system may drop, {told}")

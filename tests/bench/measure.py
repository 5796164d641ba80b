# SPDX-License-Identifier: Apache-2.0
"""What a program cost, and whether that is what was aimed at.

Figures hold for one machine and one run: aims are ratios to a peer of the same run wherever there is a peer.
"""

import copy
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
MIB = 1 << 20


class BenchError(Exception):
    """What a person should read."""


def build_dir():
    """Where the programs are: MERVIS_BUILD, else the tree itself."""
    return Path(os.environ.get("MERVIS_BUILD", TOP)).resolve()


def program(name):
    path = build_dir() / name
    if not path.exists():
        raise BenchError(f"{path} is not built: run `make bench`, or set MERVIS_BUILD to the build directory")
    return path


def scratch():
    """A directory on a real disk, that goes when the benchmark ends."""
    return tempfile.TemporaryDirectory(prefix="mervis-bench.", dir=os.environ.get("MERVIS_BENCH_DIR", "/var/tmp"))


def numbers(text):
    """"key: value" lines whose values are numbers."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        word = value.split()[:1]
        if word and word[0].isdigit():
            found[key] = int(word[0])
    return found


class Cost:
    """CPU, memory, time and disk writes of one child, from fork to exit."""

    def __init__(self, wall, usage, peak, written):
        self.wall = wall
        self.user, self.system = usage.ru_utime, usage.ru_stime
        self.cpu = self.user + self.system
        self.peak = peak
        self.written = written
        self.rows = 0

    def per_rows(self, rows):
        self.rows = rows
        return self

    def as_dict(self):
        rows = self.rows or 1
        return {"rows": self.rows, "seconds": round(self.wall, 3), "rows_per_second": round(rows / self.wall),
                "cpu_seconds": round(self.cpu, 3), "user_seconds": round(self.user, 3),
                "system_seconds": round(self.system, 3),
                "cpu_seconds_per_million_rows": round(self.cpu / rows * 1e6, 3),
                "peak_bytes": self.peak, "written_bytes": self.written,
                "written_bytes_per_row": round(self.written / rows, 1)}


def run_measured(argv, log, env=None, cpus=None, timeout=900):
    """Run ARGV to its end and return its Cost; anything but exit status 0 is a BenchError.

    tests/bench/launch is its parent: the kernel's figure for a child's peak memory begins with its parent's.
    """
    env = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
    told, tell = os.pipe()
    with open(log, "wb") as out, open(told, encoding="ascii") as words:
        begun = time.monotonic()
        child = subprocess.Popen([str(arg) for arg in (program("tests/bench/launch"), tell, *argv)],
                                 stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, pass_fds=[tell],
                                 preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None)
        os.close(tell)
        usage, wall, told = _wait_measured(child, begun, timeout, words)
    if child.returncode:
        end = Path(log).read_text(errors="replace")[-2000:]
        raise BenchError(f"{argv[0]} ended with status {child.returncode} after {wall:.1f} s\n{end}")
    peak, written = (int(word) for word in told.split())
    return Cost(wall, usage, peak * 1024, written)


def _wait_measured(child, begun, timeout, words):
    late = threading.Timer(timeout, child.kill)
    late.start()
    try:
        told = words.read()  # until the launcher has ended
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
    finally:
        late.cancel()
        if child.returncode is None:
            child.kill()
            child.wait()
    return usage, wall, told


def median_cost(runs):
    """The run of median CPU, with the median time of all: they vary apart from each other."""
    chosen = copy.copy(sorted(runs, key=lambda cost: cost.cpu)[len(runs) // 2])
    chosen.wall = statistics.median(cost.wall for cost in runs)
    return chosen


# A peer may write where the machine's own configuration is: into memory instead.
ALOFT = """
mount -t tmpfs tmpfs /mnt && for dir in etc var; do
    mkdir /mnt/$dir /mnt/$dir-work &&
    mount -t overlay overlay -o lowerdir=/$dir,upperdir=/mnt/$dir,workdir=/mnt/$dir-work /$dir || exit 1
done
exec "$@"
"""


def aloft(*argv):
    return ["unshare", "-m", "sh", "-c", ALOFT, "sh", *argv]


def cloud_init(log):
    """Its first stage alone, which every boot has, run on a machine that is up and has read its files before: at a boot
    it takes longer. What the other stages do is what agentd does instead. None: not installed."""
    if not shutil.which("cloud-init"):
        return None
    cost = run_measured(aloft("cloud-init", "init", "--local"), log, timeout=120)
    return {"cpu_seconds": round(cost.cpu, 2), "seconds": round(cost.wall, 2), "peak_mib": round(cost.peak / MIB, 1)}


def two_sides():
    """(CPUs of the program under test, CPUs of the servers): one core, and the others."""
    cpus = sorted(os.sched_getaffinity(0))
    return ({cpus[0]}, set(cpus[1:])) if len(cpus) > 1 else (set(cpus), set(cpus))


class Server:
    """A child that serves while a benchmark runs."""

    def __init__(self, argv, log, cpus=None):
        self.log = Path(log)
        with open(log, "wb") as out:
            self.child = subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None)

    def wait(self, question, timeout=15):
        deadline = time.monotonic() + timeout
        while True:
            try:
                if question():
                    return self
            except OSError:
                pass
            if self.child.poll() is not None or time.monotonic() > deadline:
                end = self.log.read_text(errors="replace")[-2000:]
                raise BenchError(f"{self.child.args[0]} does not answer\n{end}")
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Report:
    """One benchmark's results: what was measured, and each aim with its verdict."""

    def __init__(self, name, work):
        self.name = name
        self.work = work
        self.measured = {}
        self.aims = []
        self.notes = []

    def aim(self, what, value, limit, text, at_least=False, argued=None):
        """VALUE against LIMIT; None when it could not be measured, which is said and is no pass.

        ARGUED says why an aim that is missed is wrong or was only hoped for: it is shown, and is no failure.
        """
        met = None if value is None else (value >= limit if at_least else value <= limit)
        if met is False and argued:
            self.note(f"{what}: {argued}")
        self.aims.append({"what": what, "value": None if value is None else round(value, 4), "limit": limit,
                          "sense": "at least" if at_least else "at most", "measured": text,
                          "verdict": {True: "met", False: "argued" if argued else "MISSED", None: "not measured"}[met]})

    def note(self, text):
        self.notes.append(text)

    def as_dict(self):
        return {"name": self.name, "work": self.work, "measured": self.measured, "aims": self.aims, "notes": self.notes}

    def print(self, out=sys.stdout):
        print_report(self.as_dict(), out)


def print_costs(costs, out):
    print(f"  {'':<34}{'rows/s':>10}{'CPU s/M':>9}{'peak MiB':>10}{'B/row disk':>11}{'seconds':>9}", file=out)
    for name, cost in costs.items():
        print(f"  {name:<34}{cost['rows_per_second']:>10,}{cost['cpu_seconds_per_million_rows']:>9.2f}"
              f"{cost['peak_bytes'] / MIB:>10.1f}{cost['written_bytes_per_row']:>11.1f}{cost['seconds']:>9.2f}",
              file=out)


def print_report(report, out=sys.stdout):
    print(f"\n== {report['name']}: {report['work']}", file=out)
    costs = {name: value for name, value in report["measured"].items()
             if isinstance(value, dict) and "cpu_seconds_per_million_rows" in value}
    if costs:
        print_costs(costs, out)
    for name, value in report["measured"].items():
        if name not in costs:
            print(f"  {name:<45} {json.dumps(value)}", file=out)
    for aim in report["aims"]:
        print(f"  {aim['verdict']:<13}{aim['what']:<52} {aim['measured']:<25} aim: {aim['sense']} {aim['limit']:g}",
              file=out)
    for note in report["notes"]:
        print(f"  note: {note}", file=out)


def machine():
    return {"cpus": os.cpu_count(), "kernel": platform.release(), "machine": platform.machine(),
            "load": round(os.getloadavg()[0], 1), "self_peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def finish(report, arguments):
    """Print, write JSON to the file named first (if any), and say by the exit status whether each aim was met."""
    report.print()
    if arguments:
        Path(arguments[0]).write_text(json.dumps({**report.as_dict(), "machine": machine()}, indent=1) + "\n")
    return 1 if any(aim["verdict"] == "MISSED" for aim in report.aims) else 0

# SPDX-License-Identifier: Apache-2.0
"""A whole machine: Debian booted by real systemd in nspawn, with the programs installed as `make install` puts them.

It shares the network of tests/rig/enter, where the metadata server's address is localcloud. Its disk is an overlay that
lives through reboots of the same machine; a reset (kill -9 of its init) is the nearest thing to a power cut that a
container has: memory and processes are gone, the page cache is not.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from .process import RigError, run, tail, wait_for

PACKAGES = ("systemd,systemd-sysv,dbus,udev,kmod,iproute2,iptables,procps,login,tzdata,strace,busybox-static,docker.io,"
            "libcurl4,libjansson4,libsqlite3-0,libxml2,libmicrohttpd12,libssl3,e2fsprogs,ca-certificates,sqlite3")
SLOW_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
              "dpkg-db-backup.timer", "systemd-networkd-wait-online.service", "systemd-timesyncd.service")
ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
DEFAULT_CACHE = "/var/cache/mervis-agent"


def root_archive():
    """The tar of a Debian root with all that the package depends on; made once and kept. MERVIS_ROOT_TAR names it."""
    path = Path(os.environ.get("MERVIS_ROOT_TAR") or Path(DEFAULT_CACHE) / "instance-root.tar")
    if not path.exists():
        raise RigError(f"{path} is missing: tests/instance/make-root {path}")
    return path


def make_base(build, directory, tar=None, authority=None):
    """The lower layers of every machine's disk: Debian, and on it what `make install` installs, and trust in an
    authority's certificates; without one the registry is spoken to in the clear."""
    debian, programs = Path(directory) / "debian", Path(directory) / "programs"
    for path in (debian, programs):
        path.mkdir(parents=True, exist_ok=True)
    run(["tar", "-xf", tar or root_archive(), "-C", debian], timeout=300)
    run(["make", "-s", "-C", build, "install", f"DESTDIR={programs}"], timeout=300)
    # The bus daemon reads no policies below /usr/local.
    policies = programs / "usr/local/share/dbus-1"
    if policies.is_dir():
        shutil.copytree(policies, programs / "usr/share/dbus-1", dirs_exist_ok=True)
    etc = programs / "etc"
    (etc / "docker").mkdir(parents=True, exist_ok=True)
    (etc / "docker/daemon.json").write_text(json.dumps({
        "insecure-registries": [] if authority else ["asia-northeast3-docker.pkg.dev"], "log-driver": "json-file",
        "exec-opts": ["native.cgroupdriver=cgroupfs"]}))
    if authority:
        authority.trusted_in(debian, programs)
    registry = "199.36.153.8" if authority else "127.0.0.1"
    (etc / "hosts").write_text("127.0.0.1 localhost\n169.254.169.254 metadata.google.internal\n"
                               f"{registry} asia-northeast3-docker.pkg.dev\n")
    system = etc / "systemd/system"
    for unit in ("agentd", "crawlerd"):
        drop_in = system / f"{unit}.service.d"
        drop_in.mkdir(parents=True)
        (drop_in / "cloud.conf").write_text("[Service]\nEnvironment=GCE_METADATA_HOST=169.254.169.254\n")
    wants = system / "multi-user.target.wants"
    wants.mkdir()
    (wants / "agentd.service").symlink_to("/usr/local/lib/systemd/system/agentd.service")
    for unit in SLOW_UNITS:
        (system / unit).symlink_to("/dev/null")
    return [programs, debian]


class Vm:
    """BINDS are further directories of its disk, "OUTSIDE:INSIDE"; they live through reboots as the disk does."""

    def __init__(self, base, directory, name="vm", binds=()):
        self.base = base
        self.binds = [f"--bind={pair}" for pair in binds]
        self.dir = Path(directory)
        self.name = name
        self.root = self.dir / "root"
        self.docker = self.dir / "docker"
        self.log = self.dir / "console.log"
        self.nspawn = None
        self.leader = None
        for path in (self.root, self.docker, self.dir / "upper", self.dir / "work"):
            path.mkdir(parents=True, exist_ok=True)
        layers = ":".join(str(layer) for layer in base)
        run(["mount", "-t", "overlay", "overlay", "-o",
             f"lowerdir={layers},upperdir={self.dir / 'upper'},workdir={self.dir / 'work'}", self.root])

    # Power

    def _own_cgroup(self):
        group = f"{os.environ.get('MERVIS_RIG_CGROUP', 'mervis-rig')}/{self.name}"
        top = Path("/sys/fs/cgroup")
        for tree in (top / "unified", top / "systemd", top):
            if (tree / "cgroup.procs").exists():
                (tree / group).mkdir(parents=True, exist_ok=True)
                (tree / group / "cgroup.procs").write_text(str(os.getpid()))

    def boot(self, timeout=60):
        """Start it, and return when systemd has done its part of the boot."""
        argv = ["systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}", f"--machine={self.name}",
                "--register=no", "--keep-unit", f"--network-namespace-path=/proc/{os.getpid()}/ns/net",
                "--resolv-conf=off", "--timezone=off", "--console=pipe", "--hostname=vm-1",
                f"--bind={self.docker}:/var/lib/docker", *self.binds,
                "--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON",
                "--system-call-filter=add_key keyctl bpf @swap"]
        env = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
        with open(self.log, "ab") as log:
            self.nspawn = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                                           preexec_fn=self._own_cgroup)
        self.leader = wait_for("init of the machine", self._find_leader, 20)
        wait_for("systemd", lambda: self.sh("systemctl is-system-running", check=False).stdout.strip()
                 in ("running", "degraded"), timeout, 0.1)
        return self

    def _find_leader(self):
        if self.nspawn.poll() is not None:
            raise RuntimeError(f"systemd-nspawn ended with {self.nspawn.returncode}\n{tail(self.log, 30)}")
        children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        return next((int(pid) for pid in children
                     if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"), None)

    def power_off(self, timeout=60):
        """In order, as the power button does. Returns how long it took."""
        began = time.monotonic()
        os.kill(self.leader, signal.SIGRTMIN + 4)
        self.nspawn.wait(timeout)
        self._gone()
        return time.monotonic() - began

    def reset(self):
        """At once, in the middle of everything."""
        os.kill(self.leader, signal.SIGKILL)
        self.nspawn.wait(20)
        self._gone()

    def _gone(self):
        self.nspawn = self.leader = None

    def close(self):
        if self.nspawn and self.nspawn.poll() is None:
            self.reset()
        subprocess.run(["umount", "-l", str(self.root)], check=False)

    # Inside

    def fake_sysctl(self, name, value):
        """/proc/sys is read-only here, for it is the host's: one file of it of our own."""
        self.sh(f"echo {value} >/run/{name}; mount --bind /run/{name} /proc/sys/{name.replace('.', '/')}")

    def sh(self, script, check=True, timeout=60, input=None):
        """A shell script in the machine; its output as text."""
        argv = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--", "/usr/bin/env", "-i",
                *(f"{key}={value}" for key, value in ENV.items()), "/bin/bash", "-c", f"cd /; {script}"]
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=timeout, input=input,
                              stdin=None if input else subprocess.DEVNULL)
        if check and done.returncode:
            raise RigError(f"{script}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def out(self, script, **kwargs):
        return self.sh(script, **kwargs).stdout.strip()

    def path(self, path):
        """A file of its disk, as seen from outside (not /run, /tmp or /proc)."""
        return self.root / path.lstrip("/")

    def write(self, path, text):
        self.sh(f"cat >{path}", input=text)

    def journal(self, *match):
        return self.out("journalctl --no-pager --quiet --output=cat --all " + " ".join(match))

    def pid(self, unit="agentd"):
        return int(self.out(f"systemctl show --value -p MainPID {unit}"))

    @contextmanager
    def traced(self, unit="agentd", calls="%desc,%file"):
        """The system calls of a daemon meanwhile, as a list that is filled at the end."""
        lines = []
        argv = ["nsenter", "-t", str(self.leader), "-m", "-p", "--", "/usr/bin/strace", "-f", "-qq", "-y", "-s", "120",
                "-e", f"trace={calls}", "-p", str(self.pid(unit))]
        with open(self.dir / "strace", "w") as out:
            tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            wait_for("the tracer", lambda: "TracerPid:\t0\n" not in
                     self.sh(f"cat /proc/{self.pid(unit)}/status").stdout, 10)
            yield lines
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)
        lines += (self.dir / "strace").read_text(errors="replace").splitlines()

    def status(self):
        done = self.sh("agentctl status --json", check=False)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise RigError(f"agentctl status --json: status {done.returncode}\n{done.stdout}{done.stderr}") from None

    def resource(self, kind, name=None):
        """What status says of a resource; None when the plan has none."""
        for item in self.status().get("resources") or []:
            if item["kind"] == kind and name in (None, item["name"]):
                return item
        return None

    def explain(self, what, question, timeout=30, every=0.1):
        try:
            return wait_for(what, question, timeout, every)
        except RigError as err:
            raise RigError(f"{err}\n--- journal of agentd\n{self.out('journalctl -u agentd -n 40 -o cat', check=False)}") \
                from None

    def wait_generation(self, number, outcome=("applied",), timeout=30):
        def there():
            plan = self.status()["plan"]
            return plan if plan["generation"] == number and plan["outcome"] in outcome else None
        return self.explain(f"generation {number} to be {'/'.join(outcome)}", there, timeout)

# SPDX-License-Identifier: Apache-2.0
"""A machine with a kernel of its own, in QEMU: what a container cannot have. A power button, a power cut that takes what
was not synced, a clock, limits of memory and CPU, netem.

It is emulated in software, since a host's KVM may be there and not boot a stock kernel; so it is slow, is booted once, and
later runs begin from a snapshot. Its network reaches nothing but the addresses below, which lead to the servers of the rig.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from .machine import REGISTRY_HOST
from .process import RigError, run, tail, wait_for
from .vm import ENV, make_base

DEFAULT_TAR = "/var/cache/mervis-agent/instance-root-kernel.tar"
METADATA, GOOGLE, MARKET = "169.254.169.254", "169.254.169.253", "169.254.169.252"
# Plain HTTP is for loopback and the metadata server alone: in the machine a proxy listens there.
LOCAL = {GOOGLE: "127.0.0.3", MARKET: "127.0.0.2"}
SHELL = """[Unit]
Description=A root shell on the second console
[Service]
ExecStart=/bin/sh -c 'stty raw -echo; PS1= PS2= exec bash --norc --noediting'
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/hvc0
Restart=always
KillSignal=SIGKILL
Environment=HOME=/root {env}
"""


def make_disk(build, directory):
    """(kernel, initrd, disk): Debian with the programs installed, as an ext4 image of 4 GB that is mostly holes."""
    directory = Path(directory)
    tar = Path(os.environ.get("MERVIS_ROOT_KERNEL_TAR") or DEFAULT_TAR)
    if not tar.exists():
        raise RigError(f"{tar} is missing: tests/instance/make-root --kernel {tar}")
    programs, root = make_base(build, directory, tar=tar)
    run(["cp", "-a", f"{programs}/.", root], timeout=120)
    shutil.rmtree(programs)
    _furnish(root)
    kernel = shutil.copy(next((root / "boot").glob("vmlinuz-*")), directory / "vmlinuz")
    initrd = shutil.copy(next((root / "boot").glob("initrd.img-*")), directory / "initrd.img")
    disk = directory / "disk.img"
    run(["truncate", "-s", "4G", disk])
    run(["mkfs.ext4", "-q", "-F", "-d", root, disk], timeout=300)
    shutil.rmtree(root)
    return kernel, initrd, disk


def _furnish(root):
    system = root / "etc/systemd/system"
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{METADATA} metadata.google.internal\n"
                                    f"{LOCAL[GOOGLE]} {REGISTRY_HOST}\n")
    (root / "etc/hostname").write_text("vm-1\n")
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    network = root / "etc/systemd/network/10-lan.network"
    network.parent.mkdir(parents=True, exist_ok=True)
    network.write_text("[Match]\nType=ether\nKind=!veth\n[Network]\nAddress=169.254.169.15/24\nLinkLocalAddressing=no\n"
                       "IPv6AcceptRA=no\n")
    (system / "shell.service").write_text(SHELL.format(env=" ".join(f"{key}={value}" for key, value in ENV.items())))
    (system / "serial-getty@hvc0.service").symlink_to("/dev/null")  # which systemd would start there by itself
    (root / "etc/udev/rules.d/90-shell.rules").write_text('KERNEL=="hvc0", TAG+="systemd", ENV{SYSTEMD_WANTS}="shell.service"\n')
    for address, local in LOCAL.items():
        name = f"to-{address.rpartition('.')[2]}"
        (system / f"{name}.socket").write_text(f"[Socket]\nListenStream={local}:80\n")
        (system / f"{name}.service").write_text(
            f"[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {address}:80\n")
        _want(system, "sockets.target", f"/etc/systemd/system/{name}.socket")
    # An emulated processor is ten times slower, on a busy host a hundred times: not what the units' limits are about.
    for name in ("agentd", "crawlerd", "statusd", "docker", "containerd"):
        patient = system / f"{name}.service.d" / "patient.conf"
        patient.parent.mkdir(exist_ok=True)
        patient.write_text("[Service]\nTimeoutStartSec=600\nWatchdogSec=300\n" if name in ("agentd", "crawlerd", "statusd")
                           else "[Service]\nTimeoutStartSec=600\n")
    _want(system, "multi-user.target", "/lib/systemd/system/systemd-networkd.service")
    _want(system, "multi-user.target", "/lib/systemd/system/systemd-logind.service")  # hears the power button
    _want(system, "multi-user.target", "/usr/local/lib/systemd/system/statusd.service")
    for name in ("statusd.socket", "statusd-local.socket"):
        _want(system, "sockets.target", f"/usr/local/lib/systemd/system/{name}")


def _want(system, target, unit):
    wants = system / f"{target}.wants"
    wants.mkdir(exist_ok=True)
    (wants / unit.rpartition("/")[2]).symlink_to(unit)


class Qemu:
    """One machine on a disk of its own above the shared image; `ports` lead from the rig's loopback into it."""

    def __init__(self, made, directory, memory_mib=1024, ports=((18080, 8080),)):
        self.kernel, self.initrd, base = made
        self.dir = Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.memory_mib, self.ports = memory_mib, ports
        self.disk, self.log = self.dir / "disk.qcow2", self.dir / "console.log"
        self.process = self.shell = None
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", Path(base).resolve(), self.disk])

    def _argv(self, snapshot):
        net = ("user,id=n0,restrict=on,ipv6=off,net=169.254.169.0/24,host=169.254.169.1,dns=169.254.169.2,"
               "dhcpstart=169.254.169.15")
        for address in (METADATA, GOOGLE, MARKET):
            net += f",guestfwd=tcp:{address}:80-cmd:socat - TCP:127.0.0.1:80"
        for outer, inner in self.ports:
            net += f",hostfwd=tcp:127.0.0.1:{outer}-:{inner}"
        return ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max",
                "-m", str(self.memory_mib), "-smp", "2", "-display", "none", "-nodefaults", "-no-user-config",
                "-kernel", self.kernel, "-initrd", self.initrd,
                "-append", "console=ttyS0 root=/dev/vda rw mitigations=off apparmor=0 quiet",
                "-drive", f"file={self.disk},format=qcow2,if=virtio", "-device", "virtio-rng-pci",
                "-serial", f"file:{self.log}", "-qmp", f"unix:{self.dir / 'qmp'},server=on,wait=off",
                "-netdev", net, "-device", "virtio-net-pci,netdev=n0,romfile=",
                "-device", "virtio-serial-pci", "-chardev", f"socket,id=sh,path={self.dir / 'sh'},server=on,wait=off",
                "-device", "virtconsole,chardev=sh", *(["-loadvm", snapshot] if snapshot else [])]

    def boot(self, snapshot=None, timeout=900):
        """Power on, or go on from a snapshot; returns when systemd has done its part, and how long that took."""
        begun = time.monotonic()
        self.log.unlink(missing_ok=True)
        with open(self.dir / "qemu.log", "ab") as log:
            self.process = subprocess.Popen([str(word) for word in self._argv(snapshot)], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)

        def up():
            if self.process.poll() is not None:
                raise RuntimeError(f"QEMU ended with {self.process.returncode}\n{tail(self.dir / 'qemu.log')}")
            # Not before there is a shell: what is sent sooner is done later.
            if not snapshot and "login:" not in self.log.read_text(errors="replace"):
                return False
            return self.out("systemctl is-system-running || true", timeout=30).endswith(("running", "degraded"))
        wait_for("the machine", up, timeout, 1)
        if snapshot:
            self.sh(f"date -s @{int(time.time())}")  # it was then in the snapshot
        return time.monotonic() - begun

    # Inside

    def _connect(self):
        """Once a boot: QEMU takes one client, and sees that one has gone only when the machine reads."""
        channel = socket.socket(socket.AF_UNIX)
        channel.settimeout(5)
        channel.connect(str(self.dir / "sh"))
        self.shell = channel

    def sh(self, script, check=True, timeout=60):
        """A shell script in the machine: (status, output)."""
        mark = f"MARK{time.monotonic_ns()}"
        if self.shell is None:
            self._connect()
        got = b""
        try:
            self.shell.sendall(f"( {script}\n) </dev/null 2>&1; printf '\\n{mark} %d\\n' $?\n".encode())
            deadline = time.monotonic() + timeout
            end = re.compile(rf"\n{mark} (\d+)\r?\n".encode())
            while not end.search(got):
                self.shell.settimeout(max(0.1, deadline - time.monotonic()))
                more = self.shell.recv(65536)
                if not more or time.monotonic() > deadline:
                    raise TimeoutError
                got += more
        except OSError as err:
            raise RigError(f"{script}: no end within {timeout} s ({err!r})") from None
        status = int(end.search(got)[1])
        # What an earlier one that took too long still had to say is not this one's.
        text = re.split(r"\nMARK\d+ \d+\n", got[:end.search(got).start()].decode("utf-8", "replace").replace("\r", ""))[-1]
        if check and status:
            raise RigError(f"{script}: status {status}\n{text}")
        return status, text

    def out(self, script, **kwargs):
        return self.sh(script, **kwargs)[1].strip()

    def status(self):
        text = self.out("agentctl status --json || true")
        try:
            return json.loads(text[text.index("{"):])
        except ValueError:
            raise RigError(f"agentctl status --json: {text[-500:]}") from None

    # Power, and other things that only a machine has

    def qmp(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(60)
            channel.connect(str(self.dir / "qmp"))
            lines = channel.makefile("rw")
            lines.readline()
            for order in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                lines.write(json.dumps(order) + "\n")
                lines.flush()
                while True:
                    answer = json.loads(lines.readline())
                    if "error" in answer:
                        raise RigError(f"{command}: {answer['error']['desc']}")
                    if "return" in answer:
                        break
            return answer["return"]

    def save(self, name):
        said = self.qmp("human-monitor-command", **{"command-line": f"savevm {name}"})
        if said.strip():
            raise RigError(f"savevm: {said}")

    def press_power_button(self):
        self.qmp("system_powerdown")

    def wait_off(self, timeout):
        """Seconds until it was off by itself."""
        begun = time.monotonic()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RigError(f"the machine is not off after {timeout} s\n{tail(self.log, 30)}") from None
        self._gone()
        return time.monotonic() - begun

    def cut_power(self):
        """At once: what was not synced is lost with it."""
        self.process.kill()
        self.process.wait(10)
        self._gone()

    def _gone(self):
        if self.shell:
            self.shell.close()
        self.process = self.shell = None

    def close(self):
        if self.process:
            self.cut_power()

# SPDX-License-Identifier: Apache-2.0
"""Processes with a log, an end and a deadline."""

import os
import signal
import subprocess
import time
from pathlib import Path


class RigError(Exception):
    """What a person should read: what was expected, and what was there instead."""


def wait_for(what, question, timeout=30.0, every=0.05):
    """Ask `question()` until its answer is true, and return the answer; after `timeout` seconds fail with `what`.

    `question` may raise OSError or RigError for "not yet"; the last one is part of the failure.
    """
    deadline = time.monotonic() + timeout
    last = None
    while True:
        try:
            last = question()
            if last:
                return last
        except (OSError, RigError) as err:
            last = err
        if time.monotonic() >= deadline:
            raise RigError(f"no {what} within {timeout:g} s (last: {last!r})")
        time.sleep(every)


def stays(what, question, seconds, every=0.2):
    """Fail with `what` unless `question()` is true all along."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not question():
            raise RigError(f"{what} did not last {seconds:g} s")
        time.sleep(every)


def run(argv, timeout=60, check=True, **kwargs):
    """Run a command to its end; its output is text, in the result and in the failure."""
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, errors="replace",
                          timeout=timeout, stdin=subprocess.DEVNULL, **kwargs)
    if check and done.returncode:
        raise RigError(f"{' '.join(str(arg) for arg in argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def tail(path, lines=20):
    """The last lines of a file, for a failure's text."""
    try:
        return "".join(Path(path).read_text(errors="replace").splitlines(keepends=True)[-lines:])
    except OSError as err:
        return f"({err})"


class Process:
    """One program that may be started, stopped, killed and started again; its output is appended to LOG.

    `user` is a (uid, gid) to run as; `env` is added to this process's environment, where None takes a name out.
    """

    def __init__(self, name, argv, log_dir, env=None, user=None, cwd=None):
        self.name = name
        self.argv = [str(arg) for arg in argv]
        self.log = Path(log_dir) / f"{name}.log"
        self.env = dict(env or {})
        self.user = user
        self.cwd = cwd
        self.child = None

    @property
    def pid(self):
        if not self.running:
            raise RigError(f"{self.name} is not running\n{tail(self.log)}")
        return self.child.pid

    @property
    def running(self):
        return self.child is not None and self.child.poll() is None

    def start(self):
        if self.running:
            raise RigError(f"{self.name} is running already")
        identity = {}
        if self.user:
            identity = {"user": self.user[0], "group": self.user[1], "extra_groups": []}
        env = {name: value for name, value in {**os.environ, **self.env}.items() if value is not None}
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                                          cwd=self.cwd, start_new_session=True, **identity)
        return self

    def wait_ready(self, what, question, timeout=30.0):
        """Wait until it answers; give up at once when it has ended."""

        def ask():
            if not self.running:
                raise RuntimeError
            return question()

        try:
            return wait_for(f"{what} from {self.name}", ask, timeout)
        except RuntimeError:
            status = self.child.returncode if self.child else None
            raise RigError(f"{self.name} ended with status {status} before its {what}\n{tail(self.log)}") from None
        except RigError as err:
            raise RigError(f"{err}\n{tail(self.log)}") from None

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self, timeout=10.0):
        """Its exit status; negative is the signal that ended it."""
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RigError(f"{self.name} did not end within {timeout:g} s\n{tail(self.log)}") from None

    def stop(self, timeout=10.0):
        """SIGTERM, then its exit status. One that does not end is killed, and that is a failure."""
        if not self.running:
            return self.child.returncode if self.child else None
        self.child.terminate()
        try:
            return self.wait(timeout)
        except RigError:
            self.kill()
            raise

    def kill(self):
        """SIGKILL, and gone when this returns."""
        if self.running:
            self.child.send_signal(signal.SIGKILL)
        if self.child:
            self.child.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()

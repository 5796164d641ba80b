# SPDX-License-Identifier: Apache-2.0
"""What systemd hears from a service: a socket for $NOTIFY_SOCKET that keeps every message."""

import os
import socket
import threading
import time
from pathlib import Path

from .process import wait_for


class Notify:
    """`messages` is a list of (monotonic seconds, {key: value}), as READY=1, STATUS=…, WATCHDOG=1 arrive."""

    def __init__(self, directory, name="notify"):
        self.path = Path(directory) / name
        self.path.unlink(missing_ok=True)
        self.messages = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        os.chmod(self.path, 0o777)
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def env(self):
        return {"NOTIFY_SOCKET": str(self.path)}

    def _listen(self):
        while True:
            try:
                data = self.socket.recv(65536)
            except OSError:
                return
            pairs = dict(line.partition("=")[::2] for line in data.decode("utf-8", "replace").splitlines())
            self.messages.append((time.monotonic(), pairs))

    def heard(self, key, value=None):
        """How many messages said KEY (=VALUE)."""
        return sum(1 for _, pairs in self.messages if key in pairs and value in (None, pairs[key]))

    def last(self, key):
        return next((pairs[key] for _, pairs in reversed(self.messages) if key in pairs), None)

    def wait(self, key, value=None, timeout=15.0):
        wait_for(f"notification {key}={value or '…'}", lambda: self.heard(key, value), timeout)

    def close(self):
        self.socket.close()
        self.path.unlink(missing_ok=True)

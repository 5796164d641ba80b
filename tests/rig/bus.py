# SPDX-License-Identifier: Apache-2.0
"""A message bus like the system's, with nobody else on it."""

import os
import socket
from pathlib import Path
from xml.sax.saxutils import escape

from .process import Process

# Every user may own and call everything: who may change what is the daemons' own decision, and theirs to prove.
# A test of the shipped policies gives them as `policies`.
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    {own}
    <allow send_type="method_return"/>
    <allow send_type="error"/>
    <allow send_type="signal"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  {includes}
</busconfig>
"""
OPEN = '<allow own="*"/><allow send_destination="*"/>'


class Bus(Process):
    def __init__(self, directory, policies=()):
        self.dir = Path(directory)
        self.socket = self.dir / "bus"
        self.config = self.dir / "bus.conf"
        includes = "\n  ".join(f"<include>{escape(str(path))}</include>" for path in policies)
        self.config.write_text(CONFIG.format(path=escape(str(self.socket)), includes=includes,
                                             own="" if policies else OPEN))
        super().__init__("dbus-daemon", ["dbus-daemon", f"--config-file={self.config}", "--nofork", "--nopidfile"],
                         self.dir)

    @property
    def address(self):
        return f"unix:path={self.socket}"

    def start(self):
        self.socket.unlink(missing_ok=True)
        super().start()
        self.wait_ready("socket", self._accepts)
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = self.address
        return self

    def _accepts(self):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.socket))
        return True

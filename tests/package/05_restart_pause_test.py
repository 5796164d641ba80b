# SPDX-License-Identifier: Apache-2.0
"""units/restart-pause: how long it waits before which restart. tests/instance has it on a machine."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "units/restart-pause"
SECOND = 1_000_000


class Unit:
    """systemctl and sleep that say what they are told, and write down what they are asked."""

    def __init__(self, directory):
        self.dir = directory
        for name, text in {"systemctl": 'cat "$FAKE/shown"', "sleep": 'echo "$1" >"$FAKE/slept"'}.items():
            path = directory / name
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def start(self, restarts, ran=5 * SECOND):
        """Seconds it slept before this start; RAN is how long the run before lasted."""
        slept = self.dir / "slept"
        slept.unlink(missing_ok=True)
        (self.dir / "shown").write_text(f"ExecMainStartTimestampMonotonic={7 * SECOND}\nNRestarts={restarts}\n"
                                        f"ExecMainExitTimestampMonotonic={7 * SECOND + ran}\n")
        env = {"PATH": f"{self.dir}:{os.environ['PATH']}", "FAKE": str(self.dir), "RUNTIME_DIRECTORY": str(self.dir)}
        done = subprocess.run(["sh", SCRIPT, "agentd.service"], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return int(slept.read_text()) if slept.exists() else 0


@pytest.fixture
def unit(tmp_path):
    return Unit(tmp_path)


def test_the_pause_doubles_from_the_fourth_restart_on_and_has_an_end(unit):
    assert [unit.start(n) for n in range(12)] == [0, 0, 0, 0, 2, 4, 8, 16, 30, 30, 30, 30]


def test_a_run_that_lasted_is_a_new_beginning(unit):
    for n in range(7):
        unit.start(n)
    assert unit.start(7, ran=600 * SECOND) == 0
    assert [unit.start(n) for n in range(8, 13)] == [0, 0, 0, 2, 4]


def test_a_start_by_hand_comes_at_once(unit):
    for n in range(9):
        unit.start(n)
    assert [unit.start(n) for n in (0, 1, 2, 3, 4)] == [0, 0, 0, 0, 2]


def test_without_an_answer_of_systemd_it_does_not_wait(unit):
    (unit.dir / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    assert unit.start(9) == 0

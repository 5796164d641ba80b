# SPDX-License-Identifier: Apache-2.0
"""An hour of a program in half a minute: its clocks and its waits agree."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from soak.pace import Pace  # noqa: E402

FACTOR = 72
# What sd-event does: an absolute instant of CLOCK_BOOTTIME, and epoll until then.
TIMER = r"""
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
int main(void)
{
    struct itimerspec at = {0};
    struct epoll_event event = {.events = EPOLLIN};
    int fd = timerfd_create(CLOCK_BOOTTIME, 0), all = epoll_create1(0);
    struct timespec begun, now;

    clock_gettime(CLOCK_BOOTTIME, &begun);
    at.it_value = begun;
    at.it_value.tv_sec += 36;
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL);
    epoll_ctl(all, EPOLL_CTL_ADD, fd, &event);
    int n = epoll_wait(all, &event, 1, 3600 * 1000);
    clock_gettime(CLOCK_BOOTTIME, &now);
    printf("%d %f\n", n, (double)(now.tv_sec - begun.tv_sec) + (double)(now.tv_nsec - begun.tv_nsec) / 1e9);
}
"""
WAITS = """
import json, select, threading, time
def took(wait):
    begun = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    wait()
    return [time.time() - begun[0], time.monotonic() - begun[1], time.clock_gettime(time.CLOCK_BOOTTIME) - begun[2]]
print(json.dumps([time.time(), *(took(wait) for wait in (
    lambda: time.sleep(36), lambda: threading.Event().wait(36), lambda: select.epoll().poll(36),
    lambda: select.poll().poll(36000), lambda: threading.Condition(threading.Lock()).__enter__()))]))
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("pace")


def paced(pace, *argv):
    begun = time.monotonic()
    done = subprocess.run(argv, env={**os.environ, **pace.env}, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, time.monotonic() - begun


def test_waits_are_as_long_as_the_clocks_say_and_take_a_part_of_it(scratch):
    pace = Pace(scratch, FACTOR, wall=1_800_000_000)
    out, real = paced(pace, "/usr/bin/python3", "-c", WAITS)
    wall, *waits, nothing = json.loads(out)
    assert 1_800_000_000 <= wall <= pace.now()
    for clocks in waits:
        assert all(clock >= 36 for clock in clocks)
        assert max(clocks) - min(clocks) < 1
    assert max(nothing) < 36
    assert real < 4 * 36


def test_an_absolute_timer_of_boottime_fires_at_its_time(scratch):
    (scratch / "timer.c").write_text(TIMER)
    subprocess.run(["cc", "-o", scratch / "timer", scratch / "timer.c"], check=True)
    out, real = paced(Pace(scratch, FACTOR), scratch / "timer")
    fired, told = out.split()
    assert fired == "1" and 36 <= float(told) < 3600
    assert real < 36


def test_a_program_without_the_words_says_so(scratch):
    pace = Pace(scratch, FACTOR)
    done = subprocess.run(["true"], env={**os.environ, **pace.env, "MERVIS_PACE": "72"}, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1 and "MERVIS_PACE" in done.stderr

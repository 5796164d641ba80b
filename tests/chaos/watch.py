# SPDX-License-Identifier: Apache-2.0
"""What somebody outside sees all the time: whether the page is there, and what the machine says of itself."""

import threading
import time


class Watch(threading.Thread):
    """Samples until it is told to stop; a sample is (seconds since the begin, value)."""

    def __init__(self, question, every):
        super().__init__(daemon=True)
        self.question, self.every = question, every
        self.begun = time.monotonic()
        self.samples = []
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            at = time.monotonic() - self.begun
            value = self.question()
            # An answer that took long is one of the time when it came.
            if not value:
                at = time.monotonic() - self.begun
            self.samples.append((round(at, 3), value))
            self.over.wait(self.every)

    def stop(self):
        self.over.set()
        self.join(10)
        return self.samples


def availability(samples, begin, window):
    """(the share of the window's time in which the answer was true, all seconds since its begin in which it was not).
    The window is of the scenario, not of how long one happened to look; the seconds do not end with it."""
    good = total = away = 0.0
    for (at, value), (end, _) in zip(samples, samples[1:]):
        at = max(at, begin)
        away += 0 if value else max(0.0, end - at)
        length = max(0.0, min(end, begin + window) - at)
        total += length
        good += length if value else 0
    return (good / total if total else 1.0), away


def strips(samples, end):
    """[(from, to, value)]: samples of the same value joined, for drawing."""
    out = []
    for (at, value), following in zip(samples, [at for at, _ in samples[1:]] + [end]):
        if out and out[-1][2] == value:
            out[-1] = (out[-1][0], following, value)
        else:
            out.append((at, following, value))
    return out

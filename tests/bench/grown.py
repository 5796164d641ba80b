# SPDX-License-Identifier: Apache-2.0
"""What one more costs when there are many already: measured totals, and the verdict whether the cost of one stays flat.

The line a + b * n goes through all sizes but the first one, where a start's own cost is, and the last one, which is to
be judged: it would draw the line to itself, so that even the square of n passed. Flat means that the last step's units
cost 25 % more than b at most.
"""

from .line import fit

FLAT = 1.25


class Grown:
    """One dimension. NOISE is a cost of one unit that is too small to be told from nothing, or to matter: a share below
    it counts as that, so that a measured nothing (or less) allows the next step that much, and not anything."""

    def __init__(self, what, unit, noise):
        self.what, self.unit, self.noise = what, unit, noise
        self.points = []

    def add(self, size, cost):
        self.points.append((size, cost))

    def line(self):
        """b, of what came before the last step."""
        inner = self.points[1:-1] if len(self.points) > 3 else self.points[:-1]
        return fit(inner)[1]

    def last(self):
        (size, cost), (more, dearer) = self.points[-2:]
        return (dearer - cost) / (more - size)

    def judge(self, report):
        before, last = self.line(), self.last()
        sizes = [f"{size:,}" for size, _ in self.points[-2:]]
        report.measured[self.what] = {f"{size:,}": round(cost, 4) for size, cost in self.points}
        report.aim(f"{self.what}, {sizes[0]}-{sizes[1]}", max(last, self.noise) / max(before, self.noise), FLAT,
                   f"{before:.3g} -> {last:.3g} {self.unit}")

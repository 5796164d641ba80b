# SPDX-License-Identifier: Apache-2.0
"""The straight line through measured points: what one more costs, whatever the start cost."""


def fit(points):
    """(a, b) of the least-squares line a + b * x through [(x, y), …]; two different x at least."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise ValueError(f"no line goes through {count} points at one place")
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return mean_y - slope * mean_x, slope

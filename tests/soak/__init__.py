# SPDX-License-Identifier: Apache-2.0
"""A day of the daemons in minutes, and what may not grow in it."""

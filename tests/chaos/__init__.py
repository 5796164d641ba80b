# SPDX-License-Identifier: Apache-2.0
"""Faults, and what the machine makes of them."""

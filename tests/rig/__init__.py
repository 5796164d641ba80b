# SPDX-License-Identifier: Apache-2.0
"""Real servers and real daemons for the demo, the integration tests and the chaos tests.

Everything here expects to run inside `tests/rig/enter`: ports are fixed because the network is private, and nothing is
cleaned up that ends with the machine anyway.
"""

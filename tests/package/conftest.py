# SPDX-License-Identifier: Apache-2.0
"""Tests of what is installed and deployed: cloud-init, Terraform, Packer, dashboards, the Debian package.

    MERVIS_BUILD=BUILD-DIRECTORY /usr/bin/python3 -m pytest tests/package --ignore tests/package/10_package_test.py
    tests/rig/enter -- /usr/bin/python3 -m pytest tests/package/10_package_test.py

The second needs MERVIS_ROOT_TAR (tests/instance/make-root), and builds the package unless MERVIS_DEB names one.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

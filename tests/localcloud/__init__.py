# SPDX-License-Identifier: Apache-2.0
"""A local double of the Google Cloud services and market hosts that mervis-agent speaks to."""

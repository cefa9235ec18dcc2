# SPDX-License-Identifier: Apache-2.0
"""Domain 0's HTTP API, version 1."""

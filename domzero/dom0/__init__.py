# SPDX-License-Identifier: Apache-2.0
"""Domain 0: xenstore, backends, lifecycle, HTTP API."""

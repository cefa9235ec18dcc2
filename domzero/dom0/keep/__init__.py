# SPDX-License-Identifier: Apache-2.0
"""Domains that outlive their Domain 0 (`domzero serve --keep-domains`): see docs/internals/keep.md."""

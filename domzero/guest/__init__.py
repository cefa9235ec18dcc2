# SPDX-License-Identifier: Apache-2.0
"""The front door for programs: a guest as an object. `domzero` gives its names (docs/guide/python.md)."""

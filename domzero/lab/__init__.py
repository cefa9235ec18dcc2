# SPDX-License-Identifier: Apache-2.0
"""The architecture made visible: the same instructions, page-table updates, system calls and page faults on a bare
processor and as a PV guest, really run on this engine and shown step by step. See docs/guide/lab.md."""

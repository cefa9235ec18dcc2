# SPDX-License-Identifier: Apache-2.0
"""Domain building: ELF, bzImage, Xen notes, initial layout."""

"""Domain building: ELF, bzImage, Xen notes, initial layout."""

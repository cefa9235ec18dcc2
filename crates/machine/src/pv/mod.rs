//! PV trap mechanics, the same for every engine: bounce frames, iret, syscall, page-table hypercalls.

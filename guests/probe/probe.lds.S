/* SPDX-License-Identifier: Apache-2.0 */
ENTRY(_start)
PHDRS { all PT_LOAD FLAGS(7); note PT_NOTE FLAGS(4); }
SECTIONS
{
#ifdef __x86_64__
    . = 0xffffffff80100000;
#else
    . = 0xc0100000;
#endif
    .text : { *(.text.start) *(.text) . = ALIGN(4096); snippets_start = .; *(.text.snippets) snippets_end = .; . = ALIGN(4096); } :all
    .rodata : { *(.rodata*) } :all
    .note : { KEEP(*(.note.Xen)) } :all :note
    .data : { *(.data*) } :all
    .bss : { *(.bss*) *(COMMON) } :all
    /DISCARD/ : { *(.note.gnu*) *(.eh_frame*) *(.comment) }
}

/* SPDX-License-Identifier: Apache-2.0 */
ENTRY(_start)
#ifdef __x86_64__
#define BASE 0xffffffff80000000
#else
#define BASE 0xc0000000
#endif
PHDRS { all PT_LOAD FLAGS(7); note PT_NOTE FLAGS(4); }
SECTIONS
{
    . = BASE + 0x100000;
    image_start = .;
    .text : AT(ADDR(.text) - BASE) { *(.text.start) *(.text*) } :all
    .rodata : AT(ADDR(.rodata) - BASE) { *(.rodata*) } :all
    .note : AT(ADDR(.note) - BASE) { KEEP(*(.note.Xen)) } :all :note
    .data : AT(ADDR(.data) - BASE) { . = ALIGN(4096); *(.data*) } :all
    .bss : AT(ADDR(.bss) - BASE) { *(.bss*) *(COMMON) . = ALIGN(4096); } :all
    image_end = .;
    boot_stack_top = stacks + 16384;
    /DISCARD/ : { *(.note.gnu*) *(.note.GNU*) *(.eh_frame*) *(.comment) }
}

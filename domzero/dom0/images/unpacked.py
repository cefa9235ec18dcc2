# SPDX-License-Identifier: Apache-2.0
"""Kernels unpacked beside those of the packages, in the disks that are built.

GRUB's PV kernel cannot read kernels in zstd or lz4, as Debian 13's and its cloud kernels are, and takes long over those
in xz: for Debian 12's, it was 15 seconds of a start's 47. A new system has a hook that unpacks each kernel when its
package is installed, and deletes it with that (deb-kernel-hooks: /etc/kernel/postinst.d, postrm.d).
"""

from __future__ import annotations

DIRECTORY = "boot/xen"
"""In it: `vmlinuz` and `vmlinuz.old`, which are what Debian's links of these names in / are on, unpacked."""
HOOK = "etc/kernel/postinst.d/zz-domzero"
"""Behind Debian's own, which make the initramfs."""
HOOK_AT_REMOVAL = "etc/kernel/postrm.d/zz-domzero"

README = f"""\
Kernels of this system, unpacked, for GRUB's PV kernel. /{HOOK} keeps them; none is edited here.
"""
HOOK_SCRIPT = f"""\
#!/bin/sh
# Keeps the kernels that /vmlinuz and /vmlinuz.old are on unpacked in /{DIRECTORY}, where GRUB's PV kernel reads them.
# One that cannot be unpacked is there as it is. A kernel's package never fails because of this.
set -u
umask 022

# number FILE OFFSET BYTES: a field of the header that Linux' Documentation/arch/x86/boot.rst describes
number() {{
    od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '
}}

# payload FILE BYTES: what is packed in a kernel, from its first byte
payload() {{
    tail -c "+$(( ($(number "$1" 497 1) + 1) * 512 + $(number "$1" 584 4) + 1))" "$1" | head -c "$2"
}}

# unpack FILE: the kernel as an ELF file; behind what is packed stand 4 bytes that are no part of it, but in gzip's case
unpack() {{
    length=$(number "$1" 588 4)
    case $(payload "$1" 4 | od -An -t x1 | tr -d ' ') in
    28b52ffd) payload "$1" $((length - 4)) | zstd -dcq ;;
    02214c18) payload "$1" $((length - 4)) | lz4 -dcq ;;
    fd377a58) payload "$1" $((length - 4)) | xz -dc ;;
    1f8b*) payload "$1" "$length" | gzip -dc ;;
    *) return 1 ;;
    esac
}}

cd /{DIRECTORY} || exit 0
for link in vmlinuz vmlinuz.old; do
    if ! kernel=$(readlink -e "/$link"); then
        rm -f "$link"
        continue
    fi
    name=${{kernel##*/}}
    if [ ! "$name" -nt "$kernel" ]; then
        # zeros become holes: a third of it is what its variables begin as
        if unpack "$kernel" 2>/dev/null | dd of=.new bs=4096 iflag=fullblock conv=sparse status=none &&
            [ "$(head -c 4 .new | od -An -t x1 | tr -d ' ')" = 7f454c46 ]; then
            mv .new "$name"
        else
            echo "domzero: $kernel is not unpacked; GRUB's PV kernel has to" >&2
            rm -f .new
            ln -sfn "../$name" "$name"
        fi
    fi
    ln -sfn "$name" "$link"
done
for name in vmlinuz-*; do
    [ -e "../$name" ] || rm -f "$name"
done
exit 0
"""

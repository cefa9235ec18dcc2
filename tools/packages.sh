#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that the tests and `make run` use, where it may; otherwise names what is missing.
set -u
declare -A need=([cpio]=/usr/bin/cpio [libxen-dev]=/usr/include/xen/xen.h [gcc]=/usr/bin/gcc [libc6-dev]=/usr/include/stdio.h
  [mmdebstrap]=/usr/bin/mmdebstrap [e2fsprogs]=/sbin/mke2fs [fdisk]=/sbin/sfdisk [qemu-utils]=/usr/bin/qemu-img
  [chromium]=/usr/bin/chromium [passt]=/usr/bin/passt [tcpdump]=/usr/bin/tcpdump
  [uidmap]=/usr/bin/newuidmap [xenstore-utils]=/usr/bin/xenstore-ls [openssl]=/usr/bin/openssl
  [qemu-system-x86]=/usr/bin/qemu-system-x86_64 [ovmf]=/usr/share/OVMF/OVMF_CODE_4M.fd [ipxe]=/usr/lib/ipxe/ipxe.iso
  [memtest86+]='/usr/lib/memtest86+/memtest86+x64.iso' [grub-pc-bin]=/usr/lib/grub/i386-pc/boot.img
  [grub-common]=/usr/bin/grub-mkrescue [xorriso]=/usr/bin/xorriso [mtools]=/usr/bin/mcopy [xva-img]=/usr/bin/xva-img)
find_missing() {
  missing=()
  for package in "${!need[@]}"; do
    [ -e "${need[$package]}" ] || missing+=("$package")
  done
}
find_missing
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "note: tests that need ${missing[*]} will be skipped (no apt-get here)" >&2
  exit 0
fi
if [ "$(id -u)" -eq 0 ]; then sudo=(); elif sudo -n true 2>/dev/null; then sudo=(sudo -n); else
  echo "note: tests that need ${missing[*]} will be skipped: run 'sudo apt-get install ${missing[*]}'" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# Twice: apt removes a qemu-utils of another release (backports) when it installs qemu-system-x86.
for _ in 1 2; do
  echo "installing ${missing[*]}" >&2
  if ! "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
    "${sudo[@]}" apt-get update -qq >/dev/null 2>&1
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
  find_missing
  [ ${#missing[@]} -eq 0 ] && exit 0
done
echo "note: could not install ${missing[*]}; the tests that need them will be skipped" >&2
exit 0

#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Puts promtool out of Debian's package prometheus (19 MB) at $1, for the test of /metrics. The package is not installed:
# it would start a server. Where that cannot be, the test is skipped and says why.
set -u
program=$1
if found=$(command -v promtool); then ln -sf "$found" "$program"; exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 0
fetch() { apt-get download -qq prometheus >/dev/null 2>&1; }
if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
  echo "fetching promtool" >&2
  fetch || { [ "$(id -u)" -eq 0 ] && apt-get update -qq >/dev/null 2>&1 && fetch; } || true
  for package in prometheus_*.deb; do
    [ -e "$package" ] && dpkg-deb --fsys-tarfile "$package" | tar -x --strip-components=3 ./usr/bin/promtool 2>/dev/null
  done
fi
if [ -x promtool ]; then mv promtool "$program"; else echo "note: no promtool; the test that needs it will be skipped" >&2; fi
exit 0

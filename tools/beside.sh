#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# beside.sh 'COMMAND' COMMAND...: runs the first command beside the second one; its output comes when it ends. Fails if
# either does. The tests of Rust and of Python wait often enough (for a compiler's last file, for guests) to be soonest
# done together.
set -u
log=$(mktemp)
{ bash -c "exec $1" >"$log" 2>&1; status=$?; cat "$log"; exit $status; } &
other=$!
trap 'kill $(jobs -p) 2>/dev/null; rm -f "$log"' EXIT
shift
"$@"
status=$?
wait $other || exit
exit $status

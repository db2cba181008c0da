#!/bin/busybox sh
# shellcheck shell=dash
# kselftest PROGRAM...: run each, between lines that say which and how it ended; then look for leaks.
for program in "$@"; do
	echo "PROGRAM $program"
	"./$program"
	echo "EXIT $program $?"
done
# shellcheck source=harness/guest/leaks.sh
. ./leaks.sh
exit 0

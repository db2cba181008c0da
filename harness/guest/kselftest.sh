#!/bin/busybox sh
# shellcheck shell=dash
# kselftest PROGRAM...: run each, between lines that say which and how it ended; then look for leaks, where the kernel can.
for program in "$@"; do
	echo "PROGRAM $program"
	"./$program"
	echo "EXIT $program $?"
done
if [ -e /sys/kernel/debug/kmemleak ]; then
	# An object counts as leaked when it is older than 5 s. What the first scan finds is logged, for the splat scan.
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	cat /sys/kernel/debug/kmemleak
fi
exit 0

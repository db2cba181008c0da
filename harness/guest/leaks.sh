# shellcheck shell=dash
# Look for leaks, where the kernel can; sourced at the end of a script
if [ -e /sys/kernel/debug/kmemleak ]; then
	# An object counts as leaked when it is older than 5 s. What the first scan finds is logged, for the splat scan.
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	cat /sys/kernel/debug/kmemleak
fi

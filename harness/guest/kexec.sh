#!/bin/busybox sh
# shellcheck shell=dash
# kexec jump | crash: start bzImage with initrd.gz, which lie here, when unmapped_alloc has pages everywhere: at once, or by a panic.
# They run this script again, with what is to be done then: after CACHED or vmcore. Prints rows as stress.sh does.
row() { echo "row $1|$2|$3|$4"; }
vmstat() { echo 1 >/proc/sys/vm/stat_refresh; sed -n "s/^$1 //p" /proc/vmstat; }
# shellcheck source=harness/guest/time.sh
. ./time.sh
# What the next kernel gets, but for its script
append=$(sed 's/ *harness\.run=[^ ]*//; s/ *crashkernel=[^ ]*//' /proc/cmdline)

# start WORD...: a program that keeps something, and says when it is ready
start() {
	: >"/tmp/$2.held"
	"$@" >"/tmp/$2.held" &
	started=$!
	within 60 grep -q ready "/tmp/$2.held"
}

jump() {
	what="kexec with blocks in the cache and pages in use"
	if ! { insmod absent.ko && echo 3000 >/sys/module/absent/parameters/pages && insmod vsock.ko && start power bpf &&
		start stress hold 64 && kill -USR1 "$started" && wait "$started" && start stress hold 64; }; then
		row failed "$what" 1 "those who use pages did not start"
	elif ! power load bzImage initrd.gz "$append harness.run=kexec,after,$(vmstat nr_direct_unmapped_used)"; then
		row failed "$what" 1 "the kernel cannot be loaded"
	else
		power jump
		row failed "$what" 1 "came back"
	fi
}

after() {
	what="kexec with $1 pages in use: secret memory in the next kernel"
	start stress hold 64
	blocks=$(vmstat direct_unmapped_refill)
	if kill -USR1 "$started" && wait "$started" && [ "$blocks" -ge 32 ]; then
		row ok "$what" 1 "64 MiB, contents kept; $blocks blocks taken"
	else
		row failed "$what" 1 "contents lost, or no blocks taken: $blocks"
	fi
}

# shellcheck disable=SC2317 # called through within
settled() { [ "$(vmstat nr_direct_unmapped_used)" -le "$1" ]; }

crash() {
	what="panic, with a crash kernel loaded"
	used=$(vmstat nr_direct_unmapped_used)
	if ! power load-crash bzImage initrd.gz "$append nr_cpus=1 harness.run=kexec,vmcore"; then
		row failed "$what" 1 "the crash kernel cannot be loaded"
	elif ! start power marked || ! within 20 settled $((used + 4096)); then
		row failed "$what" 1 "no pages were marked, or those that were freed are in use"
	else
		echo c >/proc/sysrq-trigger
		row failed "$what" 1 "came back"
	fi
}

found() { sed -n "s/^$1 \([0-9]*\).*/\1/p" /tmp/found; }

vmcore() {
	what="read /proc/vmcore in a crash kernel"
	if ! why=$(power vmcore 2>&1 >/tmp/found); then
		row failed "$what" 1 "$why"
		return
	fi
	cat /tmp/found
	# Those of the plain memory show that the search would find them
	[ "$(found plain-used)" = 4096 ] && [ "$(found plain-freed)" -gt 0 ] && verdict=ok || verdict=failed
	row "$verdict" "$what" 1 "$(found MiB) MiB; of 4096 marked pages each, $(found plain-used) in use, $(found plain-freed) freed ones are found"
	[ "$(found secret-used)" = 4096 ] && verdict=ok || verdict=failed
	row "$verdict" "$what: secret memory that was in use" 1 "$(found secret-used) of 4096 pages are found: a crash kernel sees them"
	[ "$(found secret-freed)" = 0 ] && verdict=ok || verdict=failed
	row "$verdict" "$what: secret memory that had been freed" 1 "$(found secret-freed) of 4096 pages are found"
}

case $1 in
jump) jump ;;
after) after "$2" ;;
crash) crash ;;
vmcore) vmcore ;;
*) row failed "$1" 0 "no such part" ;;
esac
exit 0

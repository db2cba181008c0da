#!/bin/busybox sh
# shellcheck shell=dash disable=SC2317 # functions are called by names from a list, or through within
# soak SECONDS: all that takes memory out of the direct map, and all that wants memory, at the same time: users of secret memory,
# modules, BPF programs, vmalloc, buffers that are made write-combining, CPUs that go and come, hogs, caches that are dropped,
# and stress-ng. Then all stop, and everything must be as it was at first. Prints rows, for harness/stress.
seconds=$1
wc=/sys/module/heal_pages/parameters/wc

row() { echo "row $1|$2|$3|$4"; }
step() { echo "step $*"; }
vmstat() { echo 1 >/proc/sys/vm/stat_refresh; sed -n "s/^$1 //p" /proc/vmstat; }
meminfo() { sed -n "s/^$1: *\([0-9]*\).*/\1/p" /proc/meminfo; }
map() { grep DirectMap /proc/meminfo | tr -s ' \n' ' '; }
# shellcheck source=harness/guest/time.sh
. ./time.sh

# Each of those below leaves how often it did its work in /tmp/soak.NAME, and ends when the time is over
over() { [ "$(uptime)" -ge "$end" ]; }
count() { echo "$2" >"/tmp/soak.$1"; }

modules() {
	n=0
	until over; do
		for module in vsock mbcache crc16 jbd2 ext4 dummy veth test_module; do
			[ ! -e "$module.ko" ] || insmod "./$module.ko" || echo "$module does not load" >>/tmp/soak.wrong
		done
		for module in test_module veth dummy ext4 jbd2 crc16 mbcache vsock; do
			[ ! -e "$module.ko" ] || rmmod "$module" || echo "$module does not unload" >>/tmp/soak.wrong
		done
		n=$((n + 1))
		count modules "$n"
	done
}

# Its load fails by design when all is done; insmod then tries once more
vmalloc() {
	n=0
	until over; do
		insmod ./test_vmalloc.ko sequential_test_order=1 test_loop_count=5 run_test_mask=15 2>/dev/null
		n=$((n + 1))
		count vmalloc "$n"
		sleep 1
	done
}

write_combining() {
	n=0
	until over; do
		echo 1 2>/dev/null >"$wc" && n=$((n + 1))
		count write_combining "$n"
		sleep 1
		echo 0 >"$wc" || echo "buffers cannot be made write-back" >>/tmp/soak.wrong
		sleep 1
	done
}

cpus() {
	n=0
	until over; do
		for cpu in /sys/devices/system/cpu/cpu[1-9]*; do
			echo 0 2>/dev/null >"$cpu/online" && n=$((n + 1))
			echo 1 2>/dev/null >"$cpu/online"
			count cpus "$n"
			over && break
		done
		sleep 1
	done
	for cpu in /sys/devices/system/cpu/cpu[1-9]*; do
		[ ! -e "$cpu" ] || echo 1 2>/dev/null >"$cpu/online"
	done
}

# Half of what is available
hogs() {
	n=0
	until over; do
		stress anonymous $(($(meminfo MemAvailable) / 2048)) || echo "a hog finds other contents, or was killed" >>/tmp/soak.wrong
		n=$((n + 1))
		count hogs "$n"
	done
}

caches() {
	n=0
	until over; do
		echo $((1 + n % 3)) >/proc/sys/vm/drop_caches
		echo 1 >/proc/sys/vm/compact_memory
		n=$((n + 1))
		count caches "$n"
		sleep 1
	done
}

# Pages that are not present in the direct map, in KiB, up to the end of memory
absent() { stress absent; }

# What makes a difference the first time only: a program and a module, which leave BPF and execmem an empty block
users bpf 1 >/dev/null
insmod ./heal_pages.ko || row failed "a module that has pages made write-combining" 1 "it does not load"
echo 1 >"$wc"
echo 0 >"$wc"
rmmod heal_pages
echo 3 >/proc/sys/vm/drop_caches
calm() {
	echo 3 >/proc/sys/vm/drop_caches
	sleep 1
	[ "$(vmstat nr_direct_unmapped_free)" = 0 ] && [ "$(map)" = "${map_before:-$(map)}" ]
}
sleep 3
calm
map_before=$(map) used_before=$(vmstat nr_direct_unmapped_used) free_before=$(meminfo MemFree) absent_before=$(absent)
splits_before=$(($(vmstat direct_map_level2_splits) - $(vmstat direct_map_level2_collapses)))
step "before: $map_before used $used_before, absent $absent_before KiB, $free_before KiB free"

insmod ./heal_pages.ko
end=$(($(uptime) + seconds))
: >/tmp/soak.wrong
stress churn & churn1=$!
stress churn & churn2=$!
others=
for what in modules vmalloc write_combining cpus hogs caches; do
	$what &
	others="$others $!"
done
users bpf "$seconds" >/tmp/soak.bpf 2>&1 &
others="$others $!"
if [ -e stress-ng ]; then
	# Not --verify, which is for memory that nobody else takes
	stress-ng --secretmem 1 --memfd 1 --memfd-bytes 16M --vm 1 --vm-bytes 64M --mmap 1 --mmap-bytes 32M --timeout "$seconds" \
		--metrics-brief --temp-path /tmp >/tmp/soak.stress-ng 2>&1 &
	others="$others $!"
fi
for other in $others; do
	wait "$other" || echo "one of them ended with $?" >>/tmp/soak.wrong
	step "$(($(uptime) - end)) s after the end"
done
good=0
for churn in $churn1 $churn2; do
	kill -USR1 "$churn"
	wait "$churn" && good=$((good + 1))
done
rmmod heal_pages || echo "heal_pages does not unload" >>/tmp/soak.wrong

[ $good = 2 ] && verdict=ok || verdict=failed
row "$verdict" "users of secret memory" 2 "contents kept by $good of 2"
for what in modules vmalloc write_combining cpus hogs caches; do
	n=$(cat /tmp/soak.$what 2>/dev/null)
	# One CPU cannot go
	[ "${n:-0}" -gt 0 ] || [ "$what $(nproc)" = "cpus 1" ] && verdict=ok || verdict=failed
	row "$verdict" "$what meanwhile" "${n:-0}" "rounds"
done
grep -q 'came and went' /tmp/soak.bpf && verdict=ok || verdict=failed
row "$verdict" "BPF meanwhile" 1 "$(tail -n 1 /tmp/soak.bpf)"
if [ -e stress-ng ]; then
	for what in secretmem memfd vm mmap; do
		ops=$(sed -n "s/.*\] $what  *\([0-9]*\) .*/\1/p" /tmp/soak.stress-ng | head -n 1)
		[ "${ops:-0}" -gt 0 ] && verdict=ok || verdict=failed
		row "$verdict" "stress-ng --$what meanwhile" "${ops:-0}" "$(grep -m 1 -iE "(fail|error|skip).*$what|$what.*(fail|error|skip)" /tmp/soak.stress-ng || echo operations)"
	done
fi
[ ! -s /tmp/soak.wrong ] && verdict=ok || verdict=failed
row "$verdict" "all end as they should" 1 "$(wc -l </tmp/soak.wrong) complaints $(head -n 1 /tmp/soak.wrong)"

# Who copies pages that are absent takes them for bad
bad=$(dmesg | grep -c 'Memory failure: 0x')
[ "$bad" = 0 ] && verdict=ok || verdict=failed
row "$verdict" "no memory is taken for bad" 1 "$bad messages"

# What was split again and again is put together after as long as it took at most
calm_start=$(uptime)
within $((seconds + 60)) calm && verdict=ok || verdict=failed
row "$verdict" "the direct map is as at first" 1 "after $(($(uptime) - calm_start)) s: $(map); it was $map_before"
splits=$(($(vmstat direct_map_level2_splits) - $(vmstat direct_map_level2_collapses)))
[ $splits = $splits_before ] && verdict=ok || verdict=failed
row "$verdict" "large pages split, less those put together" "$(vmstat direct_map_level2_splits)" "$splits, $splits_before at first"
used=$(vmstat nr_direct_unmapped_used) cached=$(vmstat nr_direct_unmapped_free)
[ "$used" = "$used_before" ] && [ "$cached" = 0 ] && verdict=ok || verdict=failed
row "$verdict" "counters are as at first" 1 "$used pages used, $used_before at first; $cached cached"
absent=$(absent)
[ "$absent" = "$absent_before" ] && verdict=ok || verdict=failed
row "$verdict" "no page is absent" 1 "$absent KiB of the direct map, $absent_before at first"
free=$(meminfo MemFree)
[ $((free_before - free)) -lt 32768 ] && verdict=ok || verdict=failed
row "$verdict" "memory comes back" 1 "$free KiB free, $free_before at first"
# shellcheck source=harness/guest/leaks.sh
. ./leaks.sh
exit 0

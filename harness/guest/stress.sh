#!/bin/busybox sh
# shellcheck shell=dash
# stress PART: memory that is offlined and unplugged while unmapped_alloc uses it (hotplug), goes bad (poison), allocations
# that fail (faults), users who grab (abuse). Prints "row ok|WHAT|TIMES|RESULT", or "row failed|...", for harness/stress.
memory=/sys/devices/system/memory

row() { echo "row $1|$2|$3|$4"; }
vmstat() { echo 1 >/proc/sys/vm/stat_refresh; sed -n "s/^$1 //p" /proc/vmstat; }
# shellcheck source=harness/guest/time.sh
. ./time.sh

# state N STATE: bring memory block N there; sets took
state() {
	state_start=$(uptime)
	# The kernel tries for ever if nobody refuses, but for a signal
	if timeout 32 sh -c "echo $2 >$memory/memory$1/state" 2>/dev/null; then
		state_code=0
	else
		state_code=1
	fi
	took=$(($(uptime) - state_start))
	[ $took -le $slowest ] || slowest=$took
	return $state_code
}

# hold MIB: start a user of secret memory; sets user, and in /tmp/hold the memory blocks that it has pages in
hold() {
	stress hold "$1" >/tmp/hold &
	user=$!
	within 60 grep -q ready /tmp/hold
}

# intact PID: end a user, who says whether it has found all as it was
intact() {
	kill -USR1 "$1"
	wait "$1"
}

# The blocks that were plugged in, below is what the machine booted with
first=32 nr=8
blocks() { seq $first $((first + nr - 1)); }
# shellcheck disable=SC2317 # called through within
plugged_in() {
	for block in $(blocks); do
		[ -e "$memory/memory$block" ] || return 1
	done
}
# shellcheck disable=SC2317
gone() { [ ! -e "$memory/memory$1" ]; }
held_blocks() { sed -n 's/^block \([0-9]*\) .*/\1/p' /tmp/hold; }

hotplug() {
	slowest=0
	i=0
	while [ $i -lt $nr ]; do
		echo "monitor object_add memory-backend-ram,id=m$i,size=128M"
		echo "monitor device_add pc-dimm,id=d$i,memdev=m$i"
		i=$((i + 1))
	done
	if ! within 60 plugged_in; then
		row failed "plug in memory, 128 MiB each" $nr "it does not appear: $(cd $memory && echo memory*)"
		return
	fi
	online=0
	for block in $(blocks); do
		state "$block" online_kernel && online=$((online + 1))
	done
	[ $online = $nr ] && verdict=ok || verdict=failed
	row "$verdict" "plug in memory, 128 MiB each, bring it online" $nr "$online online"

	echo "step offline memory with pages in use"
	# The cache takes its blocks there: the zone comes first
	tried=0 refused=0 intact=0 there=0
	for i in 1 2 3; do
		hold 160
		for block in $(held_blocks); do
			[ "$block" -ge $first ] || continue
			there=$((there + 1)) tried=$((tried + 1))
			state "$block" offline || refused=$((refused + 1))
			[ $slowest -le 20 ] || break
		done
		intact $user && intact=$((intact + 1))
		[ $slowest -le 20 ] || break
	done
	[ $there -gt 0 ] && [ $tried = $refused ] && [ $intact = 3 ] && [ $slowest -le 20 ] && verdict=ok || verdict=failed
	row "$verdict" "offline memory with pages in use" $tried "$refused refused, after at most $slowest s; contents kept $intact of 3 times"

	echo "step offline memory with cached blocks"
	# At once, when the cache has all of it still. Each block may have something of others which cannot move: then it
	# has to go some other time.
	tried=0 done=0 slowest=0 cached=0
	for i in 1 2 3; do
		hold 160
		held=$(held_blocks)
		intact $user
		cached=$((cached + $(vmstat nr_direct_unmapped_free)))
		for block in $held; do
			[ "$block" -ge $first ] || continue
			tried=$((tried + 1))
			state "$block" offline && done=$((done + 1)) || echo "refused: memory$block"
		done
		for block in $held; do
			[ "$block" -ge $first ] && state "$block" online_kernel
		done
	done
	[ $done -ge $((tried / 2)) ] && [ $done -gt 0 ] && [ $cached -gt 0 ] && [ $slowest -le 20 ] && verdict=ok || verdict=failed
	row "$verdict" "offline memory with cached blocks, online again" $tried "$done went, $cached pages were cached, at most $slowest s each"

	echo "step offline and online while others take and free"
	stress churn &
	churn1=$!
	stress churn &
	churn2=$!
	tried=0 done=0 slowest=0 back=0
	end=$(($(uptime) + 40))
	while [ "$(uptime)" -lt $end ]; do
		for block in $(blocks); do
			[ "$(uptime)" -lt $end ] || break
			tried=$((tried + 1))
			if state "$block" offline; then
				done=$((done + 1))
				state "$block" online_kernel && back=$((back + 1))
			fi
		done
	done
	good=0
	intact $churn1 && good=$((good + 1))
	intact $churn2 && good=$((good + 1))
	[ $done = $back ] && [ $good = 2 ] && [ $slowest -le 30 ] && verdict=ok || verdict=failed
	row "$verdict" "offline and online while two others take and free" $tried \
		"$done went, $back came back, at most $slowest s; contents kept by $good of 2"

	echo "step use all memory"
	# Split and healed, then mapped by PMDs, as it was added; a PUD could not be unmapped in parts
	before=$(vmstat direct_map_level3_collapses)
	hold 400
	intact $user
	sleep 4
	stress anonymous 1500 && verdict=ok || verdict=failed
	row "$verdict" "use all memory" 1 "$(($(vmstat direct_map_level3_collapses) - before)) x 1 GiB collapsed meanwhile"

	# Unplug one from the middle, then what will go
	unplugged=0
	for i in 4 0 1 2 3 5 6 7; do
		echo "monitor device_del d$i"
		within 20 gone $((first + i)) && unplugged=$((unplugged + 1))
		[ $i != 4 ] || stress anonymous 1200 || row failed "use memory with one of 8 unplugged" 1 "its contents changed"
	done
	hold 64
	intact $user && [ $unplugged -gt 0 ] && verdict=ok || verdict=failed
	row "$verdict" "unplug memory, one by one, then use what is left" $nr "$unplugged of $nr went"
}

# quietly COMMAND...: the kernel reports each process that it kills for memory at length. That is kept off the console, where it
# would count as a splat; whatever else it may complain of is looked for here.
quietly() {
	dmesg -n 1
	"$@" || row failed "$1 $2" 1 "ended with $?"
	dmesg -n 7
	# The report has a stack of its own
	complaint=$(dmesg | grep -E 'WARNING:|BUG:|Oops|INFO: (task|possible|rcu)|KASAN:|Bad (page|rss)|list_(add|del) corruption|lockup|stall' | head -n 1)
	if [ -z "$complaint" ]; then
		row ok "the kernel log" "$(dmesg | wc -l)" "$(dmesg | grep -c 'Killed process') processes killed for memory, no complaint"
	else
		row failed "the kernel log" 1 "$complaint"
	fi
}

case $1 in
hotplug) hotplug ;;
faults)
	# It splits the direct map, and fills memory so that no block is free
	insmod ./heal_pages.ko || row failed "heal_pages" 1 "it does not load"
	stress faults || row failed faults 1 "ended with $?"
	rmmod heal_pages
	;;
brief)
	# Some of all that, for make test
	export STRESS_BRIEF=1
	shift
	for part in "$@"; do
		quietly stress "$part"
	done
	;;
poison | abuse | access) stress "$1" || row failed "$1" 1 "ended with $?" ;;
secrets | pressure) quietly stress "$1" ;;
*) row failed "$1" 0 "no such part" ;;
esac
exit 0

#!/bin/busybox sh
# shellcheck shell=dash
# heal map SECONDS | heal latency PERCENT: split the direct map in all ways and see what is left of it when all is over; or
# take the time of requests on memory that has no free block of 2 MiB and is movable to that share. Prints lines
#	ok NAME, not ok NAME: WHY
#	map WHEN KEY VALUE			the direct map and its events; PERCENT is added to WHEN for latency
#	settled SECONDS				how long it changed after the end
#	state CASE FREE MOVABLE BLOCKS CACHED	MiB free, MiB movable, free blocks of 2 MiB, unmapped pages at hand
#	request CASE ...			what the module says of the requests
#	event CASE KEY NUMBER			what they made the kernel count
#	step NAME				how far it is
# where CASE is PERCENT KIND ORDER.
what=$1 arg=$2
module=/sys/module/heal_pages/parameters

step() { echo "step $*"; }
ok() { echo "ok $*"; }
not_ok() { echo "not ok $1: $2"; }

# shellcheck source=harness/guest/time.sh
. ./time.sh

figures() {
	echo 1 >/proc/sys/vm/stat_refresh
	sed -n 's/^\(DirectMap[^:]*\): *\([0-9]*\).*/\1 \2/p' /proc/meminfo
	grep -E '^(direct_|nr_direct_)' /proc/vmstat
}

map() { figures | sed "s/^/map $1 /"; }

# settle SECONDS: wait until nothing has changed for so long, 150 s at most; sets settled to how long it changed
settle() {
	settle_start=$(uptime) settled=0 was=
	while [ $(($(uptime) - settle_start - settled)) -lt "$1" ] && [ $(($(uptime) - settle_start)) -lt 150 ]; do
		now=$(figures)
		if [ "$now" != "$was" ]; then
			was=$now settled=$(($(uptime) - settle_start))
		fi
		sleep 0.5
	done
}

# start NAME ARG...: run the program heal with these arguments, in the background
start() {
	start_name=$1
	shift
	: >"/tmp/$start_name"	# ready() may look before the program runs
	./heal "$@" >"/tmp/$start_name" 2>&1 &
	holders="$holders $!" names="$names $start_name"
}

# Wait for all that was started to have its memory
ready() {
	ready_end=$(($(uptime) + $1))
	for name in $names; do
		# Looked at once: it may be written between two looks
		while said=$(cat "/tmp/$name") && [ "$said" != ready ]; do
			[ -z "$said" ] && [ "$(uptime)" -lt $ready_end ] || return 1
			sleep 0.2
		done
	done
}

why_not_ready() {
	for name in $names; do
		echo "$name: $(grep . "/tmp/$name" || echo "not in time")"
	done | grep -v ': ready$' | head -n 1
}

stop() {
	# shellcheck disable=SC2086 # a list
	kill $holders
	wait
	holders='' names=''
}

# give NAME TEXT: a command to the module
give() { echo "$2" >"$module/$1" || { not_ok "$what" "the module does not take $1=$2"; exit 1; }; }

# Modules, and the attributes of buffers, that come and go until all secret memory is done with
toggle() {
	rounds=0 toggle_end=$(($(uptime) + arg + 120))
	while ! ready 0 && [ "$(uptime)" -lt $toggle_end ]; do
		give wc 0
		if ! insmod ./vsock.ko || ! rmmod vsock; then
			not_ok "a module meanwhile" "vsock does not load and unload"
			return
		fi
		give wc 1
		rounds=$((rounds + 1))
		step "load: $rounds rounds"
	done
	ok "write-combining buffers and a module came and went $rounds times meanwhile"
}

heal_map() {
	map boot
	step ageing
	start strided aged strided 1024
	start random aged random 1024
	start cache aged cache 2048
	ready 240 || { not_ok ageing "$(why_not_ready)"; return; }
	map aged
	insmod ./heal_pages.ko || { not_ok module "it does not load"; return; }
	give wc 1
	map wc
	step load
	for i in 1 2 3 4; do
		start "secret$i" secret 64 "$arg"
	done
	toggle
	ready 1 || { not_ok "secret memory" "$(why_not_ready)"; return; }
	ok "256 MiB of secret memory in use for $arg s"
	map during
	step "stop all"
	give wc 0
	rmmod heal_pages
	stop
	echo 3 >/proc/sys/vm/drop_caches
	settle 30 # a look at the direct map that took 3 s is followed by a rest of 27
	map after
	echo "settled $settled"
}

# Blocks of orders 9 and 10, the last columns
free_blocks() { awk '{ n += $(NF - 1) + 2 * $NF } END { print n }' /proc/buddyinfo; }
meminfo_mib() { awk -v key="$1:" '$1 == key { print int($2 / 1024) }' /proc/meminfo; }

# requests KIND ORDER NUMBER, on memory that is made ready for them
requests() {
	case="$arg $1 $2"
	step "requests $case"
	start movable movable "$arg"
	ready 240 || { not_ok "movable memory" "$(why_not_ready)"; return 1; }
	# What is compacted or freed in the background may make a block: take that as well, until it has come to rest
	fill_end=$(($(uptime) + 20))
	while give fill 8; [ "$(free_blocks)" != 0 ] && [ "$(uptime)" -lt $fill_end ]; do
		sleep 1
	done
	cached=$(sed -n 's/^nr_direct_unmapped_free //p' /proc/vmstat)
	echo "state $case $(meminfo_mib MemFree) $(meminfo_mib AnonPages) $(free_blocks) $cached"
	figures >/tmp/before
	give request "$1 $2 $3"
	figures >/tmp/after
	echo "request $case $(cat $module/request)"
	awk -v prefix="event $case" 'NR == FNR { before[$1] = $2; next }
		/^direct_/ && $2 != before[$1] { print prefix, $1, $2 - before[$1] }' /tmp/before /tmp/after
	give fill 0
	stop
	settle 3
}

heal_latency() {
	map "boot-$arg"
	# Or else the kernel makes free blocks on its own, between two requests or before the first
	echo 0 >/proc/sys/vm/compaction_proactiveness
	insmod ./heal_pages.ko || { not_ok module "it does not load"; return; }
	for order_and_number in "0 10000" "9 1000"; do
		for kind in unmapped plain; do
			# shellcheck disable=SC2086 # two words
			requests $kind $order_and_number || return
		done
	done
	rmmod heal_pages
	echo 3 >/proc/sys/vm/drop_caches
	settle 5
	map "after-$arg"
}

case $what in
map) heal_map ;;
latency) heal_latency ;;
*) not_ok "$what" "no such step" ;;
esac
exit 0

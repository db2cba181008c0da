#!/bin/busybox sh
# shellcheck shell=dash
# hibernate test | off | resumed: unmapped_alloc in the image of a hibernation, on the swap device /dev/vda. The image is read
# back at once by the same kernel (test), or the machine is switched off with it (off), for a boot that finds it. A boot that does not
# is told to say so (resumed). Prints rows as stress.sh does.
row() { echo "row $1|$2|$3|$4"; }
vmstat() { echo 1 >/proc/sys/vm/stat_refresh; sed -n "s/^$1 //p" /proc/vmstat; }
direct_map() { sed -n 's/^DirectMap\(.*\): *\([0-9]*\) kB/\1 \2/p' /proc/meminfo | tr '\n' ' '; }
# shellcheck source=harness/guest/time.sh
. ./time.sh

# hold WORD...: start a program that keeps something until it is told by SIGUSR1 to look whether all is as it was; sets holder
hold() {
	: >"/tmp/$1.held"
	"$@" >"/tmp/$1.held" &
	holder=$!
	within 60 grep -q ready "/tmp/$1.held"
}
as_it_was() {
	kill -USR1 "$1"
	wait "$1"
}

# cache_blocks MIB: have idle blocks in the cache; the holder stays who it is
cache_blocks() (
	hold stress hold "$1" && as_it_was "$holder"
)

# Sets error unless the kernel comes back as it was when the image was taken: it knows nothing of what came after
hibernate() {
	if ! error=$( (echo disk >/sys/power/state) 2>&1); then
		error=${error##*: }
	elif dmesg | grep -q "Image saving"; then
		error="an image was saved, but memory is not what it was then"
	else
		return 0
	fi
	return 1
}

# Modules, BPF programs and an area of the kernel's, all of which have pages of the cache
users_start() {
	echo 1 >/proc/sys/kernel/kptr_restrict
	insmod absent.ko && insmod users_text.ko && insmod vsock.ko && echo $pages >/sys/module/absent/parameters/pages &&
		hold power bpf
}

# They are as they were; sets why otherwise
users_intact() {
	check=$(cat /sys/module/absent/parameters/check)
	if [ "$check" != "$pages $pages $pages, $pages $pages $pages" ]; then
		why="of $pages pages there, intact, absent, and as many new ones there, zero, absent: $check"
		return 1
	fi
	why=$(users text users_text.ko 2>&1) || return 1
	if ! as_it_was "$holder" 2>/tmp/why; then
		why=$(cat /tmp/why)
		return 1
	fi
	hold power bpf
}

users_end() {
	as_it_was "$holder"
	rmmod vsock && rmmod users_text && rmmod absent
}

# The direct map is as it was at boot, or will be; sets why otherwise
# shellcheck disable=SC2317 # called through within
whole() { [ "$(direct_map)" = "$map" ]; }
same_as_at_boot() {
	cache_blocks 32 || { why="a new user of secret memory lost its contents" && return 1; }
	within 30 whole || { why="the direct map was $map at boot, and is $(direct_map)" && return 1; }
}

idle() {
	what="hibernate with idle blocks in the cache"
	cache_blocks 64
	cached=$(vmstat nr_direct_unmapped_free)
	if ! hibernate; then
		row failed "$what" 1 "$error"
	elif [ "$cached" = 0 ]; then
		row failed "$what" 1 "there were none"
	elif ! same_as_at_boot; then
		row failed "$what" 1 "$why"
	else
		row ok "$what" 1 "$cached pages were cached; the direct map is as at boot"
	fi
}

# in_use WHAT
in_use() {
	if ! users_start; then
		row failed "$1" 1 "the users did not start"
		return
	fi
	cache_blocks 64
	used=$(vmstat nr_direct_unmapped_used)
	small=$(direct_map_4k)
	if ! hibernate; then
		row failed "$1" 1 "$error"
	elif ! users_intact; then
		row failed "$1" 1 "$why"
	elif ! within 30 no_more_split; then
		row failed "$1" 1 "the direct map had $small kB in 4 KiB pages, and has $(direct_map_4k)"
	else
		row ok "$1" 1 "$used pages in use, their contents kept, no page of the direct map split"
	fi
	users_end
	if same_as_at_boot; then
		row ok "$1: when they are gone" 1 "the direct map is as at boot"
	else
		row failed "$1: when they are gone" 1 "$why"
	fi
}
direct_map_4k() { sed -n 's/^DirectMap4k: *\([0-9]*\) kB/\1/p' /proc/meminfo; }
# shellcheck disable=SC2317 # called through within
no_more_split() { [ "$(direct_map_4k)" -le "$small" ]; }

secret() {
	what="hibernate while there is secret memory"
	hold stress hold 16
	if hibernate; then
		row failed "$what" 1 "not refused"
	elif ! as_it_was "$holder"; then
		row failed "$what" 1 "refused, but the contents changed"
	elif [ "$error" != "Operation not permitted" ]; then
		row failed "$what" 1 "refused for another reason than on the base: $error"
	else
		row ok "$what" 1 "refused: $error; contents kept"
	fi
}

map=$(direct_map)
pages=3000
case $1 in
resumed)
	row failed "switch off, and resume in another boot" 1 "the image was not found, or not taken"
	exit 0 ;;
esac
if ! { mkswap /dev/vda >/dev/null && swapon /dev/vda; }; then
	row failed "swap on /dev/vda" 1 "cannot be used"
	exit 0
fi
case $1 in
test)
	echo test_resume >/sys/power/disk
	idle
	in_use "hibernate with pages in use by modules, BPF and vmalloc"
	secret ;;
off)
	# This boot ends well when the machine is off
	echo "HARNESS-EXIT 0"
	echo shutdown >/sys/power/disk
	in_use "switch off with pages in use, resume in another boot" ;;
*) row failed "$1" 0 "no such part" ;;
esac
exit 0

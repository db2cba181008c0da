#!/bin/sh
# bench module WHAT [PARAMETER]: insert the module; bench guest ARGUMENT...: run the program; bench memory: what the kernel
# leaves free; bench metadata: what is allocated for a block. All print lines "NAME VALUE...".
case $1 in
module) dmesg -c >/dev/null; insmod ./bench.ko what="$2" ${3:+"$3"} && dmesg | sed -n 's/.*bench: //p' ;;
guest) shift; ./guest "$@" ;;
memory) sleep 2; sed -n 's/^\(MemTotal\|MemFree\): *\([0-9]*\).*/\1 \2/p' /proc/meminfo ;;
metadata)
	events=/sys/kernel/tracing/events/kmem/kmalloc/enable
	echo 1 >$events
	./guest fill
	echo 0 >$events
	sed -n '/call_site=\(unmapped_new_block\|cache_pages\)/s/.*bytes_req=\([0-9]*\) bytes_alloc=\([0-9]*\).*/block_bytes \1\nblock_alloc \2/p' \
		/sys/kernel/tracing/trace ;;
esac

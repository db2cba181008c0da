#!/bin/busybox sh
# shellcheck shell=dash
# machine: what the kernel made of the machine and its command line, for those who asked for a special one
echo "cpus $(grep -c ^processor /proc/cpuinfo)"
echo "nodes $(find /sys/devices/system/node -maxdepth 1 -name 'node[0-9]*' 2>/dev/null | wc -l)"
sed -n 's/^DirectMap\([^:]*\): *\([0-9]*\) kB/map \1 \2/p' /proc/meminfo
[ ! -e /sys/kernel/debug/page_owner ] || echo "page_owner"
sed -n '/^flags/{s/^flags[^:]*: *\(.*\)/flags \1 /p;q}' /proc/cpuinfo
uname -v

#!/bin/sh
# bench module WHAT | bench guest ARGUMENT...: insert the module, or run the program, and print "NAME VALUE"
case $1 in
module) dmesg -c >/dev/null; insmod ./bench.ko what="$2" && dmesg | sed -n 's/.*bench: //p' ;;
guest) shift; ./guest "$@" ;;
esac

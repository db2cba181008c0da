#!/bin/busybox sh
# shellcheck shell=dash
# users tests | load SECONDS: the users of kernel memory with changed permissions. Their tests, or modules that come and go,
# with BPF programs, tracing, and readers of /proc/kcore meanwhile. Prints lines
#	ok NAME, not ok NAME: WHY	what this kernel says of itself
#	same NAME: VALUE		what must be the same on the unpatched kernel
#	map WHEN KEY VALUE		the direct map: before, with all modules loaded, when all are gone, and 5 s later
#	step NAME			how far it is
steps=$1 seconds=${2-}
tracing=/sys/kernel/tracing

# Loaded together, in this order, with what they need
modules="dummy veth loop brd minix romfs cramfs vfat nls_cp437 nls_iso8859-1 ext4 vsock_loopback vsock_diag
	rmd160 wp512 blowfish_generic camellia_generic cast5_generic cast6_generic serpent_generic twofish_generic
	test_module test_static_keys test_hexdump kobject-example kset-example
	bytestream-example dma-example inttype-example record-example trace-events-sample users_text"

step() { echo "step $*"; }
ok() { echo "ok $*"; }
not_ok() { echo "not ok $1: $2"; }

map() {
	echo 1 >/proc/sys/vm/stat_refresh
	sed -n "s/^\(DirectMap[^:]*\): *\([0-9]*\).*/map $steps-$1 \1 \2/p" /proc/meminfo
	sed -n "s/^\(direct_map_.*\) \([0-9]*\)/map $steps-$1 \1 \2/p" /proc/vmstat
}

splits() { sed -n 's/^direct_map_level2_splits //p' /proc/vmstat; }

# What all this must not do where unmapped_alloc is. On other kernels it does.
split_nothing() {
	grep -q '^direct_unmapped_refill ' /proc/vmstat || return
	now=$(splits)
	if [ "$now" = "$1" ]; then
		ok "no large page was split for the $steps"
	else
		not_ok "no large page was split for the $steps" "$((now - $1)) were"
	fi
}

# shellcheck source=harness/guest/time.sh
. ./time.sh

loaded() { cut -d ' ' -f 1 /proc/modules; }

# Newest first, which is the order of /proc/modules: those that need others go before them
# shellcheck disable=SC2317 # called through within
unload_once() {
	loaded | while read -r unload_name; do
		rmmod "$unload_name" 2>/dev/null
	done
	[ -z "$(loaded)" ]
}

# Whoever holds a module for a moment lets it go
unload() { within 30 unload_once; }

# load MODULE...: set why and end with 1 if one cannot be
load() {
	for load_name in "$@"; do
		modprobe "$load_name" 2>/tmp/modprobe.err || { why="$load_name: $(head -n 1 /tmp/modprobe.err)"; return 1; }
	done
}

ftrace_startup() {
	step "ftrace start-up"
	tests=$(dmesg | grep -c 'Testing ') passed=$(dmesg | grep -cE 'PASSED$|Testing .*: OK$') failed=$(dmesg | grep -c FAILED)
	echo "same ftrace start-up tests: $tests run, $passed PASSED, $failed FAILED"
	if [ "$tests" -gt 0 ] && [ "$tests" = "$passed" ] && [ "$failed" = 0 ]; then
		ok "ftrace start-up tests: $tests run, all PASSED"
	else
		not_ok "ftrace start-up tests" "$tests run, $passed PASSED, $failed FAILED"
	fi
}

kprobes() {
	step "kprobes KUnit"
	dmesg -c >/dev/null
	modprobe test_kprobes
	unload
	result=$(dmesg | sed -n 's/.*# kprobes_test: \(pass:.*\)/\1/p')
	echo "same kprobes KUnit: ${result:-no result}"
	case $result in
	pass:0*) not_ok "kprobes KUnit" "$result" ;;
	pass:*fail:0\ *) ok "kprobes KUnit: $result" ;;
	*) not_ok "kprobes KUnit" "${result:-no result}" ;;
	esac
}

bpf() {
	step test_bpf
	dmesg -c >/dev/null
	modprobe test_bpf 2>/tmp/modprobe.err || not_ok test_bpf "$(head -n 1 /tmp/modprobe.err)"
	dmesg | sed -n "s/.*test_bpf: \(test_[a-z_]*: \)*Summary: \(.*\)/\1\2/p" >/tmp/summaries
	while read -r summary; do
		case $summary in
		test_*) echo "same test_bpf, ${summary%%:*}: ${summary#*: }" ;;
		*) echo "same test_bpf: $summary" ;;
		esac
	done </tmp/summaries
	[ "$(wc -l </tmp/summaries)" = 3 ] || not_ok test_bpf "$(wc -l </tmp/summaries) of its 3 suites have a summary"
	unload || not_ok test_bpf "it does not unload"
}

livepatch() {
	step livepatch
	patch=/sys/kernel/livepatch/livepatch_sample
	text="this has been live patched"
	modprobe livepatch-sample
	within 60 grep -qx 0 $patch/transition || { not_ok livepatch "the transition does not end"; return; }
	grep -qx "$text" /proc/cmdline || { not_ok livepatch "/proc/cmdline is not patched"; return; }
	# When the transition has ended its directory goes
	echo 0 >$patch/enabled
	within 60 test ! -e $patch || { not_ok livepatch "the transition back does not end"; return; }
	! grep -q "$text" /proc/cmdline || { not_ok livepatch "/proc/cmdline is patched still"; return; }
	unload || { not_ok livepatch "the sample does not unload"; return; }
	ok "livepatch: loaded, patched, disabled, unloaded"
}

# Modules whose own text is called from functions that run all the time. Each group traces the same functions.
ftrace_direct() {
	step "ftrace direct calls"
	for group in "ftrace-direct ftrace-direct-too ftrace-direct-modify" ftrace-direct-multi ftrace-direct-multi-modify; do
		# shellcheck disable=SC2086 # a list
		load $group || { not_ok "ftrace direct calls" "$why"; return; }
		# Those that modify do so every other second
		sleep 5
		unload || { not_ok "ftrace direct calls" "$(loaded | tr '\n' ' ')do not unload"; return; }
	done
	ok "ftrace direct calls: loaded, modified, unloaded"
}

# What test_vmalloc.ko says with those parameters. Its load fails by design, when all is done; insmod then tries once more.
test_vmalloc() {
	dmesg -c >/dev/null
	insmod ./test_vmalloc.ko sequential_test_order=1 test_loop_count=500 "$@" 2>/dev/null
	dmesg | sed -n 's/.*Summary: \(.*_test\) \(passed.*\) repeat.*/\1: \2/p' >>/tmp/vmalloc
}

vmalloc() {
	step test_vmalloc
	rm -f /tmp/vmalloc
	# All but align_shift_alloc_test, which is meant to fail, and then traces. That is kept off the console alone.
	test_vmalloc run_test_mask=$((-1 & ~64))
	dmesg -n 1
	test_vmalloc run_test_mask=64
	dmesg -n 7
	dmesg | grep -E 'WARNING:|BUG:|Oops' && not_ok test_vmalloc "align_shift_alloc_test has the kernel complain"
	sort -u /tmp/vmalloc >/tmp/results
	sed 's/^/same test_vmalloc, /' /tmp/results
	ended=$(wc -l </tmp/results)
	if [ "$ended" -lt 13 ]; then
		not_ok test_vmalloc "$ended tests ended, of at least 13"
	elif grep -v ' failed: 0 ' /tmp/results >/tmp/failed; then
		not_ok test_vmalloc "$(head -n 1 /tmp/failed)"
	else
		ok "test_vmalloc: $ended tests ended, none failed"
	fi
}

# Function tracing of modules. Not of everything: functions that are run all the time are patched all the time then, and
# QEMU's parallel TCG soon runs an int3 that is gone (see harness/boot).
trace_on_and_off() {
	for traced in dummy minix ext4; do
		echo "*:mod:$traced" >>$tracing/set_ftrace_filter
	done
	while [ "$(uptime)" -lt "$1" ]; do
		echo function >$tracing/current_tracer
		sleep 2
		echo nop >$tracing/current_tracer
		sleep 1
	done
	echo >$tracing/set_ftrace_filter
}

# meanwhile WHAT NAME: run the program users, and report when it has ended
meanwhile() {
	if ./users "$1" "$seconds" >"/tmp/$1" 2>&1; then
		ok "$2: $(cat "/tmp/$1")"
	else
		not_ok "$2" "$(head -n 1 "/tmp/$1")"
	fi
}

modules_come_and_go() {
	step "modules for $seconds s"
	end=$(($(uptime) + seconds)) rounds=0 loads=0 why=
	echo 'p:users/dummy dummy:dummy_setup' >$tracing/kprobe_events
	echo 1 >$tracing/events/users/enable
	trace_on_and_off $end &
	meanwhile bpf "BPF programs meanwhile" &
	meanwhile kcore "/proc/kcore meanwhile" &
	while :; do
		# shellcheck disable=SC2086 # a list
		load $modules || break
		./users text users_text.ko >/tmp/text 2>&1 || { why="text in /proc/kcore: $(cat /tmp/text)"; break; }
		loads=$((loads + $(loaded | wc -l)))
		unload || { why="$(loaded | tr '\n' ' ')do not unload"; break; }
		rounds=$((rounds + 1))
		step "modules: $rounds rounds, $loads loads"
		[ "$(uptime)" -lt $end ] || break
	done
	if [ -z "$why" ]; then
		ok "modules: $rounds rounds, $loads loads and unloads"
		ok "text of a module in /proc/kcore: $(cat /tmp/text), $rounds times"
	else
		not_ok modules "$why"
	fi
	step "modules: waiting for the others"
	wait
	read -r _ hits _ <$tracing/kprobe_profile
	if [ "${hits:-0}" -gt 0 ] && [ "$hits" -ge $rounds ]; then
		ok "kprobe on a module: hit $hits times"
	else
		not_ok "kprobe on a module" "${hits:-no} hits in $rounds rounds"
	fi
	echo 0 >$tracing/events/users/enable
	echo >$tracing/kprobe_events
}

echo 1 >/proc/sys/kernel/kptr_restrict
mkdir -p "/lib/modules/$(uname -r)"
ln -s /guest/*.ko "/lib/modules/$(uname -r)"
depmod
map before
splits=$(splits)
case $steps in
tests)
	ftrace_startup
	kprobes
	bpf
	livepatch
	ftrace_direct
	vmalloc
	;;
load)
	modules_come_and_go
	# shellcheck disable=SC2086 # a list
	load $modules || not_ok modules "$why"
	map loaded
	unload || not_ok modules "they do not unload"
	;;
*)
	not_ok "$steps" "no such steps"
	;;
esac
map gone
sleep 5
map later
split_nothing "$splits"
# shellcheck source=harness/guest/leaks.sh
. ./leaks.sh
exit 0

# shellcheck shell=bash
# What the harness's shell scripts share. Sourced, with the repository's root as the parent of this directory.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
O=$(realpath -m "${O:-$ROOT/build${BASE:+/$BASE}}")	# relative to where the user is, as make has it
JOBS=${JOBS:-$(nproc)}
export ROOT O JOBS
# An outer make's flags (-s, its O=) are not meant for the kernel's make
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL KBUILD_OUTPUT

note() { echo "$*" >&2; }
die() { note "error: $*"; exit 1; }

# need TOOL PACKAGE: stop unless TOOL is there
need() { command -v "$1" >/dev/null || die "$1 is missing: install the Debian package $2 (make demo as root installs all that is needed)"; }

# space GIB: stop unless that much is free where the output goes
space() {
	local free
	mkdir -p "$O" || die "cannot create $O"
	free=$(df --output=avail -BM "$O" | tail -n 1 | tr -dc 0-9)
	[ "$free" -ge $(($1 * 1024)) ] ||
		die "$O has $((free / 1024)) GiB free and this step needs $1: free some, or name another place with O="
}

# lock: one fetch, tree, refresh or build at a time; nested scripts have it already
lock() {
	[ -z "${HARNESS_LOCKED-}" ] || return 0
	mkdir -p "$O"
	exec 9>"$O/lock"
	flock -n 9 || { note "waiting for another run in $O"; flock 9; }
	export HARNESS_LOCKED=1
}

# progress WHAT LOG HOWFAR COMMAND...: run COMMAND with its output in LOG; meanwhile say what runs, how far it is (the
# output of the shell code HOWFAR) and how long it took. On failure show the compiler's
# first errors, or else the log's end, and HINT if it is set.
progress() {
	local what=$1 log=$2 howfar=$3 pid t0=$SECONDS rc=0 next=0 every=10 eol=$'\n'
	shift 3
	[ -t 2 ] && every=1 eol=$'\033[K\r'
	"$@" >"$log" 2>&1 9>&- &
	pid=$!
	trap 'kill $pid 2>/dev/null; exit 130' INT TERM
	while kill -0 $pid 2>/dev/null; do
		if [ $((SECONDS - t0)) -ge $next ]; then
			printf '%s: %s, %d s%s' "$what" "$(eval "$howfar" 2>/dev/null)" $((SECONDS - t0)) "$eol" >&2
			next=$((SECONDS - t0 + every))
		fi
		sleep 0.2
	done
	wait $pid || rc=$?
	trap - INT TERM
	if [ $rc = 0 ]; then
		printf '%s: done, %d s%s\n' "$what" $((SECONDS - t0)) "${eol%$'\n'}" >&2
	else
		printf '\n' >&2
		grep -m 3 -A 3 -E '([0-9]: |fatal )error: |undefined reference' "$log" >&2 || tail -n 10 "$log" >&2
		die "$what failed${HINT:+: $HINT} (the whole log: $log)"
	fi
}

# kmake SOURCE OUT ARGUMENT...: the kernel's make, always the same way, with CC and HOSTCC through ccache, see cc. The output goes
# right below its source, so that kbuild names all files by relative paths and ccache serves every clone.
export CCACHE_BASEDIR=$O CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content CCACHE_MAXSIZE=10G
export CCACHE_DEPEND=1	# a miss costs one run of the compiler and no preprocessing of its own
kmake() {
	local src=$1 out=$2
	shift 2
	make -C "$src" O="$out" -j"$JOBS" CC="$ROOT/harness/cc ${KCC:-gcc}" HOSTCC="ccache gcc" LOCALVERSION= \
		KBUILD_BUILD_VERSION=1 KBUILD_BUILD_TIMESTAMP="Thu Jan  1 00:00:00 UTC 2026" \
		KBUILD_BUILD_USER=harness KBUILD_BUILD_HOST=localhost "$@"
}

# config_of FRAGMENT...: these parts of a configuration, and what another base wants besides
config_of() {
	(cd "$ROOT/harness/configs" && cat "$@")
	[ ! -e "$ROOT/patches/${BASE-}/config" ] || cat "$ROOT/patches/$BASE/config"
}

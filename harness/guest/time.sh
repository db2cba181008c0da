# shellcheck shell=dash
# Time, for the other scripts here: they source it

# In seconds
uptime() {
	read -r up _ </proc/uptime
	echo "${up%.*}"
}

# within SECONDS COMMAND...: wait until COMMAND is true
within() {
	within_end=$(($(uptime) + $1))
	shift
	until "$@"; do
		[ "$(uptime)" -lt $within_end ] || return 1
		sleep 0.2
	done
}

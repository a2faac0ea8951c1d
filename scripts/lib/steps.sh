# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Shared by scripts/env and scripts/debug-kernel: named and timed steps, one run at a
# time, and no step twice. Source it, set $dir to the folder to make, call
# steps_begin, then step for each step.

# shellcheck disable=SC2154	# dir is the caller's
me=${0##*/}

die() {
	echo "$me: $*" >&2
	exit 1
}

child=
stop() {
	[ -z "$child" ] || kill -TERM -- "-$child" 2>/dev/null || true
	echo "$me: interrupted; run it again to resume" >&2
	exit 130
}

steps_begin() {
	mkdir -p "$dir/done" "$dir/log"
	exec 9>"$dir/lock"
	if ! flock -n 9; then
		echo "$me: another run makes it; waiting"
		flock 9
	fi
	trap stop INT TERM HUP
	echo "$me: making $dir"
}

# step STAMP NAME WHAT: runs step_NAME unless STAMP exists.
step() {
	local stamp=$dir/done/$1 name=$2 what=$3 log=$dir/log/$2 start=$SECONDS

	[ ! -e "$stamp" ] || return 0
	[ -t 1 ] || printf '%s: %-9s %s\n' "$me" "$name" "$what"
	# a job of its own, so that stop reaches all its children
	set -m
	( set -e; "step_$name" ) >"$log" 2>&1 </dev/null &
	child=$!
	set +m
	while [ -t 1 ] && kill -0 "$child" 2>/dev/null; do
		printf '\r%s: %-9s %s ... %d s' "$me" "$name" "$what" $((SECONDS - start))
		sleep 1
	done
	if ! wait "$child"; then
		child=
		[ ! -t 1 ] || echo
		tail -n 20 "$log" >&2
		die "step $name failed; the whole log is $log"
	fi
	child=
	if [ -t 1 ]; then
		printf '\r%s: %-9s %s: %d s    \n' "$me" "$name" "$what" $((SECONDS - start))
	else
		printf '%s: %-9s done in %d s\n' "$me" "$name" $((SECONDS - start))
	fi
	echo "$((SECONDS - start))" >"$stamp"
}

# Shared by the benchmarks: timing in turn, medians, and the row that each figure prints.
# shellcheck shell=bash

rounds=${ROUNDS:-5}

# seconds COMMAND...: its wall time; the command's output goes to $bench_log.
seconds()
{
	local began ended
	began=$(date +%s%N)
	"$@" >>"${bench_log:-/dev/null}" 2>&1 </dev/null || echo "status $? from: $*" >>"${bench_log:-/dev/stderr}"
	ended=$(date +%s%N)
	awk -v ns=$((ended - began)) 'BEGIN { printf "%.4f\n", ns / 1e9 }'
}

# median: of the numbers on standard input, one a line.
median()
{
	sort -g | awk '{ v[NR] = $1 } END { if (NR % 2) print v[(NR + 1) / 2]; else print (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# need PROGRAM PACKAGE: tells which package a missing program is in, and that its rows will be missing.
need()
{
	command -v "$1" >/dev/null || echo "no $1: rows are left out (scripts/install-deps.sh --bench installs $2)" >&2
}

# row NAME OURS PEER TARGET: ratio OURS/PEER against "at most TARGET".
row()
{
	awk -v name="$1" -v ours="$2" -v peer="$3" -v target="$4" 'BEGIN {
		ratio = peer > 0 ? ours / peer : 0
		verdict = (target == "-") ? "reported" : (ratio <= target ? "ok" : "short")
		printf "%s\t%.4g\t%.4g\t%.3f\t%s\t%s\n", name, ours, peer, ratio, target, verdict
	}'
}

# row_least NAME OURS PEER TARGET: the same against "at least TARGET".
row_least()
{
	row "$@" | awk -F '\t' -v OFS='\t' '$5 != "-" { $6 = $4 >= $5 ? "ok" : "short" } 1'
}

# pair NAME TARGET OURS PEER: runs two shell functions in turn, $rounds times after one warm-up
# each, and prints the row of the medians of their seconds.
pair()
{
	local name=$1 target=$2 ours=$3 peer=$4 i
	local ours_times="" peer_times=""
	seconds "$ours" >/dev/null
	seconds "$peer" >/dev/null
	for ((i = 0; i < rounds; i++)); do
		ours_times+="$(seconds "$ours")"$'\n'
		peer_times+="$(seconds "$peer")"$'\n'
	done
	row "$name" "$(printf %s "$ours_times" | median)" "$(printf %s "$peer_times" | median)" "$target"
}

#!/usr/bin/env bash
# Boots in a row, on one and two processors in turn: each comes up, answers and powers off. Ten; in
# the long form 200, every third on four processors. KVM_BOOTS sets another number.
set -u
# shellcheck source=tests/kvm/lib/guest.sh
. tests/kvm/lib/guest.sh

boots=${KVM_BOOTS:-10} kinds=2
[ -z "${MATCHLOCK_LONG:-}" ] || boots=${KVM_BOOTS:-200} kinds=3
good=0
slowest=0
began=$SECONDS
for ((i = 0; i < boots; i++)); do
	processors=$((1 << i % kinds))
	before=${EPOCHREALTIME/./}
	out=$(boot --memory 256 --cpus "$processors" -- /busybox nproc)
	milliseconds=$(((${EPOCHREALTIME/./} - before) / 1000))
	if [ "$out" = "$processors" ] && [ "$(ending)" = "0 powered-off" ]; then
		good=$((good + 1))
	else
		echo "# boot $i, $processors processors, $milliseconds ms: said \"$out\", $(ending)"
		# A panic is told from its beginning.
		cat "$work/vmm-log" "$work/errors" <(head -n 60 "$work/console") | sed 's/^/# /'
	fi
	[ "$milliseconds" -le "$slowest" ] || slowest=$milliseconds
	[ $((i % 20)) -ne 19 ] || echo "# $good of $((i + 1)) boots were good, in $((SECONDS - began)) s"
done
same "$boots boots in a row" "$boots" "$good"
echo "# $(((SECONDS - began) * 1000 / boots)) ms each, $slowest ms the slowest"
finish

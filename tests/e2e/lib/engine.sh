# shellcheck shell=bash
# The engine on which a test's guests run: MATCHLOCK_TEST_ENGINE, "kvm" or "qemu". Unset, it is
# the product's own choice.

# Has every `matchlock run` that names no engine ask for that one, by a config.yaml in DIRECTORY.
use_engine() { # DIRECTORY
	[ -n "${MATCHLOCK_TEST_ENGINE:-}" ] || return 0
	export XDG_CONFIG_HOME=$1/config
	mkdir -p "$XDG_CONFIG_HOME/matchlock"
	printf 'version: 1\nengine: %s\n' "$MATCHLOCK_TEST_ENGINE" >"$XDG_CONFIG_HOME/matchlock/config.yaml"
}

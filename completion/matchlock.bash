# bash completion for matchlock

_matchlock_sessions() {
	local words
	words="last $("$1" ls --json 2>/dev/null |
		sed -n 's/^ *"\(id\|name\)": "\([A-Za-z0-9._-]*\)".*/\2/p')"
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2")
}

_matchlock_run() {
	local current=$1 previous=$2
	case $previous in
	--workspace | --image | -w | --workdir)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	--policy | --env-file | --config | --upstream-ca)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--engine)
		mapfile -t COMPREPLY < <(compgen -W "auto kvm qemu" -- "$current")
		return
		;;
	-u | --user)
		mapfile -t COMPREPLY < <(compgen -u -- "$current")
		return
		;;
	-e | --env)
		mapfile -t COMPREPLY < <(compgen -v -- "$current")
		return
		;;
	-v | --volume)
		compopt -o filenames -o nospace 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--cpus | --memory | --timeout | --name | --allow-write | --allow-host | --passthrough | --add-host | \
		--upstream-proxy | --secret | -p | --publish) return ;;
	esac
	if [[ $current == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "--workspace --rollback-on-exit --keep-on-success
			--image --interactive --tty --env --env-file --workdir --user --cpus --memory --huge-pages
			--timeout --engine --policy --allow-write --volume --name --dry-run --json
			--quiet --verbose --debug --config --no-config --no-snapshot --no-rollback-on-exit
			--no-keep-on-success --no-timeout --no-policy --no-quiet --allow-host --allow-all-hosts
			--passthrough --publish --secret --canary --add-host --upstream-proxy --upstream-ca
			--no-network --help --" -- "$current")
	else
		mapfile -t COMPREPLY < <(compgen -c -- "$current")
	fi
}

# The index of run's command in COMP_WORDS, or nothing while still among the flags.
_matchlock_command_at() {
	local i=2
	while [ "$i" -lt "$COMP_CWORD" ]; do
		case ${COMP_WORDS[i]} in
		--)
			echo $((i + 1))
			return
			;;
		--workspace | --image | --env | --env-file | --workdir | --user | --cpus | --memory | \
			--timeout | --engine | --policy | --allow-write | --volume | --name | --config | --allow-host | \
			--passthrough | --publish | --secret | --add-host | --upstream-proxy | --upstream-ca | \
			-e | -w | -u | -v | -p)
			# A value may be split at "=" and ":".
			i=$((i + 1))
			[ "${COMP_WORDS[i]}" != "=" ] || i=$((i + 1))
			while [ "${COMP_WORDS[i + 1]}" = ":" ] || [ "${COMP_WORDS[i + 1]}" = "=" ]; do
				i=$((i + 2))
			done
			;;
		-*) ;;
		*)
			echo "$i"
			return
			;;
		esac
		i=$((i + 1))
	done
}

_matchlock() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local program=${COMP_WORDS[0]} at
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "run rollback diff ls rm prune audit allow port-forward doctor trust config version help
			--help --version" -- "$current")
		return
	fi
	case ${COMP_WORDS[1]} in
	run)
		at=$(_matchlock_command_at)
		if [ -n "$at" ]; then
			if declare -F _command_offset >/dev/null && [ "$at" -lt "$COMP_CWORD" ]; then
				_command_offset "$at"
			else
				compopt -o filenames 2>/dev/null
				mapfile -t COMPREPLY < <(compgen -c -f -- "$current")
			fi
		else
			_matchlock_run "$current" "$previous"
		fi
		;;
	rollback | rm)
		if [[ $current == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "--json --force --help" -- "$current")
		else
			_matchlock_sessions "$program" "$current"
		fi
		;;
	diff)
		if [[ $current == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "--json --name-only --help" -- "$current")
		elif [ "$COMP_CWORD" -eq 2 ] || [[ $previous == -* ]]; then
			_matchlock_sessions "$program" "$current"
		else
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$current")
		fi
		;;
	audit)
		if [ "$COMP_CWORD" -eq 2 ]; then
			mapfile -t COMPREPLY < <(compgen -W "show verify" -- "$current")
		elif [ "$COMP_CWORD" -eq 3 ] && [[ $current != -* ]]; then
			_matchlock_sessions "$program" "$current"
		elif [ "${COMP_WORDS[2]}" = verify ]; then
			mapfile -t COMPREPLY < <(compgen -W "--expect" -- "$current")
		else
			mapfile -t COMPREPLY < <(compgen -W "--json --denied --kind --path --host --since --follow" \
				-- "$current")
		fi
		;;
	allow)
		if [ "$COMP_CWORD" -eq 2 ]; then
			mapfile -t COMPREPLY < <(compgen -W "add rm ls" -- "$current")
		elif [ "$COMP_CWORD" -eq 3 ]; then
			_matchlock_sessions "$program" "$current"
		fi
		;;
	port-forward)
		[ "$COMP_CWORD" -ne 2 ] || _matchlock_sessions "$program" "$current"
		;;
	ls) mapfile -t COMPREPLY < <(compgen -W "--json --quiet --help" -- "$current") ;;
	prune) mapfile -t COMPREPLY < <(compgen -W "--older-than --force --help" -- "$current") ;;
	trust)
		if [[ $current == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "--show --remove --list --json --help" -- "$current")
		else
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -d -- "$current")
		fi
		;;
	config)
		if [ "$previous" = --config ]; then
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$current")
		else
			mapfile -t COMPREPLY < <(compgen -W "--config --json --help" -- "$current")
		fi
		;;
	doctor) mapfile -t COMPREPLY < <(compgen -W "--json --help" -- "$current") ;;
	help)
		mapfile -t COMPREPLY < <(compgen -W "run rollback diff ls rm prune audit allow port-forward doctor trust config version" \
			-- "$current")
		;;
	esac
}

complete -F _matchlock matchlock

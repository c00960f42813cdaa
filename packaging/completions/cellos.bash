# SPDX-License-Identifier: MIT
# bash completion for cellos-host-telemetry, cellos-telemetry and cellos-workload-exec. What there is
# to complete is read from --help, which the programs make from their option tables.

# The verbs in "  verb  what it does"
_cellos_verbs()
{
	"$1" --help 2> /dev/null | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p'
}

# The words that may follow a verb: "cell add", "cell remove", ...
_cellos_subverbs()
{
	"$1" "$2" --help 2> /dev/null | sed -n "s/.*cellos-host-telemetry $2 \([a-z][a-z]*\)\( .*\)\{0,1\}\$/\1/p"
}

# The long options of PROGRAM [VERB]
_cellos_options()
{
	"$@" --help 2> /dev/null | sed -n 's/^  \(-[a-z], \)\{0,1\}\(--[a-z-]*\).*/\2/p'
}

# The line of an option in the help: "ADDR<tab>what it says"
_cellos_option_row()
{
	local option=$1
	shift
	"$@" --help 2> /dev/null |
		sed -n "s/^  \(-[a-z], \)\{0,1\}$option \([^ ][^ ]*\) *\(.*\)/\2\t\3/p"
}

# The values that an option takes: by its argument's name, or the words that its help lists.
_cellos_values()
{
	local option=$1 row name text
	shift
	row=$(_cellos_option_row "$option" "$@")
	name=${row%%$'\t'*} text=${row#*$'\t'}
	case $name in
		'') return 1 ;;
		LEVEL) echo emerg alert crit err warning notice info debug ;;
		ALG) echo off ed25519-log ed25519 hmac-sha256 ;;
		SOURCE) echo "${text//,/}" ;;
		*'|'*) echo "${name//|/ }" ;;
		*) return 1 ;;
	esac
}

_cellos()
{
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local program=${COMP_WORDS[0]} command words=
	command=("$program")
	[[ $program == *cellos-host-telemetry ]] && ((COMP_CWORD > 1)) && command+=("${COMP_WORDS[1]}")

	if [[ $program == *cellos-host-telemetry && $COMP_CWORD -eq 1 && $current != -* ]]; then
		words="$(_cellos_verbs "$program") help"
	elif [[ ${command[1]} == help ]]; then
		((COMP_CWORD == 2)) && words=$(_cellos_verbs "$program")
	elif [[ $previous == --* ]] && words=$(_cellos_values "$previous" "${command[@]}"); then
		:
	elif [[ $current == -* ]]; then
		words=$(_cellos_options "${command[@]}")
	elif [[ $previous == --cell || ${command[1]} == cell && $COMP_CWORD -eq 3 &&
		$previous =~ ^(remove|show)$ ]]; then
		words=$("$program" cell list 2> /dev/null | sed -n '2,$s/^\([^ :]*\) .*/\1/p')
	elif ((COMP_CWORD == 2)) && ((${#command[@]} == 2)); then
		words=$(_cellos_subverbs "${command[@]}")
	fi
	# Without words of ours: files and folders.
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
	if [[ -z $words ]]; then
		compopt -o filenames 2> /dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
	fi
}

complete -F _cellos cellos-host-telemetry cellos-telemetry cellos-workload-exec

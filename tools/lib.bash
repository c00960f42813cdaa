# SPDX-License-Identifier: MIT
# What tools/demo and tools/test share: saying what happens, Debian packages, builds.
# Sourced by bash; never run by itself.
# shellcheck disable=SC2034

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD_ROOT=${CELLOS_BUILD_ROOT:-$SOURCE}
LOGS=$BUILD_ROOT/build-logs
mkdir -p "$LOGS"

# The packages below are Debian's, and Debian's python3 is the one that finds them.
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH

# A build configured by one machine's environment would not be another's.
unset CFLAGS CPPFLAGS LDFLAGS DESTDIR MESON_TESTTHREADS

PACKAGES_BUILD=(gcc libc6-dev meson ninja-build pkgconf python3
	libcbor-dev libsodium-dev libuv1-dev libjansson-dev libinih-dev libmicrohttpd-dev
	libnftables-dev libnftnl-dev libmnl-dev libnats-dev libseccomp-dev
	libssl-dev zlib1g-dev libzstd-dev)
PACKAGES_GUEST=(musl-tools libseccomp-dev)
PACKAGES_VM=(qemu-system-x86 busybox-static linux-image-cloud-amd64)
PACKAGES_TEST=(check clang libclang-rt-14-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross
	qemu-user-static nats-server nftables iproute2 systemd python3-nacl python3-cbor2 scdoc prometheus
	golang-go golang-golang-x-mod-dev strace zstd shellcheck cppcheck zsh
	python3-jsonschema chromium-headless-shell debhelper lintian mmdebstrap)

# What the tests of a build for aarch64 link and run with: unpacked into a folder, not installed.
PACKAGES_ARM64=(check libsubunit0 libsubunit-dev libcbor0.8 libcbor-dev libjansson4 libjansson-dev)

say()
{
	printf '==> %s\n' "$*"
}

die()
{
	printf 'tools/%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# need_packages PACKAGE...: installs those that are missing, and says which.
need_packages()
{
	local log=$LOGS/apt.log missing=() package
	# The kernel is for the VM, never for this machine: it needs no initramfs of its own.
	local apt=(env INITRD=No DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends)

	for package in "$@"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null) == installed ]] ||
			missing+=("$package")
	done
	((${#missing[@]})) || return 0
	command -v apt-get > /dev/null || die "needs these Debian packages: ${missing[*]}"
	if ((EUID != 0)); then
		command -v sudo > /dev/null ||
			die "not root, and no sudo: install these packages first: ${missing[*]}"
		apt=(sudo "${apt[@]}")
	fi
	say "installing ${#missing[@]} packages: ${missing[*]}"
	"${apt[@]}" install "${missing[@]}" < /dev/null &> "$log" && return 0
	say "the package lists are missing or old: apt-get update"
	"${apt[@]}" update < /dev/null &> "$log"
	"${apt[@]}" install "${missing[@]}" < /dev/null &>> "$log" && return 0
	tail -n 20 "$log" >&2
	die "cannot install ${missing[*]}: all of it in $log"
}

# unpack_packages ARCHITECTURE FOLDER PACKAGE...: Debian packages of another architecture, unpacked
# into FOLDER. This machine's own lists and architectures stay as they are.
unpack_packages()
{
	local arch=$1 folder=$2 apt=$2.apt log=$LOGS/apt-$1.log package options
	shift 2
	[[ $(cat "$folder/.packages" 2> /dev/null) == "$*" ]] && return 0
	command -v apt-get > /dev/null || die "needs these Debian packages of $arch: $*"
	say "unpacking $# packages of $arch: $*"
	rm -rf "$folder" "$apt"
	mkdir -p "$folder" "$apt/lists/partial" "$apt/cache/archives/partial"
	options=(-q -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache"
		-o "APT::Architectures::=$arch" -o APT::Sandbox::User=root)
	apt-get "${options[@]}" update < /dev/null &> "$log" &&
		(cd "$apt" && apt-get "${options[@]}" download "${@/%/:$arch}" < /dev/null &>> "$log") || {
		tail -n 20 "$log" >&2
		return 1
	}
	for package in "$apt"/*.deb; do
		dpkg-deb -x "$package" "$folder" || return 1
	done
	rm -rf "$apt"
	printf '%s\n' "$*" > "$folder/.packages"
}

# build DIR [MESON OPTION...]: configures DIR if it is not, or not with these options, and builds
# it, or only $TARGETS of it. Quiet unless it fails.
build()
{
	local dir=$1 log=$LOGS/${1##*/}.log options
	shift
	options=$(printf '%s\n' "$SOURCE" "$@")

	if [[ ! -f $dir/build.ninja || $(cat "$dir/.options" 2> /dev/null) != "$options" ]]; then
		rm -rf "$dir"
		meson setup "$dir" "$SOURCE" "$@" &> "$log" || {
			tail -n 40 "$log" >&2
			return 1
		}
		printf '%s\n' "$options" > "$dir/.options"
	fi
	# shellcheck disable=SC2086
	ninja -C "$dir" ${TARGETS:-} &> "$log" || {
		grep -E -A 8 '(error|warning): |undefined reference|^FAILED' "$log" |
			cut -c 1-200 | head -n 60 >&2
		return 1
	}
}

seconds_since()
{
	printf '%d s' "$((SECONDS - $1))"
}

# Everything is in functions, and the last line calls them: a script that is cut off does nothing.
set -eu
umask 077
root=${PROVISIONR_ROOT:-}

fail() {
	echo "provisionr: $1" >&2
	exit 1
}

check() {
	[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "not root: end the line with | sudo sh"
	[ -d "$root/run/systemd/system" ] || fail "systemd does not run on this machine"
	command -v curl >/dev/null || command -v wget >/dev/null || fail "neither curl nor wget is installed"
	[ -e "$root/etc/provisionr/bootstrap.json" ] || return 0
	grep -q "\"machine_id\":\"$machine_id\"" "$root/etc/provisionr/bootstrap.json" ||
		fail "this machine was adopted as another: first run systemctl disable --now provisionr-agent provisionr-bootstrap; rm -rf /etc/provisionr /var/lib/provisionr-agent /usr/local/lib/provisionr"
}

# put PATH MODE writes standard input to a file that nobody else can read meanwhile.
put() {
	mkdir -p "$root$(dirname "$1")"
	cat >"$root$1.part"
	chmod "$2" "$root$1.part"
	mv -f "$root$1.part" "$root$1"
}

adopt() {
	check
	files
	systemctl daemon-reload
	systemctl enable provisionr-bootstrap.service provisionr-agent.service
	systemctl restart --no-block provisionr-bootstrap.service
	echo "provisionr: fetching the agent"
	left=300
	while [ ! -e "$root/usr/local/lib/provisionr/provisionr-agent.installed" ]; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || fail "no agent after 5 minutes: see journalctl -u provisionr-bootstrap; it goes on trying"
		sleep 1
	done
	echo "provisionr: this machine joins as $fqdn; provisionr describe machine ${fqdn%%.*} shows how far it is"
}


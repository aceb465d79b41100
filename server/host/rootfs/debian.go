package rootfs

// packages that every machine has.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "udev", "init", "cloud-init", "openssh-server", "iproute2", "iputils-ping", "nftables",
	"chrony", "systemd-resolved", "ca-certificates", "curl", "python3-minimal", "sudo", "procps", "less", "gpgv", "netbase",
	"debian-archive-keyring", "bind9-dnsutils",
}

// dpkgOptions stay in force inside: no manuals (but their folders, for update-alternatives links into them), no waiting for the disk of a machine that is never repaired.
var dpkgOptions = []string{
	"path-exclude=/usr/share/man/*/*", "path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/locale/*", "force-unsafe-io",
}

// written are files over the packages' own.
var written = map[string]string{
	// Only what the cloud-init stub uses. The locale module fails without the package locales; the rest costs seconds.
	"etc/cloud/cloud.cfg.d/98_provisionr.cfg": `datasource_list: [NoCloud, None]
locale: false
manage_etc_hosts: false
users: []
system_info:
  network:
    renderers: ['networkd']
    activators: ['networkd']
ssh_genkeytypes: ['ed25519']
no_ssh_fingerprints: true
ssh:
  emit_keys_to_console: false
cloud_init_modules: [bootcmd, write-files, set_hostname, users-groups, ssh]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user, final-message]
`,
	// Without router advertisements on the bridge systemd-networkd-wait-online would wait 13 s for them.
	"etc/systemd/network/10-cloud-init-eth0.network.d/provisionr.conf": "[Network]\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n",
	// A machine's journal must not fill the host's disk.
	"etc/systemd/journald.conf.d/provisionr.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n",
	"etc/apt/apt.conf.d/80provisionr-image":       "APT::Install-Recommends \"false\";\nAcquire::Languages \"none\";\n",
	"etc/apt/sources.list":                        "",
	"etc/hostname":                                "localhost\n",
	"etc/hosts":                                   "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
	"etc/machine-id":                              "",
}

// masked units would work against the owner of the machine, or have nothing to do in one.
var masked = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
	"dpkg-db-backup.timer", "man-db.timer", "systemd-firstboot.service", "cloud-init-hotplugd.socket", "console-getty.service", "getty@tty1.service",
}

// enabled units that Debian leaves off.
var enabled = []string{"systemd-networkd.service"}

// removed paths: keys that each machine must make for itself, and the manual index that no one reads.
var removed = []string{
	"etc/ssh/ssh_host_ecdsa_key", "etc/ssh/ssh_host_ecdsa_key.pub", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub",
	"etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "var/lib/man-db/auto-update", "var/lib/dbus/machine-id",
}

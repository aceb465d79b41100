package spec

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func checkGroups(d *document, spec *provisionrv1.PoolSpec) {
	groups := spec.Groups
	d.unique("spec.groups", len(groups), func(i int) (string, string) { return "name", groups[i].Name })
	d.unique("spec.groups", len(groups), func(i int) (string, string) { return "gid", number(groups[i].Gid) })
	absent := map[string]bool{}
	for i, g := range groups {
		p := at("spec.groups", i)
		absent[g.Name] = g.Absent
		switch {
		case g.Absent && g.Name == root:
			d.complain(join(p, "absent"), "", "root cannot be absent")
		case g.Absent && g.Gid != nil:
			d.complain(join(p, "gid"), "remove gid or absent", "an absent group has no id")
		}
	}
	for i, u := range spec.Users {
		p := at("spec.users", i)
		if !u.Absent && u.Group != "" && absent[u.Group] {
			d.complain(join(p, "group"), "remove absent: true from the group", "group %s is to be absent", show(u.Group))
		}
		for j, g := range u.Groups {
			if !u.Absent && absent[g] {
				d.complain(at(join(p, "groups"), j), "remove absent: true from the group", "group %s is to be absent", show(g))
			}
		}
	}
}

// number writes an optional number; empty where there is none.
func number(n *uint32) string {
	if n == nil {
		return ""
	}
	return strconv.FormatUint(uint64(*n), 10)
}

// keyTypes are the types of keys that current versions of sshd accept.
func keyTypes() []string {
	return []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
	}
}

func checkUsers(d *document, users []*provisionrv1.UserAccount) {
	d.unique("spec.users", len(users), func(i int) (string, string) { return "name", users[i].Name })
	d.unique("spec.users", len(users), func(i int) (string, string) { return "uid", number(users[i].Uid) })
	for i, u := range users {
		p := at("spec.users", i)
		if u.Name == root && u.Absent {
			d.complain(join(p, "absent"), "", "root cannot be absent")
		}
		if hasControl(u.Shell) {
			d.complain(join(p, "shell"), "as /bin/bash", "%s has a control character in it", show(u.Shell))
		}
		checkAccount(d, p, u)
		d.unique(join(p, "groups"), len(u.Groups), func(j int) (string, string) { return "", u.Groups[j] })
		keys := map[string]int{}
		for j, k := range u.SshKeys {
			checkKey(d, at(join(p, "sshKeys"), j), k, j, keys)
		}
	}
}

// checkAccount checks what an account is made with.
func checkAccount(d *document, p string, u *provisionrv1.UserAccount) {
	switch home := u.Home; {
	case home == "" || home[0] != '/':
	case hasControl(home):
		d.complain(join(p, "home"), "as /home/ops", "%s has a control character in it", show(home))
	case path.Clean(home) != home:
		d.complain(join(p, "home"), "write "+path.Clean(home), "%s is not a clean path", show(home))
	case systemDirectory(home):
		d.complain(join(p, "home"), "as /home/"+or(u.Name, "ops"), "%s belongs to the operating system", home)
	}
	if u.Name == root && u.Uid != nil {
		d.complain(join(p, "uid"), "remove it", "the uid of root is 0")
	}
	if u.Admin && len(u.Sudo) > 0 {
		d.complain(join(p, "sudo"), "remove sudo or admin", "an admin may run everything already")
	}
	d.unique(join(p, "sudo"), len(u.Sudo), func(j int) (string, string) { return "", u.Sudo[j] })
	for j, command := range u.Sudo {
		checkLine(d, at(join(p, "sudo"), j), command)
	}
}

// checkKey checks a line of authorized_keys; seen has the keys before it.
func checkKey(d *document, p, line string, index int, seen map[string]int) {
	const hint = "paste the one line of a .pub file, as ssh-ed25519 AAAA... you@host"
	line = strings.TrimSpace(line)
	switch {
	case strings.Contains(line, "PRIVATE KEY"):
		d.complain(p, "use the .pub file beside it, and make a new key if this manifest has been shared", "is a private key")
		return
	case strings.ContainsAny(line, "\n\r"):
		d.complain(p, hint, "has more than one line")
		return
	case hasControl(line):
		d.complain(p, hint, "has a control character, such as a tab, in it")
		return
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		d.complain(p, hint, "is not an ssh public key")
		return
	}
	const another = "make an ed25519 key: ssh-keygen -t ed25519"
	switch _, certificate := key.(*ssh.Certificate); {
	case key.Type() == "ssh-dss":
		d.complain(p, another, "is a DSA key, which sshd refuses")
		return
	case certificate:
		d.complain(p, "use the .pub file without -cert in its name; who has a certificate of the cluster needs no key here", "is a certificate, not a key")
		return
	case !slices.Contains(keyTypes(), key.Type()):
		d.complain(p, another, "is a key of type %s, which sshd does not know", show(key.Type()))
		return
	}
	if first, ok := seen[string(key.Marshal())]; ok {
		d.complain(p, "", "is the same key as the one in sshKeys[%d]", first)
		return
	}
	seen[string(key.Marshal())] = index
}

func checkSSH(d *document, s *provisionrv1.Ssh) {
	first := map[string]string{}
	for _, keyword := range slices.Sorted(maps.Keys(s.GetSettings())) {
		p, fold := under("spec.ssh.settings", keyword), strings.ToLower(keyword)
		if instead, ok := oursInSSH()[fold]; ok {
			d.complain(p, instead, "%s would fight what Provisionr writes", keyword)
			continue
		}
		if before, ok := first[fold]; ok {
			d.complain(p, "", "%s is given twice, first as %s", keyword, before)
			continue
		}
		first[fold] = keyword
		checkLine(d, p, s.Settings[keyword])
	}
}

// oursInSSH are keywords of sshd_config(5), in small letters, that are decided elsewhere, with where.
func oursInSSH() map[string]string {
	const (
		passwords   = "use spec.ssh.passwordLogin"
		authorities = "certificates are those of the cluster: remove it, or set spec.ssh.certificatesDisabled"
		keys        = "declare keys in spec.users[].sshKeys"
		structure   = "write the settings out"
	)
	return map[string]string{
		"passwordauthentication": passwords, "kbdinteractiveauthentication": passwords, "challengeresponseauthentication": passwords,
		"trustedusercakeys": authorities, "hostcertificate": authorities, "authorizedprincipalsfile": authorities,
		"authorizedprincipalscommand": authorities, "authorizedprincipalscommanduser": authorities,
		"authorizedkeysfile": keys, "pubkeyauthentication": keys,
		"include": structure, "match": structure,
		"port": "sshd listens on port 22, which spec.firewall.sshFrom opens", "listenaddress": "spec.firewall.sshFrom says who may connect",
	}
}

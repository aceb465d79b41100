package prove

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	dpkgStatus = "/var/lib/dpkg/status"
	aptLists   = "/var/lib/apt/lists"
	aptSources = "/etc/apt/sources.list.d"
	// maxHashed is the size up to which a download is hashed for the proof: larger ones are hashed by their resource when
	// anything about them changed.
	maxHashed = 16 << 20
)

// unpacked is what dpkg's status file says of one package (dpkg-query(1), deb822(5)).
type unpacked struct {
	version         string
	installed, held bool
}

// packages looks into dpkg's own record for what is installed, in which version, held or not, and into the signed indices
// of a repository for whether that version is from there. Systems without dpkg are left to the resource.
func (p *Prover) packages(s *desired.State) verdict {
	wanted := s.Pool.GetPackages()
	content, err := p.host.ReadFile(dpkgStatus)
	if err != nil || len(wanted) == 0 {
		return nothing
	}
	found, provided := stanzas(content)
	expected := "packages as desired"
	var wrong []string
	for _, w := range wanted {
		got := found[w.Name]
		switch {
		case w.Absent && got.installed:
			wrong = append(wrong, w.Name+" "+got.version+" is installed")
		case w.Absent, !got.installed && w.Version == "" && provided[w.Name]:
		case !got.installed:
			wrong = append(wrong, w.Name+" is not installed")
		case w.Version != "" && got.version != w.Version:
			wrong = append(wrong, fmt.Sprintf("%s is %s, not %s", w.Name, got.version, w.Version))
		case w.Hold && !got.held:
			wrong = append(wrong, w.Name+" is not held back")
		case w.Repository != "":
			if from, known := p.isFrom(s, w, got.version); known && !from {
				wrong = append(wrong, fmt.Sprintf("%s %s is not from repository %s", w.Name, got.version, w.Repository))
			}
		}
	}
	return mismatch(expected, wrong, repairs)
}

// stanzas reads dpkg's status file: the packages, and the names that installed ones stand for.
func stanzas(content []byte) (map[string]unpacked, map[string]bool) {
	found, provided := make(map[string]unpacked), make(map[string]bool)
	for stanza := range bytes.SplitSeq(content, []byte("\n\n")) {
		var name, provides string
		var p unpacked
		for line := range bytes.Lines(stanza) {
			key, value, ok := bytes.Cut(line, []byte(": "))
			if !ok || line[0] == ' ' {
				continue
			}
			switch text := string(bytes.TrimSpace(value)); string(key) {
			case "Package":
				name = text
			case "Version":
				p.version = text
			case "Provides":
				provides = text
			case "Status":
				p.installed = strings.HasSuffix(text, " ok installed") || strings.HasSuffix(text, " triggers-pending") || strings.HasSuffix(text, " triggers-awaited")
				p.held = strings.HasPrefix(text, "hold ")
			}
		}
		if old, second := found[name]; name == "" || second && old.installed {
			continue // a second architecture
		}
		found[name] = p
		if !p.installed {
			continue
		}
		for v := range strings.SplitSeq(provides, ",") {
			virtual, _, _ := strings.Cut(strings.TrimSpace(v), " ")
			provided[virtual] = true
		}
	}
	return found, provided
}

// isFrom looks for a version in the indices that apt has fetched, and verified, from a repository. Nothing is known where
// they are not kept, or compressed.
func (p *Prover) isFrom(s *desired.State, w *agentv1.Package, version string) (from, known bool) {
	at := slices.IndexFunc(s.Pool.GetRepositories(), func(r *agentv1.Repository) bool { return r.Name == w.Repository })
	if at < 0 {
		return false, false
	}
	for _, name := range p.lists(s.Pool.Repositories[at], "_Packages") {
		index, err := p.host.ReadFile(path.Join(aptLists, name))
		if err != nil {
			continue
		}
		known = true
		for stanza := range bytes.SplitSeq(index, []byte("\n\n")) {
			stanza = append([]byte("\n"), append(bytes.TrimSpace(stanza), '\n')...)
			if bytes.Contains(stanza, []byte("\nPackage: "+w.Name+"\n")) && bytes.Contains(stanza, []byte("\nVersion: "+version+"\n")) {
				return true, true
			}
		}
	}
	return false, known
}

// lists are the files of a repository in apt's folder of lists: the address, without its scheme, with _ for each slash.
func (p *Prover) lists(r *agentv1.Repository, ending string) []string {
	root, err := p.host.Open()
	if err != nil {
		return nil
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), strings.TrimPrefix(aptLists, "/"))
	if err != nil {
		return nil
	}
	var names []string
	for _, uri := range r.Uris {
		_, place, _ := strings.Cut(strings.TrimSuffix(uri, "/"), "://")
		prefix := strings.ReplaceAll(place, "/", "_") + "_"
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), ending) {
				names = append(names, e.Name())
			}
		}
	}
	return names
}

// repositories looks for the sources with their keys. That apt keeps an index at all proves its signature.
func (p *Prover) repositories(wanted []*agentv1.Repository) verdict {
	if _, err := p.host.ReadFile(dpkgStatus); err != nil {
		return nothing
	}
	var wrong []string
	for _, r := range wanted {
		content, err := p.host.ReadFile(path.Join(aptSources, r.Name+".sources"))
		switch text := string(content); {
		case err != nil:
			wrong = append(wrong, r.Name+": no source")
		case !strings.Contains(text, "Signed-By:"):
			wrong = append(wrong, r.Name+": its source names no key")
		case slices.ContainsFunc(r.Uris, func(uri string) bool { return !strings.Contains(text, uri) }):
			wrong = append(wrong, r.Name+": its source has other addresses")
		}
	}
	return mismatch("repositories as desired", wrong, repairs)
}

// downloads hashes what was fetched.
func (p *Prover) downloads(wanted []*agentv1.Download) verdict {
	root, err := p.host.Open()
	if err != nil {
		return nothing
	}
	defer root.Close()
	var wrong []string
	for _, d := range wanted {
		info, err := root.Lstat(strings.TrimPrefix(d.Path, "/"))
		switch {
		case err != nil:
			wrong = append(wrong, d.Path+" is missing")
		case d.Extract && !info.IsDir():
			wrong = append(wrong, d.Path+" is no directory")
		case !d.Extract && !info.Mode().IsRegular():
			wrong = append(wrong, d.Path+" is no file")
		case !d.Extract && info.Size() <= maxHashed:
			content, err := p.host.ReadFile(d.Path)
			if sum := sha256.Sum256(content); err != nil || !bytes.Equal(sum[:], d.Sha256) {
				wrong = append(wrong, d.Path+" has another hash")
			}
		}
	}
	return mismatch("downloads as desired", wrong, repairs)
}

// files compares what is given word for word, and the kind of everything else. Texts of secrets are not looked at.
func (p *Prover) files(s *desired.State) verdict {
	root, err := p.host.Open()
	if err != nil || len(s.Pool.GetFiles()) == 0 {
		return nothing
	}
	defer root.Close()
	var wrong []string
	for _, f := range s.Pool.GetFiles() {
		info, err := root.Lstat(strings.TrimPrefix(f.Path, "/"))
		if f.GetAbsent() {
			if err == nil {
				wrong = append(wrong, f.Path+" is there")
			}
			continue
		}
		if err != nil {
			problem := f.Path + " cannot be looked at"
			if errors.Is(err, fs.ErrNotExist) {
				problem = f.Path + " is missing"
			}
			wrong = append(wrong, problem)
			continue
		}
		switch source := f.Source.(type) {
		case *agentv1.File_Link:
			if target, err := root.Readlink(strings.TrimPrefix(f.Path, "/")); err != nil || target != source.Link {
				wrong = append(wrong, fmt.Sprintf("%s is no link to %s", f.Path, source.Link))
			}
		case *agentv1.File_Directory:
			if !info.IsDir() {
				wrong = append(wrong, f.Path+" is no directory")
			}
		case *agentv1.File_Content:
			if content, err := p.host.ReadFile(f.Path); err != nil || !info.Mode().IsRegular() || !bytes.Equal(content, source.Content) {
				wrong = append(wrong, f.Path+" has other content")
			}
		default:
			if !info.Mode().IsRegular() {
				wrong = append(wrong, f.Path+" is no file")
			}
		}
	}
	return mismatch("files as desired", wrong, repairs)
}

// users looks into the databases of accounts, and at the keys as sshd would read them.
func (p *Prover) users(s *desired.State) verdict {
	if len(s.Pool.GetUsers())+len(s.Pool.GetGroups()) == 0 {
		return nothing
	}
	accounts, err := p.database("/etc/passwd")
	groups, err2 := p.database("/etc/group")
	if err != nil || err2 != nil {
		return nothing
	}
	var wrong []string
	for _, u := range s.Pool.GetUsers() {
		account, exists := accounts[u.Name]
		switch {
		case u.Absent && exists:
			wrong = append(wrong, "account "+u.Name+" is there")
		case u.Absent:
		case !exists || len(account) < 7:
			wrong = append(wrong, "account "+u.Name+" is missing")
		case u.Uid != 0 && account[2] != fmt.Sprint(u.Uid):
			wrong = append(wrong, fmt.Sprintf("account %s has uid %s, not %d", u.Name, account[2], u.Uid))
		case u.Shell != "" && account[6] != u.Shell:
			wrong = append(wrong, fmt.Sprintf("account %s has shell %s, not %s", u.Name, account[6], u.Shell))
		default:
			content, _ := p.host.ReadFile(path.Join(account[5], ".ssh/authorized_keys")) // without keys there is no file
			if !maps.Equal(keySet(strings.Split(string(content), "\n")), keySet(u.SshKeys)) {
				wrong = append(wrong, "account "+u.Name+" has other keys")
			}
			for _, g := range u.Groups {
				if line := groups[g]; len(line) < 4 || !slices.Contains(strings.Split(line[3], ","), u.Name) && line[2] != account[3] {
					wrong = append(wrong, fmt.Sprintf("account %s is not in group %s", u.Name, g))
				}
			}
		}
	}
	for _, g := range s.Pool.GetGroups() {
		line, exists := groups[g.Name]
		switch {
		case g.Absent && exists:
			wrong = append(wrong, "group "+g.Name+" is there")
		case g.Absent:
		case !exists || len(line) < 3:
			wrong = append(wrong, "group "+g.Name+" is missing")
		case g.Gid != 0 && line[2] != fmt.Sprint(g.Gid):
			wrong = append(wrong, fmt.Sprintf("group %s has gid %s, not %d", g.Name, line[2], g.Gid))
		}
	}
	return mismatch("users as desired", wrong, repairs)
}

// database reads passwd(5) or group(5): the fields of each line by name.
func (p *Prover) database(name string) (map[string][]string, error) {
	content, err := p.host.ReadFile(name)
	if err != nil {
		return nil, err
	}
	lines := make(map[string][]string)
	for line := range strings.Lines(string(content)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) > 2 {
			lines[fields[0]] = fields
		}
	}
	return lines, nil
}

// keySet is the keys of authorized_keys(5), each cut down to the line without space around it.
func keySet(lines []string) map[string]bool {
	set := make(map[string]bool)
	for _, line := range lines {
		if line = strings.TrimSpace(line); cmp.Or(line, "#")[0] != '#' {
			set[line] = true
		}
	}
	return set
}

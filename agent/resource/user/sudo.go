package user

import (
	"context"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	sudoersDir    = "/etc/sudoers.d"
	sudoersPrefix = "provisionr-"
)

// sudoers returns the file that gives an account its right to sudo without a password (sudoers(5)), or its absence.
func sudoers(u *agentv1.User) (conffile.File, error) {
	f := conffile.File{Path: sudoersDir + "/" + sudoersPrefix + u.Name, Mode: 0o440, Public: true, Absent: u.Absent || !u.Admin && len(u.Sudo) == 0}
	if f.Absent {
		return f, nil
	}
	if u.Admin {
		f.Content = []byte(u.Name + " ALL=(ALL:ALL) NOPASSWD: ALL\n")
		return f, nil
	}
	var b strings.Builder
	for _, c := range u.Sudo {
		escaped, err := sudoCommand(c)
		if err != nil {
			return f, errs.New(errs.Invalid, "cannot give %s the right to sudo: %w", u.Name, err)
		}
		b.WriteString(u.Name + " ALL=(root) NOPASSWD: " + escaped + "\n")
	}
	f.Content = []byte(b.String())
	return f, nil
}

// sudoCommand returns a command with its arguments as sudoers(5) writes it: it stands for itself, letter by letter. A
// command without arguments allows any, as it does there; with "" in their place it allows none.
func sudoCommand(line string) (string, error) {
	words := strings.Fields(line)
	switch {
	case len(words) == 0, !strings.HasPrefix(words[0], "/"):
		return "", errs.New(errs.Invalid, "command %q is no absolute path", line)
	// A pattern, or a directory, would allow programs that nobody listed.
	case strings.ContainsAny(words[0], `*?[]!\`), strings.HasSuffix(words[0], "/"):
		return "", errs.New(errs.Invalid, "command %q does not name one program", line)
	// No version reads back what another one's rules make of it.
	case strings.Contains(line, `\`), strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", errs.New(errs.Invalid, "command %q has a backslash or a control character", line)
	}
	words[0] = sudoSpecial.Replace(words[0])
	for i, w := range words[1:] {
		w = sudoPattern.Replace(sudoSpecial.Replace(w))
		// Arguments between ^ and $ would be a regular expression.
		if i == 0 && strings.HasPrefix(w, "^") {
			w = `\` + w
		}
		words[i+1] = w
	}
	return strings.Join(words, " "), nil
}

var (
	// sudoSpecial escapes what ends a command in sudoers(5).
	sudoSpecial = strings.NewReplacer(",", `\,`, ":", `\:`, "=", `\=`, "#", `\#`)
	// sudoPattern escapes what fnmatch(3) understands.
	sudoPattern = strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`, "!", `\!`)
)

// writeSudoers has visudo check the file before it is in place.
func (a *account) writeSudoers(ctx context.Context) error {
	if a.sudoers.Absent {
		return conffile.Apply(a.host, &a.sudoers)
	}
	if d, err := conffile.Check(a.host, &a.sudoers, &a.seen[0]); err != nil || d == "" {
		return err
	}
	_, err := command.Run(ctx, a.host, host.Command{
		Path: "visudo", Args: []string{"-c", "-q", "-f", "-"}, Stdin: strings.NewReader(string(a.sudoers.Content)), Timeout: accountTimeout,
	})
	if err != nil {
		return errs.New(errs.Conflict, "cannot give %s the right to sudo: %w", a.want.Name, err).WithHint("see that package sudo is installed")
	}
	return conffile.Apply(a.host, &a.sudoers)
}

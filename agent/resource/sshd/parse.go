package sshd

import "strings"

// includeLine makes the drop-ins count where the main file has no such line itself.
const includeLine = "Include /etc/ssh/sshd_config.d/*.conf"

// keyword returns a line's keyword in small letters and its arguments. Blank lines and comments have none. Keyword and
// arguments are separated by blanks or by one equals sign (sshd_config(5)).
func keyword(line string) (word, rest string) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", ""
	}
	if i := strings.IndexAny(line, " \t="); i >= 0 {
		word, rest = line[:i], strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line[i:]), "="))
	} else {
		word = line
	}
	return strings.ToLower(strings.Trim(word, `"`)), rest
}

// included reports whether the drop-ins come before every setting of the main file.
func included(config string) bool {
	for line := range strings.Lines(config) {
		word, rest := keyword(line)
		if word == "" {
			continue
		}
		if word != "include" {
			return false
		}
		for f := range strings.FieldsSeq(rest) {
			switch strings.Trim(f, `"`) {
			case "/etc/ssh/sshd_config.d/*.conf", "sshd_config.d/*.conf", "/etc/ssh/sshd_config.d/*":
				return true
			}
		}
	}
	return false
}

// withInclude returns the main file with the drop-ins first.
func withInclude(config string) string {
	if included(config) {
		return config
	}
	return includeLine + "\n" + config
}

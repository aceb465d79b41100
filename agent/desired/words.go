package desired

import (
	"slices"
	"strings"
)

// The rules repeat what servers refuse at admission: a resource may put these strings into files and commands. They are
// written out, because every start of the agent would compile regular expressions for longer than it reads the state.

// lowers reports whether there are only small letters, digits and some more characters in s.
func lowers(s, more string) bool {
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte(more, c) >= 0) {
			return false
		}
	}
	return true
}

// letters is lowers with capitals.
func letters(s, more string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; !(c >= 'a' && c <= 'z' || s[i] >= '0' && s[i] <= '9' || strings.IndexByte(more, s[i]) >= 0) {
			return false
		}
	}
	return true
}

// within reports whether s has from least to most bytes.
func within(s string, least, most int) bool { return len(s) >= least && len(s) <= most }

// enclosed reports whether s begins and ends with a small letter, a digit or one of some more characters.
func enclosed(s, more string) bool {
	return s != "" && lowers(s[:1], more) && lowers(s[len(s)-1:], more)
}

// isLabel reports whether s is a name of an object: a label of RFC 1123 section 2.1 in small letters.
func isLabel(s string) bool { return within(s, 1, 63) && lowers(s, "-") && enclosed(s, "") }

// isHost reports whether s is a name in DNS, of labels that may have underscores, in small letters.
func isHost(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !within(label, 1, 63) || !lowers(label, "-_") || !enclosed(label, "_") {
			return false
		}
	}
	return true
}

func isPackage(s string) bool { return within(s, 2, 128) && lowers(s, "+.-") && lowers(s[:1], "") }

// isVersion reports whether s is empty or can be a version of a package.
func isVersion(s string) bool {
	return s == "" || s[0] >= '0' && s[0] <= '9' && letters(s, ".+:~-")
}

func isUser(s string) bool {
	return within(s, 1, 32) && lowers(s, "_-") && s[0] != '-' && (s[0] < '0' || s[0] > '9')
}

func isRepository(s string) bool { return lowers(s, "-_.") && enclosed(s, "") }

// isNoProxy reports whether s can be in a list of hosts without proxy.
func isNoProxy(s string) bool { return s != "" && letters(s, ".:/*-") }

// isKey reports whether s is a public key without comment: a type and base64.
func isKey(s string) bool {
	kind, key, found := strings.Cut(s, " ")
	key = strings.TrimRight(key, "=")
	return found && kind != "" && lowers(kind, "@.-") && key != "" && letters(key, "+/")
}

// isProgram reports whether s is a program and its architecture.
func isProgram(s string) bool {
	name, arch, found := strings.Cut(s, "/")
	return found && name != "" && lowers(name, "-") && arch != "" && lowers(arch, "")
}

var unitTypes = []string{"service", "socket", "timer", "target", "path", "mount", "automount", "swap", "slice"}

func isUnit(s string) bool {
	dot := strings.LastIndexByte(s, '.')
	return dot > 0 && dot <= 255 && letters(s[:dot], `:_.@\-`) && slices.Contains(unitTypes, s[dot+1:])
}

// isKeyword reports whether s can be a setting of sshd.
func isKeyword(s string) bool {
	return within(s, 2, 63) && letters(s, "") && (s[0] < '0' || s[0] > '9')
}

func isSysctl(s string) bool {
	return within(s, 2, 128) && s[0] >= 'a' && s[0] <= 'z' && letters(s, "_.*/-")
}

func isModule(s string) bool { return within(s, 1, 63) && letters(s, "_-") }

// isTimezone reports whether s is empty or can be the name of a time zone.
func isTimezone(s string) bool {
	if s == "" {
		return true
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || !letters(part, "_+-") {
			return false
		}
	}
	return true
}

// isLocale reports whether s is empty or can be LANGUAGE.CODESET@MODIFIER, of which the latter two may be missing.
func isLocale(s string) bool {
	if s == "" {
		return true
	}
	rest, modifier, modified := strings.Cut(s, "@")
	language, codeset, coded := strings.Cut(rest, ".")
	word := func(s string) bool { return s != "" && letters(s, "_-") }
	return word(language) && (!coded || word(codeset)) && (!modified || word(modifier))
}

// isOption reports whether s can be an option of mount(8).
func isOption(s string) bool { return s != "" && letters(s, "_.=:-") }

func isFilesystemLabel(s string) bool { return within(s, 0, 11) && letters(s, "_-") }

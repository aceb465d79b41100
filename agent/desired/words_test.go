package desired

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestWords compares each rule with the regular expression that says the same.
func TestWords(t *testing.T) {
	for expression, rule := range map[string]func(string) bool{
		`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`:                                              isLabel,
		`^([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?$`: isHost,
		`^[a-z0-9][a-z0-9+.-]{1,127}$`:                                                      isPackage,
		`^([0-9][A-Za-z0-9.+:~-]*)?$`:                                                       isVersion,
		`^[a-z_][a-z0-9_-]{0,31}$`:                                                          isUser,
		`^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$`:                                                 isRepository,
		`^[A-Za-z0-9.:/*-]+$`:                                                               isNoProxy,
		`^[a-z0-9@.-]+ [A-Za-z0-9+/]+=*$`:                                                   isKey,
		`^[a-z0-9-]+/[a-z0-9]+$`:                                                            isProgram,
		`^[A-Za-z][A-Za-z0-9]{1,62}$`:                                                       isKeyword,
		`^[a-z][A-Za-z0-9_.*/-]{1,127}$`:                                                    isSysctl,
		`^[A-Za-z0-9_-]{1,63}$`:                                                             isModule,
		`^([A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*)?$`:                                           isTimezone,
		`^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?(@[A-Za-z0-9_-]+)?)?$`:                          isLocale,
		`^[A-Za-z0-9_.=:-]+$`:                                                               isOption,
		`^[A-Za-z0-9_-]{0,11}$`:                                                             isFilesystemLabel,
		`^[A-Za-z0-9:_.@\\-]{1,255}\.(service|socket|timer|target|path|mount|automount|swap|slice)$`: isUnit,
	} {
		pattern := regexp.MustCompile(expression)
		same := func(t rapid.TB, s string) {
			if pattern.MatchString(s) != rule(s) {
				t.Fatalf("%s: %q", expression, s)
			}
		}
		for _, n := range []int{0, 1, 2, 10, 11, 12, 31, 32, 33, 62, 63, 64, 65, 126, 127, 128, 129, 253, 254, 255, 256} {
			for _, c := range []string{"a", "Z", "0", "_", "-", "."} {
				for _, end := range []string{"", "-", ".", "_", ".service", ".slice", "\n", "=", "é"} {
					same(t, strings.Repeat(c, n)+end)
					same(t, "a."+strings.Repeat(c, n)+end)
				}
			}
		}
		one := rapid.Custom(func(t *rapid.T) string {
			return rapid.StringMatching(strings.ReplaceAll(expression, "127", "7")).Draw(t, "matching")
		})
		rapid.Check(t, func(t *rapid.T) {
			same(t, one.Draw(t, "right"))
			same(t, rapid.StringOfN(rapid.RuneFrom([]rune("azAZ09-_./@ =+:~*\\\n\x00é")), -1, 8, -1).Draw(t, "any"))
		})
	}
}

package textdiff_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

func TestContents(t *testing.T) {
	for _, c := range []struct {
		name, before, after string
		secret              bool
		want                string
	}{
		{"equal", "a\n", "a\n", false, ""},
		{"new", "", "a\nb\n", false, "/f:\n+a\n+b"},
		{"changed line", "a\nb\nc\n", "a\nx\nc\n", false, "/f:\n-b\n+x"},
		{"two places", "a\nb\nc\nd\n", "b\nc\nd\ne\n", false, "/f:\n-a\n+e"},
		{"newline at the end", "a", "a\n", false, "/f:\n-a (no newline at end)\n+a"},
		{"secret", "password=1\n", "password=2\n", true, "/f: content differs (11 bytes, wanted 11); not shown, because not everybody may read it"},
		{"binary", "\x00", "a\n", false, "/f: content differs (1 bytes, wanted 2); not text"},
	} {
		if got := textdiff.Contents("/f", []byte(c.before), []byte(c.after), c.secret); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDiffIsBoundedAndTellsEveryChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.StringMatching(`[a-cä]{0,40}`), 0, 400)
		before := strings.Join(lines.Draw(t, "before"), "\n")
		after := strings.Join(lines.Draw(t, "after"), "\n")
		got := textdiff.Contents("/f", []byte(before), []byte(after), false)
		if (got == "") != (before == after) {
			t.Fatalf("diff %q of %q and %q", got, before, after)
		}
		if len(got) > textdiff.Max || !utf8.ValidString(got) {
			t.Fatalf("diff of %d bytes, valid %v", len(got), utf8.ValidString(got))
		}
	})
}

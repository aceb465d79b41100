package fstab_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/resource/internal/fstab"
)

const table = `# /etc/fstab
UUID=0a3407de / ext4 errors=remount-ro 0 1
/swap\040file none swap sw 0 0
  LABEL=x	/my\040data	xfs	defaults
broken line

`

func TestParse(t *testing.T) {
	want := []fstab.Entry{{"UUID=0a3407de", "/", "ext4"}, {"/swap file", "none", "swap"}, {"LABEL=x", "/my data", "xfs"}}
	if diff := cmp.Diff(want, fstab.Parse(table)); diff != "" {
		t.Error(diff)
	}
	for field, want := range map[string]string{`a\134b`: `a\b`, `a\`: `a\`, `\04`: `\04`, `\999x`: `\999x`, `\011`: "\t"} {
		if got := fstab.Unescape(field); got != want {
			t.Errorf("%q is %q, want %q", field, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(table)
	f.Fuzz(func(t *testing.T, table string) {
		for _, e := range fstab.Parse(table) {
			if e.Source == "" || e.Target == "" || e.Type == "" || strings.HasPrefix(e.Source, "#") {
				t.Errorf("%+v", e)
			}
		}
	})
}

package tmpl_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/tmpl"
)

func sample() tmpl.Data {
	return tmpl.Sample("zk", "provisionr.internal", 3, map[string]string{"port": "2181"})
}

func TestRender(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                  "plain",
		"{{ .Machine.Index }}\n": "1\n",
		"{{ range .Pool.Members }}server.{{ .Index }}={{ .FQDN }}:2888:3888\n{{ end }}":   "server.1=zk-1.provisionr.internal:2888:3888\nserver.2=zk-2.provisionr.internal:2888:3888\nserver.3=zk-3.provisionr.internal:2888:3888\n",
		"{{ .Vars.port }} {{ upper .Machine.Name }} {{ lower `AbC` }} {{ quote `a\"b` }}": `2181 ZK-1 abc "a\"b"`,
		"{{ join .Pool.Members `,` }}":                                                          "zk-1,zk-2,zk-3",
		"{{ index .Pool.Members 2 }}":                                                           "zk-3",
		"{{ printf `%02d` .Machine.Index }}":                                                    "01",
		"{{ .Machine.ID }} {{ .Machine.Pool }} {{ .Pool.Domain }}":                              "m-aaaaaaaaaaaaaaaa zk provisionr.internal",
		"{{ define `a` }}x{{ end }}{{ template `a` }}":                                          "x",
		"{{ range 3 }}{{ . }}{{ else }}none{{ end }}":                                           "012",
		"{{ with .Machine }}{{ .Address }}{{ end }}":                                            "192.0.2.1",
		"{{ range .Pool.Members }}{{ if eq .Index 2 }}{{ break }}{{ end }}{{ .Name }}{{ end }}": "zk-1",
	} {
		got, err := tmpl.Render(text, sample())
		if err != nil || string(got) != want {
			t.Errorf("Render(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a\n{{ .Vars.gone }}":          `line 2:9: <.Vars.gone>: map has no entry for key "gone"`,
		"{{ .Machine.Nmae }}":          "line 1:12: <.Machine.Nmae>: can't evaluate field Nmae in type tmpl.Machine",
		"{{ if }}":                     "line 1: missing value for if",
		"one\ntwo {{ frobnicate }}":    `line 2: function "frobnicate" not defined`,
		"{{ index .Pool.Members 7 }}":  "line 1:4: <index .Pool.Members 7>: error calling index: index out of range: 7",
		"{{ range .Pool.Members }}":    "line 1: unexpected EOF",
		"{{ join .Machine.Name `,` }}": "line 1:4: <join .Machine.Name `,`>: error calling join: join takes a list, not string",
		"{{ env `HOME` }}":             `line 1: function "env" not defined`,
		"{{ template `none` }}":        `line 1:13: <{{template "none"}}>: template "none" not defined`,
	} {
		_, err := tmpl.Render(text, sample())
		var e *tmpl.Error
		if !errors.As(err, &e) || err.Error() != want {
			t.Errorf("Render(%q):\n got %v\nwant %s", text, err, want)
		}
	}
}

// cpu returns the CPU time that the process has used, which a busy machine does not change.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// Hostile templates must fail fast instead of filling memory or running for ever.
func TestBounds(t *testing.T) {
	double := "{{ $x := `0123456789` }}" + strings.Repeat("{{ $x = print $x $x }}", 60)
	for name, text := range map[string]string{
		"output":           "{{ range 200000 }}0123456789{{ end }}",
		"silent loop":      "{{ range 100000000000 }}{{ end }}",
		"silent if loop":   "{{ range 100000000000 }}{{ if true }}{{ else }}{{ end }}{{ end }}",
		"nested loops":     "{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}",
		"recursion":        "{{ define `a` }}{{ template `a` }}{{ end }}{{ template `a` }}",
		"branching":        "{{ define `a` }}{{ if lt . 60 }}{{ template `b` . }}{{ end }}{{ end }}{{ define `b` }}{{ template `a` . }}{{ template `a` . }}{{ end }}{{ template `a` 1 }}",
		"doubling":         double,
		"escaping":         "{{ $x := `\\\\` }}" + strings.Repeat("{{ $x = js $x }}", 60),
		"quoting":          "{{ $x := `\\\\` }}" + strings.Repeat("{{ $x = quote $x }}", 60),
		"printf repeating": "{{ $x := printf `%100000d` 1 }}{{ printf `" + strings.Repeat("%[1]s", 30) + "` $x }}",
		"many verbs":       "{{ printf `" + strings.Repeat("%1000000d", 100) + "` 1 }}",
	} {
		t.Run(name, func(t *testing.T) {
			start := cpu(t)
			out, err := tmpl.Render(text, sample())
			if err == nil {
				t.Fatalf("rendered %d bytes", len(out))
			}
			if took := cpu(t) - start; took > 10*time.Second {
				t.Errorf("took %v of CPU time", took)
			}
		})
	}
}

func TestCheckLooksAtTheLastMachineToo(t *testing.T) {
	text := "{{ index .Pool.Members .Machine.Index }}" // the next member: the last machine has none
	if _, err := tmpl.Render(text, sample()); err != nil {
		t.Fatal(err)
	}
	if err := tmpl.Check(text, sample()); err == nil {
		t.Error("a template that fails on the last machine passed")
	}
}

func TestSampleIsBounded(t *testing.T) {
	for size, want := range map[int]int{0: 1, 1: 1, 3: 3, 10000: 64} {
		if got := len(tmpl.Sample("p", "d", size, nil).Pool.Members); got != want {
			t.Errorf("size %d gave %d members, want %d", size, got, want)
		}
	}
}

func FuzzRender(f *testing.F) {
	f.Add("{{ range .Pool.Members }}{{ .Name }}{{ end }}")
	f.Add("{{ define `a` }}{{ end }}{{ block `b` . }}{{ end }}")
	f.Fuzz(func(t *testing.T, text string) {
		out, err := tmpl.Render(text, sample())
		if len(out) > tmpl.MaxOutput || (err != nil && out != nil) {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	})
}

package tmpl_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/internal/tmpl"
)

func withSecrets(values map[string]string) tmpl.Data {
	d := sample()
	d.Secret = func(name string) (string, error) {
		v, ok := values[name]
		if !ok {
			return "", errUnset
		}
		return v, nil
	}
	return d
}

var errUnset = errors.New("it has no value")

func TestSecret(t *testing.T) {
	data := withSecrets(map[string]string{"db": "hunter2"})
	for text, want := range map[string]string{
		`pw={{ secret "db" }}`:                                "pw=hunter2",
		`{{ secret "db" | quote }} {{ upper (secret "db") }}`: `"hunter2" HUNTER2`,
		"{{ with $x := secret `db` }}{{ $x }}{{ end }}":       "hunter2",
	} {
		if got, err := tmpl.Render(text, data); err != nil || string(got) != want {
			t.Errorf("Render(%q) = %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		`{{ secret .Vars.port }}`:                    `line 1:4: <secret .Vars.port>: secret takes one name in quotes, as secret "db-password"`,
		"x\n{{ \"db\" | secret }}":                   `line 2:11: <secret>: secret takes one name`,
		`{{ secret }}`:                               "secret takes one name",
		`{{ print secret }}`:                         "secret takes one name",
		`{{ "a" | secret "db" }}`:                    "secret takes one name",
		`{{ if false }}{{ secret $.Vars }}{{ end }}`: "secret takes one name",
		`{{ define "a" }}{{ secret . }}{{ end }}`:    "secret takes one name",
		`{{ .Secret }}`:                              "can't evaluate field Secret",
		`{{ secret "none" }}`:                        "the secret cannot be had: it has no value",
		`{{ secret "db" }}{{ secret "none" }}`:       "the secret cannot be had: it has no value",
	} {
		if _, err := tmpl.Render(text, data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Render(%q): %v, want %q", text, err, want)
		}
	}
	if _, err := tmpl.Render(`{{ secret "none" }}`, data); !errors.Is(err, errUnset) {
		t.Errorf("the cause is lost: %v", err)
	}
	if _, err := tmpl.Render(`{{ secret "db" }}`, tmpl.Data{}); err == nil {
		t.Error("a secret out of nowhere")
	}
}

// An error goes to logs and events, so it must not tell what a secret is.
func TestErrorsKeepSecrets(t *testing.T) {
	data := withSecrets(map[string]string{"db": "hunter2"})
	for _, text := range []string{
		`{{ range secret "db" }}{{ end }}`, `{{ range (upper (secret "db")) }}{{ end }}`, `{{ (secret "db").Foo }}`,
		`{{ $m := secret "db" }}{{ index .Vars.port $m }}`, `{{ template "x" secret "db" }}{{ define "x" }}{{ range . }}{{ end }}{{ end }}`,
		`{{ call (secret "db") }}`, `{{ slice (secret "db") 0 100 }}`,
	} {
		_, err := tmpl.Render(text, data)
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(strings.ToLower(e.Error()), "hunter2") {
				t.Errorf("Render(%q): %v", text, e)
			}
		}
		if err == nil {
			t.Errorf("Render(%q) is no error", text)
		}
	}
}

func TestSecrets(t *testing.T) {
	for text, want := range map[string][]string{
		"plain secret": nil,
		`{{ secret "b" }}{{ if .Vars }}{{ secret "a" }}{{ else }}{{ secret "b" | quote }}{{ end }}`:                 {"a", "b"},
		`{{ define "x" }}{{ range .Pool.Members }}{{ print (secret "in") }}{{ end }}{{ end }}`:                      {"in"},
		`{{ with secret "w" }}{{ end }}{{ template "t" secret "t" }}{{ define "t" }}{{ end }}{{/* secret "no" */}}`: {"t", "w"},
		`{{ secret .Vars.x }}`: nil,
		`{{ secret "a" `:       nil,
	} {
		if got := tmpl.Secrets(text); !slices.Equal(got, want) {
			t.Errorf("Secrets(%q) = %q, want %q", text, got, want)
		}
	}
}

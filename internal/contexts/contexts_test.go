package contexts_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/errs"
)

func TestSetSelectRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "below", "config.yaml")
	for _, c := range []contexts.Context{
		{Name: "dev", Servers: []string{"127.0.0.1:7443"}, CA: "pem", Certificate: "me.pem", Key: "/abs/me.key"},
		{Name: "prod", Servers: []string{"a:7443", "b:7443"}, CAFile: "ca.pem", Token: "pvr_x"},
	} {
		if err := contexts.Set(path, c, false); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	f, err := contexts.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.Select("")
	if err != nil || c.Name != "dev" || c.Path(c.Certificate) != filepath.Join(filepath.Dir(path), "me.pem") || c.Path(c.Key) != "/abs/me.key" || c.Path("") != "" {
		t.Errorf("current is %+v, %v", c, err)
	}
	if c, err = f.Select("prod"); err != nil || len(c.Servers) != 2 {
		t.Errorf("prod is %+v, %v", c, err)
	}
	if _, err = f.Select("none"); !errs.Is(err, errs.NotFound) || errs.HintOf(err) == "" {
		t.Errorf("none gives %v", err)
	}
	if err := contexts.Set(path, contexts.Context{Name: "prod", Servers: []string{"c:7443"}}, true); err != nil {
		t.Fatal(err)
	}
	f, _ = contexts.Load(path)
	if len(f.Contexts) != 2 || f.Current != "prod" || f.Find("prod").Servers[0] != "c:7443" {
		t.Errorf("replacing gave %+v", f)
	}
	for range 2 {
		if err := contexts.Remove(path, "prod"); err != nil {
			t.Fatal(err)
		}
	}
	f, _ = contexts.Load(path)
	if c, err := f.Select(""); err != nil || c.Name != "dev" {
		t.Errorf("the only one is not chosen: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".config-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLoadRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if f, err := contexts.Load(path); err != nil || len(f.Contexts) != 0 {
		t.Errorf("a missing file gave %v, %v", f, err)
	}
	for _, text := range []string{"contexts: 5", "nonsense: {}", "contexts: [{name: a, colour: b}]", "\t"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := contexts.Load(path); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q gave %v", text, err)
		}
	}
	if err := os.WriteFile(path, []byte("contexts: [~]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := contexts.Load(path); err != nil {
		t.Error(err)
	} else if _, err := f.Select(""); !errs.Is(err, errs.NotFound) {
		t.Errorf("no context gave %v", err)
	}
}

func TestDefaultPath(t *testing.T) {
	for name, c := range map[string]struct{ config, xdg, home, want string }{
		"config": {"/a/b.yaml", "/x", "/h", "/a/b.yaml"},
		"xdg":    {"", "/x", "/h", "/x/provisionr/config.yaml"},
		"home":   {"", "", "/h", "/h/.config/provisionr/config.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PROVISIONR_CONFIG", c.config)
			t.Setenv("XDG_CONFIG_HOME", c.xdg)
			t.Setenv("HOME", c.home)
			if got, err := contexts.DefaultPath(); err != nil || got != c.want {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
}

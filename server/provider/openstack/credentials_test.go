package openstack

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gophercloud/gophercloud/v2"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

func env(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestCredentialsFromEnvironment(t *testing.T) {
	base := map[string]string{"OS_AUTH_URL": "https://keystone/v3"}
	with := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for k, v := range base {
			m[k] = v
		}
		for n := 0; n < len(pairs); n += 2 {
			m[pairs[n]] = pairs[n+1]
		}
		return m
	}
	for _, test := range []struct {
		name  string
		env   map[string]string
		scope *gophercloud.AuthScope
		error string
	}{
		{"nothing", nil, nil, "there is no auth_url"},
		{"no user", base, nil, "neither an application credential nor a user"},
		{"no password", with("OS_USERNAME", "u"), nil, "no password"},
		{"no secret", with("OS_APPLICATION_CREDENTIAL_ID", "i"), nil, "no secret"},
		{"credential by name", with("OS_APPLICATION_CREDENTIAL_NAME", "i", "OS_APPLICATION_CREDENTIAL_SECRET", "hush"), nil, "needs its user"},
		{"application credential", with("OS_APPLICATION_CREDENTIAL_ID", "i", "OS_APPLICATION_CREDENTIAL_SECRET", "hush"), nil, ""},
		{"project by name", with("OS_USERNAME", "u", "OS_PASSWORD", "hush", "OS_PROJECT_NAME", "p", "OS_USER_DOMAIN_NAME", "ud", "OS_PROJECT_DOMAIN_NAME", "pd"),
			&gophercloud.AuthScope{ProjectName: "p", DomainName: "pd"}, ""},
		{"one domain for both", with("OS_USERNAME", "u", "OS_PASSWORD", "hush", "OS_PROJECT_NAME", "p", "OS_USER_DOMAIN_NAME", "ud"),
			&gophercloud.AuthScope{ProjectName: "p", DomainName: "ud"}, ""},
		{"project by id", with("OS_USERNAME", "u", "OS_PASSWORD", "hush", "OS_PROJECT_ID", "p", "OS_PROJECT_NAME", "n", "OS_USER_DOMAIN_ID", "d"),
			&gophercloud.AuthScope{ProjectID: "p"}, ""},
		{"token", with("OS_TOKEN", "hush", "OS_PROJECT_ID", "p"), &gophercloud.AuthScope{ProjectID: "p"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := testProvider(t)
			p.getenv = env(test.env)
			a, err := p.credentials()
			if test.error != "" {
				if provider.KindOf(err) != provider.Unauthorized || !strings.Contains(err.Error(), test.error) || !strings.Contains(err.Error(), "OS_ variables") ||
					strings.Contains(err.Error(), "hush") {
					t.Errorf("%q, want %q", err, test.error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.scope, a.auth.Scope); diff != "" {
				t.Error(diff)
			}
			if a.auth.AllowReauth == (test.env["OS_TOKEN"] != "") || a.endpoint.Availability != gophercloud.AvailabilityPublic {
				t.Errorf("%+v", a.endpoint)
			}
		})
	}
}

func TestCredentialsFromFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"clouds.yaml": "clouds:\n  c:\n    region_name: r1\n    interface: internal\n    auth: {auth_url: http://k/v3, username: u, project_name: p, user_domain_name: d}\n",
		"secure.yaml": "clouds:\n  c: {auth: {password: hush}}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("OS_CLIENT_CONFIG_FILE", filepath.Join(dir, "clouds.yaml"))
	for _, name := range []string{"OS_CLOUD", "OS_REGION_NAME", "OS_INTERFACE"} {
		t.Setenv(name, "")
	}
	p := testProvider(t)
	p.spec = &provisionrv1.OpenstackProvider{Cloud: "c"}
	a, err := p.credentials()
	if err != nil {
		t.Fatal(err)
	}
	if a.auth.Password != "hush" || a.endpoint.Region != "r1" || a.endpoint.Availability != gophercloud.AvailabilityInternal {
		t.Errorf("%+v", a.endpoint)
	}
	p.spec = &provisionrv1.OpenstackProvider{Cloud: "c", Region: "r2", Interface: "admin", Identity: &provisionrv1.Endpoint{Url: "https://other/v3"}}
	if a, err = p.credentials(); err != nil || a.endpoint.Region != "r2" || a.endpoint.Availability != gophercloud.AvailabilityAdmin || a.auth.IdentityEndpoint != "https://other/v3" {
		t.Errorf("%v %+v %s", err, a.endpoint, a.auth.IdentityEndpoint)
	}
	p.spec.Identity.Ca = "no certificate"
	if _, err := p.credentials(); provider.KindOf(err) != provider.Invalid {
		t.Errorf("a CA that is none: %v", err)
	}
	p.spec = &provisionrv1.OpenstackProvider{Cloud: "d"}
	if _, err := p.credentials(); provider.KindOf(err) != provider.Unauthorized || !strings.Contains(err.Error(), `"d" not found`) {
		t.Errorf("%v", err)
	}
}

func TestCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cached[int]
		fetched := 0
		get := func(enough bool) int {
			v, err := c.get(t.Context(), func(int) bool { return enough }, func(context.Context) (int, error) { fetched++; return fetched, nil })
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		for n, test := range []struct {
			enough bool
			want   int
		}{{true, 1}, {true, 1}, {false, 2}} {
			if got := get(test.enough); got != test.want {
				t.Errorf("call %d: %d, want %d", n, got, test.want)
			}
		}
		time.Sleep(cacheTime)
		if get(true) != 3 {
			t.Error("what is old was not fetched again")
		}
	})
}

func TestKeyed(t *testing.T) {
	var k keyed
	unlock, err := k.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.lock(ctx, "a"); err == nil {
		t.Error("two have the lock")
	}
	other, err := k.lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	if len(k.held) != 0 {
		t.Errorf("%d locks are left", len(k.held))
	}
}

func TestLingering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		longer, stop := lingering(ctx, time.Second)
		defer stop()
		cancel()
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if longer.Err() != nil {
			t.Error("it ended early")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if longer.Err() == nil {
			t.Error("it has no end")
		}
	})
}

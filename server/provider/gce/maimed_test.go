package gce_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/gce"
	"github.com/provisionr/provisionr/server/provider/gce/gcetest"
	"github.com/provisionr/provisionr/server/provider/providertest"
)

// maimed makes of the strict server one of those that know less of the API than Google does.
type maimed struct {
	next http.RoundTripper
	// lacks are the methods that are not there, as verb and path; status is what is answered instead.
	lacks  *regexp.Regexp
	status int
	body   string
	// ignores are the parameters that are not heeded.
	ignores []string
	// edits are what answers lack, in them and in all within, by verb and path.
	edits map[*regexp.Regexp][]string
}

func (m *maimed) RoundTrip(r *http.Request) (*http.Response, error) {
	what := r.Method + " " + r.URL.Path
	if m.lacks != nil && m.lacks.MatchString(what) {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return &http.Response{StatusCode: m.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(m.body)), Request: r}, nil
	}
	r = r.Clone(r.Context())
	query := r.URL.Query()
	for _, name := range m.ignores {
		query.Del(name)
	}
	r.URL.RawQuery = query.Encode()
	response, err := m.next.RoundTrip(r)
	if err != nil || response.StatusCode != http.StatusOK {
		return response, err
	}
	for path, fields := range m.edits {
		if !path.MatchString(what) {
			continue
		}
		text, err := io.ReadAll(response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return nil, err
		}
		var answer any
		if err := json.Unmarshal(text, &answer); err != nil {
			return nil, err
		}
		without(answer, fields)
		if text, err = json.Marshal(answer); err != nil {
			return nil, err
		}
		response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		response.Header.Del("Content-Length")
	}
	return response, nil
}

func without(v any, fields []string) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range fields {
			delete(v, name)
		}
		for _, x := range v {
			without(x, fields)
		}
	case []any:
		for _, x := range v {
			without(x, fields)
		}
	}
}

// optional are the methods that are done without.
var optional = regexp.MustCompile(`/wait$|/aggregated/|^PATCH |/images/family/|^GET .*/diskTypes$`)

// TestConformsToLess runs the suite against a server without these methods, that heeds no filter, no size of pages, no
// choice of fields and no request id, whose region tells neither zones nor quotas and whose operations are of no zone and
// done at once.
func TestConformsToLess(t *testing.T) {
	h := newHarness(t, gcetest.Config{Pending: 1, Running: 1})
	h.http = &http.Client{Transport: &maimed{
		next: http.DefaultTransport, lacks: optional, status: http.StatusNotImplemented, ignores: []string{"filter", "maxResults", "fields", "requestId"},
		edits: map[*regexp.Regexp][]string{
			regexp.MustCompile(`/regions/[^/]+$`):           {"quotas", "zones"},
			regexp.MustCompile(`/operations/|^POST|DELETE`): {"zone", "selfLink"},
			regexp.MustCompile(`^GET .*/instances`):         {"zone"},
		},
	}}
	c := h.suite()
	c.Many = 100
	c.Typos = c.Typos[:0]
	for _, typo := range h.suite().Typos {
		if typo.Name != "disk type" {
			c.Typos = append(c.Typos, typo)
		}
	}
	c.Without = map[providertest.Case]string{
		providertest.ResolveQuota: "the region tells no quotas",
		providertest.Pagination:   "the case counts the calls for full pages",
		providertest.LateLaunch:   "nothing but request ids remembers what is gone",
	}
	providertest.Run(t, c)
}

// TestLacks has the methods missing in each of the ways in which servers say so, and looks at the log.
func TestLacks(t *testing.T) {
	for name, m := range map[string]*maimed{
		"405": {status: http.StatusMethodNotAllowed}, "404": {status: http.StatusNotFound, body: "404 page not found\n"},
		"501":                   {status: http.StatusNotImplemented, body: `{"error": {"code": 501, "message": "not implemented", "errors": [{"reason": "notImplemented"}]}}`},
		"404 of the API's form": {status: http.StatusNotFound, body: `{"error": {"code": 404, "message": "Not Found", "errors": [{"reason": "notFound"}]}}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := gcetest.Start(t, gcetest.Config{})
			m.next, m.lacks = s.Client.Transport, regexp.MustCompile(`/wait$|/aggregated/|^PATCH `)
			var log bytes.Buffer
			p, err := gce.New(gce.Config{
				ClusterID: cluster, HTTP: &http.Client{Transport: m}, Logger: slog.New(slog.NewTextHandler(&log, nil)), Sweep: time.Nanosecond, Limiter: provider.NewLimiter(provider.Bucket{}, nil),
				Spec: &provisionrv1.GceProvider{Project: "test-project", Region: gcetest.Region, Unauthenticated: true, Compute: &provisionrv1.Endpoint{Url: s.URL}},
			})
			if err != nil {
				t.Fatal(err)
			}
			for n := range uint16(2) {
				rule := provider.FirewallRule{Protocol: "tcp", First: 22 + n, Last: 22 + n, Pool: "peer"}
				f := provider.Firewall{ClusterID: cluster, Pool: "web", Rules: []provider.FirewallRule{rule}}
				if err := p.EnsureFirewall(t.Context(), f); err != nil {
					t.Fatal(err)
				}
				if plan, err := p.PlanFirewall(t.Context(), f); err != nil || len(plan) > 0 {
					t.Errorf("what was made would be changed: %q, %v", plan, err)
				}
			}
			made, err := p.Launch(t.Context(), request(t, p, "m-0123456789abcdef", wish()))
			if err != nil {
				t.Fatal(err)
			}
			if all := list(t, p); len(all) != 1 || all[0].ProviderID != made.ProviderID {
				t.Errorf("listed are %v", all)
			}
			if err := p.Terminate(t.Context(), made.MachineID, made.ProviderID); err != nil {
				t.Error(err)
			}
			if all := list(t, p); len(all) != 0 {
				t.Errorf("left are %v", all)
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 4 { // waiting, patching, lists of instances and of disks
				t.Errorf("%d warnings:\n%s", n, log.String())
			}
		})
	}
}

// TestIgnoredFilters: a server that lists all yields neither another cluster's machines nor another pool's quota.
func TestIgnoredFilters(t *testing.T) {
	s := gcetest.Start(t, gcetest.Config{})
	at := &gcetest.Server{URL: s.URL, Client: &http.Client{Transport: &maimed{next: s.Client.Transport, ignores: []string{"filter"}}}}
	p := newProvider(t, at, gce.Config{Sweep: time.Nanosecond})
	for name, labels := range map[string]map[string]string{
		"pv-other": labelsOf("c2", "m-other"), "pv-mine": labelsOf(cluster, "m-mine"),
	} {
		if err := s.AddInstance(zoneA, instanceOf(name, "zones/"+zoneA+"/machineTypes/e2-micro", labels)); err != nil {
			t.Fatal(err)
		}
	}
	s.AddDisk(zoneA, "pv-left-0", labelsOf("c2", "m-left"))
	if all := list(t, p); len(all) != 1 || all[0].MachineID != "m-mine" {
		t.Errorf("listed are %v", all)
	}
	for _, machine := range []string{"m-other", "m-left"} {
		if err := p.Terminate(t.Context(), machine, zoneA+"/pv-other"); err != nil {
			t.Error(err)
		}
	}
	if n := len(s.Instances()); n != 2 {
		t.Errorf("there are %d instances", n)
	}
	// The pool "pt" of m-mine takes nothing off what this pool needs.
	s.SetQuota(gcetest.Region, "INSTANCES", s.Usage(gcetest.Region, "INSTANCES")+1)
	_, err := p.Resolve(t.Context(), wish(func(w *provisionrv1.Wish) { w.Count = 2 }))
	if provider.KindOf(err) != provider.QuotaExceeded {
		t.Errorf("two machines in a quota of one: %v", err)
	}
}

// TestErrorsKeepMetadata: what the API quotes of a request may be the user-data, with the machine's token.
func TestErrorsKeepMetadata(t *testing.T) {
	for _, message := range []string{
		`Invalid value for field 'resource.metadata.items[2]': '{ "key": "user-data", "value": "token: s3cret" }'. It is too large.`,
		`metadata entry user-data has the value 's3cret'`,
	} {
		s := gcetest.Start(t, gcetest.Config{})
		p := newProvider(t, s, gce.Config{})
		r := request(t, p, "m-0123456789abcdef", wish())
		refusing := &maimed{lacks: regexp.MustCompile(`^POST `), status: http.StatusBadRequest, next: s.Client.Transport}
		body, err := json.Marshal(map[string]any{"error": map[string]any{"code": 400, "message": message}})
		if err != nil {
			t.Fatal(err)
		}
		refusing.body = string(body)
		p = newProvider(t, &gcetest.Server{URL: s.URL, Client: &http.Client{Transport: refusing}}, gce.Config{})
		_, err = p.Launch(t.Context(), r)
		if provider.KindOf(err) != provider.Invalid || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "metadata") {
			t.Errorf("%v", err)
		}
	}
}

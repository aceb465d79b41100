package gce_test

import (
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/gce"
	"github.com/provisionr/provisionr/server/provider/gce/gcetest"
)

// TestEndpointWithCA reaches the API by TLS with the spec alone.
func TestEndpointWithCA(t *testing.T) {
	s, err := gcetest.New(gcetest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(s)
	defer server.Close()
	spec := &provisionrv1.GceProvider{Project: "test-project", Region: gcetest.Region, Unauthenticated: true, Compute: &provisionrv1.Endpoint{Url: server.URL}}
	p, err := gce.New(gce.Config{ClusterID: cluster, Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Resolve(t.Context(), wish()); provider.KindOf(err) != provider.Unknown {
		t.Errorf("without the ca: %v", err)
	}
	spec.Compute.Ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	if p, err = gce.New(gce.Config{ClusterID: cluster, Spec: spec}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Resolve(t.Context(), wish()); err != nil {
		t.Errorf("with the ca: %v", err)
	}
}

// TestCredentials tells what a person must do apart from what passes.
func TestCredentials(t *testing.T) {
	for _, test := range []struct {
		name           string
		issued, status int
		want           provider.Kind
		says           string
	}{
		{"good", 200, 0, "", ""},
		{"refused", 200, 401, provider.Unauthorized, "GOOGLE_APPLICATION_CREDENTIALS"},
		{"forbidden", 200, 403, provider.Unauthorized, "role"},
		{"no token for them", 400, 0, provider.Unauthorized, "gcloud auth"},
		{"issuer is ill", 503, 0, provider.Unknown, "token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			serviceAccount(t, test.issued)
			s := gcetest.Start(t, gcetest.Config{Auth: func(token string) int {
				if token != tokenSecret {
					return 401
				}
				return test.status
			}})
			p, err := gce.New(gce.Config{ClusterID: cluster, Spec: &provisionrv1.GceProvider{
				Project: "test-project", Region: gcetest.Region, Compute: &provisionrv1.Endpoint{Url: s.URL},
			}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Resolve(t.Context(), wish())
			if provider.KindOf(err) != test.want || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v (%s), want %s", err, provider.KindOf(err), test.want)
			}
			if err != nil && strings.Contains(fmt.Sprintf("%+v", err), tokenSecret) {
				t.Error("the error holds the token")
			}
		})
	}
}

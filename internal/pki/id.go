package pki

import (
	"crypto/x509"
	"net/url"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

// Kind is what sort of party an identity is.
type Kind string

// The kinds of identities.
const (
	Server Kind = "server"
	Agent  Kind = "agent"
	User   Kind = "user"
)

// ID names one party of one cluster. The name is that of a member, the id of a machine or the name of a user.
type ID struct {
	Cluster string
	Kind    Kind
	Name    string
}

// segment reports whether s is a trust domain and a path segment as the SPIFFE ID specification allows them (sections 2.1
// and 2.2), in lower case, begun by a letter or digit, and no longer than a DNS label.
func segment(s string) bool {
	for i, c := range []byte(s) {
		word := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !word && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// Valid reports whether the identity can be written as a URI and read back the same.
func (id ID) Valid() bool {
	known := id.Kind == Server || id.Kind == Agent || id.Kind == User
	return known && segment(id.Cluster) && segment(id.Name)
}

// URI returns spiffe://CLUSTER/KIND/NAME.
func (id ID) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: id.Cluster, Path: "/" + string(id.Kind) + "/" + id.Name}
}

func (id ID) String() string { return id.URI().String() }

// ParseID reads what [ID.String] wrote and nothing else. The error's kind is errs.Invalid.
func ParseID(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, "spiffe://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return ID{}, errs.New(errs.Invalid, "cannot parse identity: not of the form spiffe://CLUSTER/KIND/NAME")
	}
	id := ID{Cluster: parts[0], Kind: Kind(parts[1]), Name: parts[2]}
	if !id.Valid() {
		return ID{}, errs.New(errs.Invalid, "cannot parse identity: unknown kind, or a name with characters that are not allowed")
	}
	return id, nil
}

// FromCert returns the identity of a certificate. It does not verify the certificate.
// A certificate with no URI or several has none (X.509-SVID specification, section 2).
func FromCert(cert *x509.Certificate) (ID, error) {
	if len(cert.URIs) != 1 {
		return ID{}, errs.New(errs.Invalid, "cannot read identity: the certificate has %d URIs, not one", len(cert.URIs))
	}
	return ParseID(cert.URIs[0].String())
}

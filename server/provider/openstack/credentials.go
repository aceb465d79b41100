package openstack

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"os"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"

	"github.com/provisionr/provisionr/server/provider"
)

// access is what is needed to log in.
type access struct {
	auth     gophercloud.AuthOptions
	endpoint gophercloud.EndpointOpts
	tls      *tls.Config
	// chain says where it was looked for, for errors.
	chain string
}

// credentials follows the chain of OpenStack's own clients: the cloud's entry in clouds.yaml and secure.yaml, else the OS_
// variables. The provider's specification overrides identity endpoint, region, interface and certificates.
func (p *Provider) credentials() (access, error) {
	var a access
	var err error
	cloud := cmp.Or(p.spec.GetCloud(), p.getenv("OS_CLOUD"))
	if cloud != "" {
		where := cmp.Or(p.getenv("OS_CLIENT_CONFIG_FILE"), "./, ~/.config/openstack/ or /etc/openstack/")
		a.chain = "cloud " + cloud + " of clouds.yaml and secure.yaml in " + where
		a.auth, a.endpoint, a.tls, err = clouds.Parse(clouds.WithCloudName(cloud))
		if err != nil {
			return a, a.refused("it cannot be read: " + err.Error())
		}
	} else {
		a.chain = "no cloud is named by the provider or OS_CLOUD; the OS_ variables"
		if err = a.fromEnvironment(p.getenv); err != nil {
			return a, err
		}
	}
	a.auth.IdentityEndpoint = cmp.Or(p.spec.GetIdentity().GetUrl(), a.auth.IdentityEndpoint)
	a.endpoint.Region = cmp.Or(p.spec.GetRegion(), a.endpoint.Region)
	if i := p.spec.GetInterface(); i != "" {
		a.endpoint.Availability = gophercloud.Availability(i)
	}
	a.endpoint.Availability = cmp.Or(a.endpoint.Availability, gophercloud.AvailabilityPublic)
	if ca := p.spec.GetIdentity().GetCa(); ca != "" {
		if err := a.trust([]byte(ca), "the provider's identity.ca"); err != nil {
			return a, err
		}
	}
	a.auth.AllowReauth = a.auth.TokenID == ""
	return a, a.complete()
}

func (a *access) refused(why string) error {
	return provider.Errorf(provider.Unauthorized, "openstack: there are no usable credentials (%s): %s; "+
		"have the servers' clouds.yaml or OS_ variables name an auth_url and an application credential or a user with a project",
		a.chain, why)
}

// complete says what is missing before Keystone would, less clearly.
func (a *access) complete() error {
	o := a.auth
	switch {
	case o.IdentityEndpoint == "":
		return a.refused("there is no auth_url")
	case o.TokenID != "":
	case o.ApplicationCredentialID != "" || o.ApplicationCredentialName != "":
		if o.ApplicationCredentialSecret == "" {
			return a.refused("the application credential has no secret")
		}
		if o.ApplicationCredentialID == "" && o.UserID == "" && o.Username == "" {
			return a.refused("an application credential that is given by name needs its user")
		}
	case o.UserID == "" && o.Username == "":
		return a.refused("there is neither an application credential nor a user")
	case o.Password == "" && o.Passcode == "":
		return a.refused("the user has no password")
	}
	return nil
}

// fromEnvironment reads the variables that python-openstackclient documents; gophercloud's own reader lacks the domains of
// user and project.
func (a *access) fromEnvironment(getenv func(string) string) error {
	first := func(names ...string) string {
		i := slices.IndexFunc(names, func(n string) bool { return getenv(n) != "" })
		if i < 0 {
			return ""
		}
		return getenv(names[i])
	}
	a.auth = gophercloud.AuthOptions{
		IdentityEndpoint: getenv("OS_AUTH_URL"), UserID: first("OS_USER_ID", "OS_USERID"), Username: getenv("OS_USERNAME"),
		Password: getenv("OS_PASSWORD"), Passcode: getenv("OS_PASSCODE"), TokenID: first("OS_TOKEN", "OS_AUTH_TOKEN"),
		TenantID: first("OS_PROJECT_ID", "OS_TENANT_ID"), TenantName: first("OS_PROJECT_NAME", "OS_TENANT_NAME"),
		DomainID: first("OS_USER_DOMAIN_ID", "OS_DOMAIN_ID"), DomainName: first("OS_USER_DOMAIN_NAME", "OS_DOMAIN_NAME"),
		ApplicationCredentialID: getenv("OS_APPLICATION_CREDENTIAL_ID"), ApplicationCredentialName: getenv("OS_APPLICATION_CREDENTIAL_NAME"),
		ApplicationCredentialSecret: getenv("OS_APPLICATION_CREDENTIAL_SECRET"),
	}
	// Keystone refuses both an id and a name.
	if a.auth.DomainID != "" {
		a.auth.DomainName = ""
	}
	switch {
	case a.auth.TenantID != "":
		a.auth.TenantName = ""
		a.auth.Scope = &gophercloud.AuthScope{ProjectID: a.auth.TenantID}
	case a.auth.TenantName != "":
		a.auth.Scope = &gophercloud.AuthScope{
			ProjectName: a.auth.TenantName,
			DomainID:    cmp.Or(first("OS_PROJECT_DOMAIN_ID"), a.auth.DomainID), DomainName: first("OS_PROJECT_DOMAIN_NAME"),
		}
		switch {
		case first("OS_PROJECT_DOMAIN_ID") != "":
			a.auth.Scope.DomainName = ""
		case a.auth.Scope.DomainName != "":
			a.auth.Scope.DomainID = ""
		case a.auth.Scope.DomainID == "":
			a.auth.Scope.DomainName = a.auth.DomainName
		}
	}
	a.endpoint.Region = getenv("OS_REGION_NAME")
	a.endpoint.Availability = gophercloud.Availability(strings.TrimSuffix(first("OS_INTERFACE", "OS_ENDPOINT_TYPE"), "URL"))
	if file := getenv("OS_CACERT"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return a.refused("OS_CACERT: " + err.Error())
		}
		return a.trust(pem, "OS_CACERT")
	}
	return nil
}

// trust has only these certificates trusted.
func (a *access) trust(pem []byte, from string) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return provider.Errorf(provider.Invalid, "openstack: %s has no certificate in PEM format", from)
	}
	if a.tls == nil {
		a.tls = &tls.Config{}
	}
	a.tls.RootCAs = roots
	return nil
}

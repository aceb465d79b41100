package spec

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// ProviderKind returns the kind of a provider, as aws: the name of its field in a manifest; "" if it says none.
func ProviderKind(p *provisionrv1.Provider) string {
	m := p.GetSpec().ProtoReflect()
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("type")); f != nil {
		return f.JSONName()
	}
	return ""
}

// Owner returns the member that a provider is bound to, or "".
func Owner(p *provisionrv1.Provider) string {
	switch t := p.GetSpec().GetType().(type) {
	case *provisionrv1.ProviderSpec_Local:
		return t.Local.GetOwner()
	case *provisionrv1.ProviderSpec_Qemu:
		return t.Qemu.GetOwner()
	case *provisionrv1.ProviderSpec_Sim:
		return t.Sim.GetOwner()
	}
	return ""
}

// Region returns where a provider launches machines, for people: its region, cloud or owner; "" where there is no such thing.
func Region(p *provisionrv1.Provider) string {
	switch t := p.GetSpec().GetType().(type) {
	case *provisionrv1.ProviderSpec_Aws:
		return t.Aws.GetRegion()
	case *provisionrv1.ProviderSpec_Gce:
		return t.Gce.GetRegion()
	case *provisionrv1.ProviderSpec_Openstack:
		return t.Openstack.GetRegion()
	}
	return ""
}

var (
	// The codes of regions: Amazon EC2 User Guide, "Regions and Zones", and Compute Engine, "Regions and zones".
	awsRegion = regexp.MustCompile(`^[a-z]{2,5}(-[a-z]+){1,3}-[0-9]{1,2}$`)
	awsZone   = regexp.MustCompile(`^([a-z]{2,5}(-[a-z]+){1,3}-[0-9]{1,2})[a-z]$`)
	gceRegion = regexp.MustCompile(`^[a-z]+-[a-z]+[0-9]{1,2}$`)
	gceZone   = regexp.MustCompile(`^([a-z]+-[a-z]+[0-9]{1,2})-[a-z]$`)
	// IAM User Guide, "IAM identifiers": arn:PARTITION:iam::ACCOUNT:role/PATH/NAME.
	awsRole = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$`)
)

func checkProvider(d *document, p *provisionrv1.Provider) {
	switch t := p.GetSpec().GetType().(type) {
	case *provisionrv1.ProviderSpec_Aws:
		a := t.Aws
		// Another server than Amazon's may call its regions as it likes.
		if a.GetEc2().GetUrl() == "" {
			checkRegion(d, "spec.aws.region", a.GetRegion(), awsRegion, awsZone, "eu-central-1")
		}
		if a.GetRoleArn() != "" && !awsRole.MatchString(a.GetRoleArn()) {
			d.complain("spec.aws.roleArn", "as arn:aws:iam::123456789012:role/provisionr", "%s is not the ARN of a role", show(a.GetRoleArn()))
		}
		checkLine(d, "spec.aws.profile", a.GetProfile())
		checkEndpoint(d, "spec.aws.ec2", a.GetEc2())
		checkEndpoint(d, "spec.aws.ssm", a.GetSsm())
		checkEndpoint(d, "spec.aws.sts", a.GetSts())
	case *provisionrv1.ProviderSpec_Gce:
		if t.Gce.GetCompute().GetUrl() == "" {
			checkRegion(d, "spec.gce.region", t.Gce.GetRegion(), gceRegion, gceZone, "europe-west3")
		}
		checkEndpoint(d, "spec.gce.compute", t.Gce.GetCompute())
		if t.Gce.GetUnauthenticated() && t.Gce.GetCompute().GetUrl() == "" {
			d.complain("spec.gce.unauthenticated", "give compute.url of the server that wants none", "Google's own API wants credentials")
		}
	case *provisionrv1.ProviderSpec_Openstack:
		checkLine(d, "spec.openstack.cloud", t.Openstack.GetCloud())
		checkLine(d, "spec.openstack.region", t.Openstack.GetRegion())
		checkEndpoint(d, "spec.openstack.identity", t.Openstack.GetIdentity())
	case *provisionrv1.ProviderSpec_Sim:
		for _, f := range []struct {
			name string
			is   *durationpb.Duration
		}{{"latency", t.Sim.GetLatency()}, {"boot", t.Sim.GetBoot()}, {"consistency", t.Sim.GetConsistency()}} {
			if f.is != nil && (f.is.CheckValid() != nil || f.is.AsDuration() < 0 || f.is.AsDuration() > time.Hour) {
				d.complain("spec.sim."+f.name, "", "is %s, but must be at least 0s and at most 1h", FormatDuration(f.is.AsDuration()))
			}
		}
	}
	if owner := Owner(p); owner != "" && toLabel(owner) != owner {
		d.complain(fmt.Sprintf("spec.%s.owner", ProviderKind(p)), "`provisionr cluster members` lists them", "%s is not the name of a member", show(owner))
	}
}

// checkRegion tells a zone from a region: it is the mistake that people make.
func checkRegion(d *document, path, region string, good, zone *regexp.Regexp, example string) {
	if region == "" || good.MatchString(region) {
		return
	}
	if z := zone.FindStringSubmatch(region); z != nil {
		d.complain(path, "write "+z[1]+", and the zone into spec.placement.zones of the pools", "%s is a zone, not a region", show(region))
		return
	}
	d.complain(path, "as "+example, "%s is not a region", show(region))
}

func checkLine(d *document, path, text string) {
	if hasControl(text) || strings.TrimSpace(text) != text {
		d.complain(path, "", "%s has spaces around it or a control character in it", show(text))
	}
}

// checkEndpoint checks an address of an API and whom to trust there.
func checkEndpoint(d *document, path string, e *provisionrv1.Endpoint) {
	if e == nil {
		return
	}
	const example = "as https://cloud.example.com:8443"
	u, err := url.Parse(e.GetUrl())
	switch {
	case e.GetUrl() == "":
	case err != nil || u.Hostname() == "" || !isHost(u.Hostname()):
		d.complain(path+".url", example, "%s is not an http or https address", show(e.GetUrl()))
	case u.User != nil:
		// The value is not shown: it holds a password.
		d.complain(path+".url", "credentials stay on the servers: see docs/providers.md", "has a user or password in it")
	case u.RawQuery != "" || u.Fragment != "":
		d.complain(path+".url", example, "%s has a query or fragment", show(e.GetUrl()))
	case u.Scheme == "http" && e.GetCa() != "":
		d.complain(path+".ca", "use https, or remove ca", "an http address proves nothing by certificates")
	}
	if e.GetCa() != "" {
		checkCertificates(d, path+".ca", e.GetCa())
	}
}

// checkCertificates checks that a text holds PEM certificates and nothing else; the text is never shown.
func checkCertificates(d *document, path, text string) {
	const hint = "paste the CA's certificates, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
	rest := []byte(text)
	for n := 0; ; n++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && (n == 0 || len(bytes.TrimSpace(rest)) > 0):
			d.complain(path, hint, "is not a PEM certificate")
			return
		case block == nil:
			return
		case strings.Contains(block.Type, "PRIVATE KEY"):
			d.complain(path, "remove it, and consider it known to others", "holds a private key")
			return
		case block.Type != "CERTIFICATE":
			d.complain(path, hint, "holds %s, not a certificate", show(block.Type))
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			d.complain(path, hint, "has a certificate that cannot be read: %v", err)
			return
		}
	}
}

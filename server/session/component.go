package session

import (
	"cmp"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/tmpl"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Defaults of pool specs, as their proto definitions state them.
const (
	defaultMaxOffset = 100 * time.Millisecond
	defaultMode      = 0o644
	programMode      = 0o755
	secretMode       = 0o600
	defaultOwner     = "root"
	defaultShell     = "/bin/bash"
	sshPort          = 22
)

// unitSuffixes are the kinds of units that a service may be (systemd.unit(5)); without one of them it is a .service.
var unitSuffixes = []string{".service", ".socket", ".timer", ".target", ".path", ".mount", ".automount", ".swap", ".slice"}

// poolComponent maps a pool's spec, with every default filled in. Cidr is the range of its machines' network, or empty;
// poolsOf returns the pools of a role. Secrets are left to the caller.
func poolComponent(p *provisionrv1.Pool, cidr string, poolsOf func(role string) []string) (*agentv1.PoolComponent, error) {
	spec := p.GetSpec()
	firewall, err := firewallOf(spec.GetFirewall(), ends{pool: p.GetMetadata().GetName(), cidr: cidr, poolsOf: poolsOf})
	if err != nil {
		return nil, err
	}
	files, err := filesOf(spec.GetFiles())
	if err != nil {
		return nil, err
	}
	repositories, err := repositoriesOf(spec.GetRepositories())
	if err != nil {
		return nil, err
	}
	downloads, err := downloadsOf(spec.GetDownloads())
	if err != nil {
		return nil, err
	}
	c := &agentv1.PoolComponent{
		Name: p.GetMetadata().GetName(), Files: files, Firewall: firewall, Repositories: repositories, Downloads: downloads,
		MaxClockOffset: durationpb.New(defaultMaxOffset),
		Variables:      maps.Clone(spec.GetVariables()),
		Aliases:        slices.Clone(spec.GetAliases()),
		Roles:          slices.Clone(spec.GetRoles()),
		Audit:          spec.GetMode() == "audit",
		Ssh: &agentv1.Ssh{
			PasswordLogin: spec.GetSsh().GetPasswordLogin(), Settings: maps.Clone(spec.GetSsh().GetSettings()),
			Certificates: !spec.GetSsh().GetCertificatesDisabled(),
		},
		Profiles: slices.Clone(spec.GetVerify().GetProfiles()),
	}
	if offset := spec.GetNtp().GetMaxOffset(); offset != nil {
		c.MaxClockOffset = durationpb.New(offset.AsDuration())
	}
	for _, pkg := range spec.GetPackages() {
		c.Packages = append(c.Packages, &agentv1.Package{
			Name: pkg.GetName(), Version: pkg.GetVersion(), Absent: pkg.GetAbsent(), Hold: pkg.GetHold(), Repository: pkg.GetRepository(),
		})
	}
	for _, g := range spec.GetGroups() {
		c.Groups = append(c.Groups, &agentv1.Group{Name: g.GetName(), Gid: g.GetGid(), System: g.GetSystem(), Absent: g.GetAbsent()})
	}
	for _, u := range spec.GetUsers() {
		c.Users = append(c.Users, &agentv1.User{
			Name: u.GetName(), SshKeys: u.GetSshKeys(), Admin: u.GetAdmin(), Groups: u.GetGroups(),
			Shell: cmp.Or(u.GetShell(), defaultShell), Absent: u.GetAbsent(), Uid: u.GetUid(), Home: u.GetHome(), Group: u.GetGroup(),
			Sudo: u.GetSudo(), System: u.GetSystem(),
		})
	}
	for _, s := range spec.GetServices() {
		c.Services = append(c.Services, serviceOf(s))
	}
	systemOf(c, spec)
	return c, nil
}

func repositoriesOf(repositories []*provisionrv1.Repository) ([]*agentv1.Repository, error) {
	var out []*agentv1.Repository
	for _, r := range repositories {
		sum, err := hex.DecodeString(r.GetSignedBySha256())
		if err != nil {
			return nil, errs.New(errs.Invalid, "signedBySha256 of repository %s is not hexadecimal", r.GetName())
		}
		out = append(out, &agentv1.Repository{
			Name: r.GetName(), Uris: r.GetUris(), Suites: r.GetSuites(), Components: r.GetComponents(), SignedBy: r.GetSignedBy(),
			SignedByUrl: r.GetSignedByUrl(), SignedBySha256: sum,
		})
	}
	return out, nil
}

func downloadsOf(downloads []*provisionrv1.Download) ([]*agentv1.Download, error) {
	var out []*agentv1.Download
	for _, d := range downloads {
		mode, err := modeOf(d.GetMode(), programMode)
		if err != nil {
			return nil, errs.New(errs.Invalid, "download %s: %w", d.GetPath(), err)
		}
		sum, err := hex.DecodeString(d.GetSha256())
		if err != nil {
			return nil, errs.New(errs.Invalid, "sha256 of download %s is not hexadecimal", d.GetPath())
		}
		out = append(out, &agentv1.Download{
			Path: d.GetPath(), Urls: d.GetUrls(), Sha256: sum, Mode: mode, Extract: d.GetExtract(), Strip: d.GetStrip(),
			Owner: cmp.Or(d.GetOwner(), defaultOwner), Group: cmp.Or(d.GetGroup(), defaultOwner),
		})
	}
	return out, nil
}

func filesOf(files []*provisionrv1.File) ([]*agentv1.File, error) {
	var out []*agentv1.File
	for _, f := range files {
		c := &agentv1.File{Path: f.GetPath(), Owner: cmp.Or(f.GetOwner(), defaultOwner), Group: cmp.Or(f.GetGroup(), defaultOwner)}
		mode := uint32(defaultMode)
		switch {
		case f.GetAbsent():
			c.Source = &agentv1.File_Absent{Absent: true}
		case f.GetLink() != "":
			c.Source = &agentv1.File_Link{Link: f.GetLink()}
		case f.GetDirectory():
			c.Source, mode = &agentv1.File_Directory{Directory: true}, programMode
		case f.GetSecret() != "":
			c.Source, mode = &agentv1.File_Secret{Secret: f.GetSecret()}, secretMode
		case f.Template != nil:
			if c.Source = (&agentv1.File_Template{Template: f.GetTemplate()}); len(tmpl.Secrets(f.GetTemplate())) > 0 {
				mode = secretMode
			}
		default:
			c.Source = &agentv1.File_Content{Content: []byte(f.GetContent())}
		}
		var err error
		if c.Mode, err = modeOf(f.GetMode(), mode); err != nil {
			return nil, errs.New(errs.Invalid, "file %s: %w", f.GetPath(), err)
		}
		out = append(out, c)
	}
	return out, nil
}

func modeOf(text string, standard uint32) (uint32, error) {
	if text == "" {
		return standard, nil
	}
	mode, err := strconv.ParseUint(text, 8, 12)
	if err != nil {
		return 0, errs.New(errs.Invalid, "mode %q is not octal", text)
	}
	return uint32(mode), nil
}

func serviceOf(s *provisionrv1.Service) *agentv1.Service {
	c := &agentv1.Service{
		Name: s.GetName(), Running: s.GetState() != "stopped" && !s.GetMasked(), RestartOn: s.GetRestartOn(), Content: s.Content, Override: s.Override,
		Masked: s.GetMasked(),
	}
	if !slices.ContainsFunc(unitSuffixes, func(suffix string) bool { return strings.HasSuffix(c.Name, suffix) }) {
		c.Name += ".service"
	}
	c.Enabled = c.Running
	if s.Enabled != nil {
		c.Enabled = s.GetEnabled() && !s.GetMasked()
	}
	return c
}

package gcetest

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/api/compute/v1"
)

type firewall struct {
	*compute.Firewall
	created, deleted time.Time
	busy             bool
}

var (
	portRange = regexp.MustCompile(`^[0-9]{1,5}(-[0-9]{1,5})?$`)
	protocol  = regexp.MustCompile(`^(tcp|udp|icmp|esp|ah|ipip|sctp|all|[0-9]{1,3})$`)
)

func (s *Server) firewall(name string) *firewall {
	for _, f := range s.firewalls {
		if f.Name == name && f.deleted.IsZero() {
			return f
		}
	}
	return nil
}

func (s *Server) getFirewall(c *call) (any, *apiError) {
	if f := s.firewall(c.path["firewall"]); f != nil {
		return f.Firewall, nil
	}
	return nil, notFound(s.link("global/firewalls/" + c.path["firewall"]))
}

func (s *Server) listFirewalls(c *call) (any, *apiError) {
	at := c.now.Add(-s.config.Lag - c.stale)
	var all []*firewall
	for _, f := range s.firewalls {
		if !f.created.After(at) && (f.deleted.IsZero() || f.deleted.After(at)) {
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b *firewall) int { return cmp.Compare(a.Name, b.Name) })
	return s.list(c, "firewallList", entries(all, func(*firewall) string { return "global" }))
}

func (s *Server) insertFirewall(c *call) (any, *apiError) {
	if o, failed := s.replay(c); o != nil || failed != nil {
		return operationOf(o), failed
	}
	var wanted compute.Firewall
	if failed := c.decode(&wanted); failed != nil {
		return nil, failed
	}
	link := s.link("global/firewalls/" + wanted.Name)
	exists := func() bool { return s.firewall(wanted.Name) != nil }
	if exists() {
		return nil, errorf(409, "alreadyExists", "The resource '%s' already exists", link[len(linkBase):])
	}
	// A priority of 0 is one; only what is not there is the default.
	var given struct{ Priority *int64 }
	_ = json.Unmarshal(c.raw, &given)
	if given.Priority == nil {
		wanted.Priority = 1000
	}
	wanted.Network = s.link(cmp.Or(wanted.Network, "global/networks/default"))
	wanted.Direction = cmp.Or(wanted.Direction, "INGRESS")
	if failed := s.checkFirewall(&wanted); failed != nil {
		return nil, failed
	}
	wanted.Kind, wanted.Id, wanted.SelfLink, wanted.CreationTimestamp = "compute#firewall", s.next(), link, c.now.Format(stamp)
	o := s.start(c.now, "insert", "global", link, wanted.Id, c.query.Get("requestId"))
	o.begin = func(now time.Time) *opError {
		if exists() {
			return &opError{"RESOURCE_ALREADY_EXISTS", 409, "The resource '" + link[len(linkBase):] + "' already exists"}
		}
		s.firewalls = append(s.firewalls, &firewall{Firewall: &wanted, created: now, busy: true})
		return nil
	}
	o.finish = func(time.Time) *opError { s.release(wanted.Name); return nil }
	s.remember(c, o)
	return o.Operation, nil
}

func (s *Server) release(name string) {
	if f := s.firewall(name); f != nil {
		f.busy = false
	}
}

// patchFirewall replaces what the body has (JSON merge patch); network and direction cannot change.
func (s *Server) patchFirewall(c *call) (any, *apiError) {
	if o, failed := s.replay(c); o != nil || failed != nil {
		return operationOf(o), failed
	}
	f := s.firewall(c.path["firewall"])
	if f == nil {
		return s.getFirewall(c)
	}
	if f.busy {
		return nil, errorf(400, "resourceNotReady", "The resource '%s' is not ready", f.SelfLink[len(linkBase):])
	}
	patched := *f.Firewall
	patched.Allowed, patched.Denied, patched.SourceRanges, patched.SourceTags, patched.TargetTags = nil, nil, nil, nil, nil
	if failed := c.decode(&patched); failed != nil {
		return nil, failed
	}
	var given map[string]json.RawMessage
	_ = json.Unmarshal(c.raw, &given)
	keep := func(name string) bool { _, ok := given[name]; return !ok }
	if keep("allowed") {
		patched.Allowed = f.Allowed
	}
	if keep("denied") {
		patched.Denied = f.Denied
	}
	if keep("sourceRanges") {
		patched.SourceRanges = f.SourceRanges
	}
	if keep("sourceTags") {
		patched.SourceTags = f.SourceTags
	}
	if keep("targetTags") {
		patched.TargetTags = f.TargetTags
	}
	patched.Network = s.link(patched.Network)
	if patched.Network != f.Network || patched.Direction != f.Direction || patched.Name != f.Name {
		return nil, errorf(400, "invalid", "Name, network and direction of a firewall cannot be changed")
	}
	if failed := s.checkFirewall(&patched); failed != nil {
		return nil, failed
	}
	f.busy = true
	o := s.start(c.now, "patch", "global", f.SelfLink, f.Id, c.query.Get("requestId"))
	o.finish = func(time.Time) *opError { f.Firewall, f.busy = &patched, false; return nil }
	s.remember(c, o)
	return o.Operation, nil
}

func (s *Server) deleteFirewall(c *call) (any, *apiError) {
	if o, failed := s.replay(c); o != nil || failed != nil {
		return operationOf(o), failed
	}
	f := s.firewall(c.path["firewall"])
	if f == nil {
		return s.getFirewall(c)
	}
	if f.busy {
		return nil, errorf(400, "resourceNotReady", "The resource '%s' is not ready", f.SelfLink[len(linkBase):])
	}
	f.busy = true
	o := s.start(c.now, "delete", "global", f.SelfLink, f.Id, c.query.Get("requestId"))
	o.finish = func(now time.Time) *opError { f.deleted, f.busy = now, false; return nil }
	s.remember(c, o)
	return o.Operation, nil
}

// checkFirewall follows the resource's reference (REST resource firewalls).
func (s *Server) checkFirewall(f *compute.Firewall) *apiError {
	if _, ok := find(s.networks, f.Network, networkLink); !ok {
		return notFound(f.Network)
	}
	switch {
	case f.Direction != "INGRESS":
		return errorf(501, "notImplemented", "only INGRESS is supported here")
	case (len(f.Allowed) > 0) == (len(f.Denied) > 0):
		return invalid("resource", "Exactly one of allowed and denied must be specified")
	case f.Priority < 0 || f.Priority > 65535:
		return invalid("resource.priority", "'%d'", f.Priority)
	case len(f.Description) > 2048:
		return invalid("resource.description", "too long")
	case len(f.SourceRanges) == 0 && len(f.SourceTags) == 0:
		return invalid("resource", "At least one of sourceRanges and sourceTags must be specified")
	}
	six := 0
	for _, r := range f.SourceRanges {
		p, err := netip.ParsePrefix(r)
		if err != nil || p.Masked() != p {
			return invalid("resource.sourceRanges", "'%s'. Must be a CIDR address range", r)
		}
		if p.Addr().Is6() {
			six++
		}
	}
	if six > 0 && six < len(f.SourceRanges) {
		return invalid("resource.sourceRanges", "IPv4 and IPv6 ranges cannot be mixed")
	}
	for _, tag := range slices.Concat(f.SourceTags, f.TargetTags) {
		if !name1035.MatchString(tag) {
			return invalid("resource.tags", "'%s'. Must be a match of regex '%s'", tag, name1035)
		}
	}
	for _, a := range f.Allowed {
		if failed := checkProtocol(a.IPProtocol, a.Ports); failed != nil {
			return failed
		}
	}
	for _, d := range f.Denied {
		if failed := checkProtocol(d.IPProtocol, d.Ports); failed != nil {
			return failed
		}
	}
	return nil
}

func checkProtocol(name string, ports []string) *apiError {
	if !protocol.MatchString(name) {
		return invalid("resource.allowed.IPProtocol", "'%s'", name)
	}
	for _, port := range ports {
		if !portRange.MatchString(port) || !strings.Contains("tcp udp sctp", name) {
			return invalid("resource.allowed.ports", "'%s' of protocol %s", port, name)
		}
	}
	return nil
}

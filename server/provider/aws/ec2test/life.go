package ec2test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// instance is a virtual machine. Its life is a handful of times: what it is doing follows from the clock.
type instance struct {
	id, reservation, token     string
	index                      int
	typ                        *instanceType
	image                      *image
	subnet                     *subnet
	groups                     []*group
	nic                        *networkInterface
	disks                      []*volume
	launched, running          time.Time
	stopping, terminated       time.Time
	reasonCode, reason, change string
	userData                   []byte
	keyName, profile           string
	metadata                   metadataOptions
	monitoring, protected      bool
	ebsOptimized               bool
	spot                       *spotRequest
	tags                       tagLog
	events                     []*event
	console                    string
	consoleAt                  time.Time
}

// event is scheduled maintenance.
type event struct {
	id, code  string
	notBefore time.Time
	announced time.Time
}

// Codes of states (InstanceState).
var stateCodes = map[string]int{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48}

// state at a time; "" where the instance is not listed yet or any more.
func (s *Server) state(i *instance, t time.Time) string {
	switch {
	case t.Before(i.launched):
		return ""
	case i.stopping.IsZero() || t.Before(i.stopping):
		if t.Before(i.running) {
			return "pending"
		}
		return "running"
	case t.Before(i.terminated):
		return "shutting-down"
	case t.Before(i.terminated.Add(s.config.TerminatedFor)):
		return "terminated"
	}
	return ""
}

func alive(state string) bool { return state == "pending" || state == "running" }

// end has an instance shut down from a time on, unless it does so earlier.
func (s *Server) end(i *instance, at time.Time, code, reason string) {
	if !i.stopping.IsZero() && !at.Before(i.stopping) {
		return
	}
	i.stopping, i.terminated = at, at.Add(s.config.ShutdownTime)
	i.reasonCode, i.reason = code, code+": "+reason
	i.change = "Server.SpotInstanceTermination"
	if strings.HasPrefix(code, "Client.") {
		i.change = fmt.Sprintf("User initiated (%s GMT)", at.UTC().Format(time.DateTime))
	}
	if i.nic.deleteWith {
		i.nic.deleted = i.terminated
	} else {
		i.nic.detached = i.terminated
	}
	for _, v := range i.disks {
		if v.deleteWith {
			v.deleted = i.terminated
		} else {
			v.detached = i.terminated
		}
	}
}

// instance finds an instance as the call sees it.
func (c *call) instance(id string) (*instance, *apiError) {
	if !wellFormed(id, "i-") {
		return nil, refuse("InvalidInstanceID.Malformed", "Invalid id: \"%s\"", id)
	}
	i := c.server.byID[id]
	if i == nil || c.server.state(i, c.seen) == "" || c.server.state(i, c.now) == "" {
		return nil, refuse("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
	}
	return i, nil
}

// wellFormed says whether an id has 8 or 17 hexadecimal digits after its prefix.
func wellFormed(id, prefix string) bool {
	rest, ok := strings.CutPrefix(id, prefix)
	return ok && (len(rest) == 8 || len(rest) == 17) && strings.Trim(rest, "0123456789abcdef") == ""
}

// find is instance for the server's controls.
func (s *Server) find(id string) (*instance, error) {
	if i := s.byID[id]; i != nil && alive(s.state(i, time.Now())) {
		return i, nil
	}
	return nil, fmt.Errorf("no live instance %q", id)
}

func (s *Server) interruptSpot(id string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(id)
	if err != nil {
		return err
	}
	if i.spot == nil {
		return fmt.Errorf("instance %q is not a spot instance", id)
	}
	i.spot.marked = at.Add(-spotNotice)
	if now := time.Now(); i.spot.marked.Before(now) {
		i.spot.marked = now
	}
	s.end(i, at, "Server.SpotInstanceTermination", "Spot instance termination")
	return nil
}

func (s *Server) scheduleMaintenance(id, code string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(id)
	if err != nil {
		return err
	}
	if !slices.Contains(s.models.EC2.Shapes["EventCode"].Enum, code) {
		return fmt.Errorf("%q is not the code of an event", code)
	}
	i.events = append(i.events, &event{id: s.newID("instance-event"), code: code, notBefore: at, announced: time.Now()})
	if code == "instance-retirement" {
		s.end(i, at, "Server.ScheduledStop", "Stopped due to scheduled retirement")
	}
	return nil
}

func (s *Server) fail(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(id)
	if err != nil {
		return err
	}
	s.end(i, time.Now(), "Server.InternalError", "Internal error on launch")
	return nil
}

func (s *Server) setConsole(id, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(id)
	if err != nil {
		return err
	}
	i.console, i.consoleAt = text, time.Now()
	return nil
}

// capacityKey is what a limit of capacity is for; an empty type or zone stands for all.
type capacityKey struct {
	instanceType, zone string
	spot               bool
}

func (s *Server) setCapacity(key capacityKey, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 0 {
		delete(s.capacity, key)
		return
	}
	s.capacity[key] = n
}

func (s *Server) truthInstances() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var out []Instance
	for _, i := range s.instances {
		x := Instance{
			ID: i.id, Type: i.typ.name, Zone: i.subnet.zone, Subnet: i.subnet.id, VPC: i.subnet.vpc.id, Image: i.image.ID,
			State: s.state(i, now), Token: i.token, Tags: i.tags.at(now), UserData: slices.Clone(i.userData),
			Spot: i.spot != nil, KeyName: i.keyName, Profile: i.profile, HTTPTokens: i.metadata.tokens, Launched: i.launched,
			Address: i.nic.address, Public: i.nic.public, IPv6: i.nic.address6,
		}
		if i.spot != nil {
			x.SpotRequest = i.spot.id
		}
		for _, g := range i.groups {
			x.Groups = append(x.Groups, g.id)
		}
		if x.State == "" {
			x.State = "terminated"
		}
		if !alive(x.State) {
			x.Reason = i.reasonCode
		}
		if x.State == "terminated" {
			x.Address, x.Public, x.IPv6 = netip.Addr{}, netip.Addr{}, netip.Addr{}
			x.Terminated = i.terminated
		}
		out = append(out, x)
	}
	return out
}

func (s *Server) truthGroups() []Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var out []Group
	for _, g := range s.groups {
		if !g.existsAt(now) {
			continue
		}
		x := Group{ID: g.id, Name: g.name, Description: g.description, VPC: g.vpc.id, Tags: g.tags.at(now)}
		for _, r := range s.rules {
			if r.group == g && r.existsAt(now) {
				x.Rules = append(x.Rules, r.String())
			}
		}
		slices.Sort(x.Rules)
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Group) int { return strings.Compare(a.ID, b.ID) })
	return out
}

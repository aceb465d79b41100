package gcetest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/api/compute/v1"
)

// Call is a request that the server got.
type Call struct {
	// Method of the discovery document, as compute.instances.insert; empty for a path that is none.
	Method    string
	Verb, URL string
	Body      []byte
	At        time.Time
	// Status of the answer; 0 while there is none.
	Status int
}

// Answer is an error answer in place of the real one.
type Answer struct {
	Status  int
	Reason  string
	Message string
	// RetryAfter is told in a header of that name, in whole seconds, if it is more than zero.
	RetryAfter time.Duration
}

func (a *Answer) error() *apiError {
	return &apiError{a.Status, cmp.Or(a.Reason, "backendError"), cmp.Or(a.Message, http.StatusText(a.Status))}
}

// Throttled is the answer to too many requests (https://cloud.google.com/compute/docs/api-rate-limits).
func Throttled(after time.Duration) *Answer {
	return &Answer{Status: 403, Reason: "rateLimitExceeded", Message: "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service 'compute.googleapis.com'", RetryAfter: after}
}

// Fault is what goes wrong with one call. The zero value is nothing.
type Fault struct {
	Delay time.Duration
	// Before answers in place of acting, After in place of the answer.
	Before, After *Answer
	// DropBefore cuts the connection before acting, Drop after it.
	DropBefore, Drop bool
	// Truncate cuts the connection within the answer.
	Truncate bool
	// Stale has a list show a state that is older by this.
	Stale time.Duration
}

type controls struct {
	fault       func(Call) Fault
	watch       func(Call)
	capacity    map[string]int // by zone, or zone and machine type
	quota       map[string]float64
	throttle    int
	after       time.Duration
	unreachable []string
}

// SetFault has every call ask f what goes wrong with it. Nil removes it. F must not call the server.
func (s *Server) SetFault(f func(Call) Fault) { s.locked(func() { s.fault = f }) }

// SetWatch has f called with every call before it acts, without a lock held.
func (s *Server) SetWatch(f func(Call)) { s.locked(func() { s.watch = f }) }

// Throttle refuses the next calls as too many.
func (s *Server) Throttle(calls int, after time.Duration) {
	s.locked(func() { s.throttle, s.after = calls, after })
}

// SetCapacity bounds how many more instances there is room for: where is a zone, zone/TYPE, zone/spot or zone/on-demand.
// Less than zero removes the bound.
func (s *Server) SetCapacity(where string, more int) {
	s.locked(func() {
		if s.capacity[where] = more; more < 0 {
			delete(s.capacity, where)
		}
	})
}

// SetQuota sets a limit of a region, as CPUS; less than zero removes it.
func (s *Server) SetQuota(region, metric string, limit float64) {
	s.locked(func() {
		if s.quota[region+"/"+metric] = limit; limit < 0 {
			delete(s.quota, region+"/"+metric)
		}
	})
}

// Usage returns how much of a quota is used.
func (s *Server) Usage(region, metric string) (used float64) {
	s.locked(func() { used = s.usage(region)[metric] })
	return used
}

// SetUnreachable has aggregated lists leave out these zones, and say so.
func (s *Server) SetUnreachable(zones ...string) { s.locked(func() { s.unreachable = zones }) }

func (s *Server) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	f()
}

func capacityKeys(zone, machineType string, spot bool) []string {
	market := "on-demand"
	if spot {
		market = "spot"
	}
	return []string{zone, zone + "/" + machineType, zone + "/" + market}
}

func (s *Server) capacityOf(zone, machineType string, spot bool) (left int, bounded bool) {
	for _, key := range capacityKeys(zone, machineType, spot) {
		if n, ok := s.capacity[key]; ok && (!bounded || n < left) {
			left, bounded = n, true
		}
	}
	return left, bounded
}

func (s *Server) take(zone, machineType string, spot bool) {
	for _, key := range capacityKeys(zone, machineType, spot) {
		if _, ok := s.capacity[key]; ok {
			s.capacity[key]--
		}
	}
}

// record notes a call and says what goes wrong with it.
func (s *Server) record(c Call) (n int, f Fault, watch func(Call)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
	if s.throttle > 0 {
		s.throttle--
		f.Before = Throttled(s.after)
	} else if s.fault != nil {
		f = s.fault(c)
	}
	return len(s.calls) - 1, f, s.watch
}

func (s *Server) answered(n, status int) { s.locked(func() { s.calls[n].Status = status }) }

// Calls returns the calls so far.
func (s *Server) Calls() (calls []Call) {
	s.locked(func() { calls = slices.Clone(s.calls) })
	return calls
}

// Violate records a violation.
func (s *Server) Violate(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violate(format, args...)
}

func (s *Server) violate(format string, args ...any) {
	if len(s.violations) < 100 {
		s.violations = append(s.violations, fmt.Sprintf(format, args...))
	}
}

// Violations returns what did not conform to the API so far, and forgets it.
func (s *Server) Violations() (violations []string) {
	s.locked(func() { violations, s.violations = s.violations, nil })
	return violations
}

// Instances returns those that exist, by zone and name.
func (s *Server) Instances() (all []compute.Instance) {
	s.locked(func() {
		for _, i := range s.byName {
			all = append(all, *i.Instance)
		}
	})
	slices.SortFunc(all, func(a, b compute.Instance) int { return strings.Compare(a.SelfLink, b.SelfLink) })
	return all
}

// Requested returns the bodies with which instances of that name were asked for, in order, if they came to be.
func (s *Server) Requested(name string) (all []compute.Instance) {
	s.locked(func() {
		for _, i := range s.instances {
			if i.Name == name && i.request != nil {
				all = append(all, *i.request)
			}
		}
	})
	return all
}

// Disks returns those that exist.
func (s *Server) Disks() (all []compute.Disk) {
	s.locked(func() {
		for _, d := range s.diskNamed {
			all = append(all, *d.Disk)
		}
	})
	slices.SortFunc(all, func(a, b compute.Disk) int { return strings.Compare(a.SelfLink, b.SelfLink) })
	return all
}

// Firewalls returns those that exist.
func (s *Server) Firewalls() (all []compute.Firewall) {
	s.locked(func() {
		for _, f := range s.firewalls {
			if f.deleted.IsZero() {
				all = append(all, *f.Firewall)
			}
		}
	})
	slices.SortFunc(all, func(a, b compute.Firewall) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// AddInstance makes an instance without a request, running since an hour ago.
func (s *Server) AddInstance(zone string, i compute.Instance) (err error) {
	s.locked(func() {
		p, failed := s.plan(zone, &i)
		if failed != nil {
			err = fmt.Errorf("%s", failed.message)
			return
		}
		made := s.create(time.Now().Add(-time.Hour), p, s.next(), s.link("zones/"+zone+"/instances/"+i.Name))
		made.request = nil
		made.set(func(i *compute.Instance) { i.Status = "RUNNING" })
	})
	return err
}

// AddDisk makes a disk that no instance uses, since an hour ago.
func (s *Server) AddDisk(zone, name string, labels map[string]string) {
	s.locked(func() {
		p := &plan{wanted: &compute.Instance{Name: name}, zone: zone, sizes: []int64{10}}
		attached := &compute.AttachedDisk{InitializeParams: &compute.AttachedDiskInitializeParams{DiskName: name, Labels: labels}}
		s.createDisk(time.Now().Add(-time.Hour), p, 0, attached, "")
		s.diskNamed[zone+"/disks/"+name].Users = nil
	})
}

// Remove removes the instances and disks for which f holds, at once and for lists too.
func (s *Server) Remove(labels map[string]string) {
	has := func(of map[string]string) bool {
		for key, value := range labels {
			if of[key] != value {
				return false
			}
		}
		return true
	}
	s.locked(func() {
		past := time.Now().Add(-24 * time.Hour)
		for _, i := range s.byName {
			if has(i.Labels) {
				s.remove(i, past)
			}
		}
		for _, d := range s.diskNamed {
			if has(d.Labels) {
				s.removeDisk(d, past)
			}
		}
		s.instances = slices.DeleteFunc(s.instances, func(i *instance) bool { return i.deleted.Equal(past) })
		s.disks = slices.DeleteFunc(s.disks, func(d *disk) bool { return d.deleted.Equal(past) })
	})
}

// Change changes the instance of that name; it reports whether there is one.
func (s *Server) Change(name string, change func(*compute.Instance)) (ok bool) {
	s.locked(func() {
		for _, i := range s.byName {
			if i.Name == name {
				i.set(change)
				ok = true
			}
		}
	})
	return ok
}

// Write appends to the serial port's output of an instance.
func (s *Server) Write(name, text string) {
	s.locked(func() {
		for _, i := range s.byName {
			if i.Name == name {
				i.serialPort += text
			}
		}
	})
}

// ChangeFirewall changes or, where change returns nil, removes the firewall of that name, or adds it if there is none.
func (s *Server) ChangeFirewall(name string, change func(*compute.Firewall) *compute.Firewall) {
	s.locked(func() {
		f := s.firewall(name)
		if f == nil {
			f = &firewall{Firewall: &compute.Firewall{
				Kind: "compute#firewall", Id: s.next(), Name: name, SelfLink: s.link("global/firewalls/" + name), CreationTimestamp: time.Now().Format(stamp),
				Direction: "INGRESS", Priority: 1000, Network: s.link("global/networks/default"),
			}}
			s.firewalls = append(s.firewalls, f)
		}
		copied := *f.Firewall
		if changed := change(&copied); changed != nil {
			f.Firewall = changed
		} else {
			f.deleted = time.Now()
		}
	})
}

// Preempt takes a spot instance back: it is STOPPING for the notice, then deleted or stopped as its
// instanceTerminationAction says (https://cloud.google.com/compute/docs/instances/spot, preemption process).
func (s *Server) Preempt(name string) (ok bool) {
	s.locked(func() {
		for _, i := range s.byName {
			if i.Name != name || i.Scheduling.ProvisioningModel != "SPOT" || i.deleting {
				continue
			}
			ok = true
			i.set(func(x *compute.Instance) { x.Status = "STOPPING" })
			o := s.start(time.Now(), "compute.instances.preempted", "zones/"+i.zone, i.SelfLink, i.Id, "")
			o.runAt, o.doneAt = time.Now(), time.Now().Add(s.config.PreemptionNotice)
			o.finish = func(now time.Time) *opError {
				if i.Scheduling.InstanceTerminationAction == "DELETE" {
					s.remove(i, now)
				} else if i.deleted.IsZero() {
					i.set(func(x *compute.Instance) { x.Status, x.LastStopTimestamp = "TERMINATED", now.Format(stamp) })
				}
				return nil
			}
		}
	})
	return ok
}

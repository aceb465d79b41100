package gce

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"google.golang.org/api/compute/v1"

	"github.com/provisionr/provisionr/server/provider"
)

// Terminate implements provider.Provider. It returns when the operations are done: instances that are stopped in order
// take a minute and more.
func (p *Provider) Terminate(ctx context.Context, machineID, providerID string) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	found, err := p.instancesOf(ctx, api, machineID, providerID)
	if err != nil {
		return err
	}
	if err := p.deleteAll(ctx, api, found, ""); err != nil {
		return err
	}
	left, err := p.unusedDisks(ctx, api, p.machineFilter(machineID))
	if err != nil {
		return err
	}
	for _, d := range left {
		if d.Labels[machineLabel] != machineID {
			continue
		}
		verb := "delete disk " + d.Name
		o, err := api.Disks.Delete(p.project, base(d.Zone), d.Name).Context(ctx).Do()
		if absent(err, d.Name) {
			continue
		}
		if err != nil {
			return p.unlisted(p.failed(verb, err))
		}
		if err := p.finish(ctx, api, verb, base(d.Zone), o); err != nil {
			return p.unlisted(err)
		}
	}
	p.forget(machineID)
	return nil
}

// Prune implements provider.Provider.
func (p *Provider) Prune(ctx context.Context, machineID, keep string) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	found, err := p.instancesOf(ctx, api, machineID, keep)
	if err != nil {
		return err
	}
	if _, ok := found[keep]; !ok {
		return provider.Errorf(provider.NotFound, "gce: there is no instance %s of machine %s to keep", keep, machineID)
	}
	return p.deleteAll(ctx, api, found, keep)
}

// instancesOf returns the machine's instances by provider id. Lists may lag, so names are looked up as well: that of the
// provider id where it is known, else the name that the machine has in whichever zone.
func (p *Provider) instancesOf(ctx context.Context, api *compute.Service, machineID, providerID string) (map[string]*compute.Instance, error) {
	var names []string
	if _, _, ok := splitID(providerID); ok {
		names = []string{providerID}
	} else {
		zones, err := p.zones(ctx, api)
		if err != nil {
			return nil, err
		}
		for _, zone := range zones {
			names = append(names, zone+"/"+instanceName(machineID))
		}
	}
	all := map[string]*compute.Instance{}
	for i, err := range p.instances(ctx, api, p.machineFilter(machineID)) {
		if err != nil {
			return nil, err
		}
		if i.Labels[machineLabel] == machineID {
			names = append(names, base(i.Zone)+"/"+i.Name)
		}
	}
	seen := map[string]bool{}
	for _, id := range names {
		zone, name, _ := strings.Cut(id, "/")
		if seen[id] || !p.inRegion(zone) {
			continue
		}
		seen[id] = true
		i, err := p.find(ctx, api, zone, name)
		if err != nil {
			return nil, err
		}
		if i != nil && i.Labels[clusterLabel] == p.cluster && i.Labels[machineLabel] == machineID {
			all[zone+"/"+i.Name] = i
		}
	}
	return all, nil
}

// deleteAll deletes instances beside each other, but for that with the provider id keep.
func (p *Provider) deleteAll(ctx context.Context, api *compute.Service, all map[string]*compute.Instance, keep string) error {
	var wait sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for id, i := range all {
		if id == keep {
			continue
		}
		wait.Go(func() {
			if err := p.delete(ctx, api, i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
		})
	}
	wait.Wait()
	return worst(failed)
}

// delete deletes one instance. The request id is that of this one incarnation, so that a repeated call waits for the
// operation that is at work already. An operation that failed is replayed too: then a new one is asked for.
func (p *Provider) delete(ctx context.Context, api *compute.Service, i *compute.Instance) error {
	zone, verb := base(i.Zone), "delete instance "+i.Name
	for _, id := range []string{requestID("delete", p.cluster, zone, i.Name, strconv.FormatUint(i.Id, 10)), ""} {
		call := api.Instances.Delete(p.project, zone, i.Name).Context(ctx)
		if id != "" {
			call = call.RequestId(id)
		}
		o, err := call.Do()
		if absent(err, i.Name) {
			return nil
		}
		if err != nil {
			return p.unlisted(p.failed(verb, err))
		}
		if o, err = p.done(ctx, api, verb, zone, o); err != nil {
			return err
		}
		if err = opFailed(verb, o); err == nil || o.HttpErrorStatusCode == 404 {
			return nil
		}
		if id == "" {
			return p.unlisted(err)
		}
	}
	return nil
}

// maxConsole is how much of the serial port's output is returned.
const maxConsole = 64 << 10

// Console implements provider.Provider: the end of what the first serial port has written
// (instances.getSerialPortOutput: a negative start counts from the end).
func (p *Provider) Console(ctx context.Context, machineID, providerID string) (string, error) {
	api, err := p.api(ctx)
	if err != nil {
		return "", err
	}
	found, err := p.instancesOf(ctx, api, machineID, providerID)
	if err != nil {
		return "", err
	}
	i, ok := found[providerID]
	for _, other := range found {
		if !ok {
			i = other
		}
	}
	if i == nil {
		return "", provider.Errorf(provider.NotFound, "gce: machine %s has no instance", machineID)
	}
	var text strings.Builder
	start := int64(-maxConsole)
	// More may be written while it is read; a page or two is enough.
	for range 4 {
		out, err := api.Instances.GetSerialPortOutput(p.project, base(i.Zone), i.Name).Port(1).Start(start).Context(ctx).Do()
		if err != nil {
			return "", p.failed("read the console of "+i.Name, err)
		}
		text.WriteString(out.Contents)
		if out.Contents == "" || out.Next <= out.Start || len(out.Contents) < maxConsole/2 {
			break
		}
		start = out.Next
	}
	return tail(text.String()), nil
}

// tail cuts to the most that a console may have, at the begin of a character.
func tail(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxConsole {
		return s
	}
	s = s[len(s)-maxConsole:]
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return s
}

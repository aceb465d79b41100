package gce

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"

	"github.com/provisionr/provisionr/server/provider"
)

// change is what makes a group as it should be.
type change struct {
	insert, patch []*compute.Firewall
	remove        []string
}

// EnsureFirewall implements provider.FirewallGroups. The groups that rules name get the rules that deny all else.
func (p *Provider) EnsureFirewall(ctx context.Context, f provider.Firewall) error {
	api, all, err := p.firewalls(ctx)
	if err != nil {
		return err
	}
	c := p.difference(f, all)
	link := p.networkLink(f.Network)
	for _, r := range f.Rules {
		if r.Pool == "" || r.Pool == f.Pool || slices.ContainsFunc(c.insert, func(x *compute.Firewall) bool { return x.Name == p.denials(r.Pool, link)[0].Name }) {
			continue
		}
		if len(p.groupOf(r.Pool, all)) == 0 {
			c.insert = append(c.insert, p.denials(r.Pool, link)...)
		}
	}
	return p.apply(ctx, api, c)
}

// PlanFirewall implements provider.FirewallGroups.
func (p *Provider) PlanFirewall(ctx context.Context, f provider.Firewall) ([]string, error) {
	_, all, err := p.firewalls(ctx)
	if err != nil {
		return nil, err
	}
	pools := p.poolsByTag(all)
	for _, r := range f.Rules {
		pools[tag(p.cluster, cmp.Or(r.Pool, f.Pool))] = cmp.Or(r.Pool, f.Pool)
	}
	pools[tag(p.cluster, f.Pool)] = f.Pool
	var has []provider.FirewallRule
	for _, x := range p.groupOf(f.Pool, all) {
		has = append(has, rulesOf(x, pools)...)
	}
	var lines []string
	for _, r := range f.Rules {
		if !slices.Contains(has, normal(r)) {
			lines = append(lines, r.String())
		}
	}
	for _, r := range has {
		if !slices.ContainsFunc(f.Rules, func(x provider.FirewallRule) bool { return normal(x) == r }) {
			lines = append(lines, "no longer "+r.String())
		}
	}
	// What is no rule of ours changes as well, as denials or rules that nothing but their form tells apart.
	if c := p.difference(f, all); len(lines) == 0 {
		for _, x := range slices.Concat(c.insert, c.patch) {
			lines = append(lines, "set firewall rule "+x.Name)
		}
		for _, name := range c.remove {
			lines = append(lines, "delete firewall rule "+name)
		}
	}
	return lines, nil
}

// Firewalls implements provider.FirewallGroups.
func (p *Provider) Firewalls(ctx context.Context) ([]string, error) {
	_, all, err := p.firewalls(ctx)
	if err != nil {
		return nil, err
	}
	var pools []string
	for _, x := range all {
		if d, ok := p.described(x); ok {
			pools = append(pools, d.pool)
		}
	}
	slices.Sort(pools)
	return slices.Compact(pools), nil
}

// DeleteFirewall implements provider.FirewallGroups. The API would delete rules that machines rely on: so it is looked here.
func (p *Provider) DeleteFirewall(ctx context.Context, pool string) error {
	api, all, err := p.firewalls(ctx)
	if err != nil {
		return err
	}
	var c change
	own := p.groupOf(pool, all)
	for _, x := range all {
		d, ours := p.described(x)
		if slices.Contains(own, x) || ours && d.from == poolSource+pool {
			c.remove = append(c.remove, x.Name)
		}
	}
	if len(own) == 0 {
		return p.apply(ctx, api, c)
	}
	for i, err := range p.instances(ctx, api, "(labels."+clusterLabel+"="+p.cluster+") (labels."+poolLabel+"="+labelValue(pool)+")") {
		if err != nil {
			return err
		}
		if i.Labels[poolLabel] == labelValue(pool) {
			return provider.Errorf(provider.Unknown, "gce: the firewall group of pool %s is used by instance %s", pool, i.Name)
		}
	}
	return p.apply(ctx, api, c)
}

// firewalls returns the API and all firewall rules of the project: they can be many for a person, but not for a list.
func (p *Provider) firewalls(ctx context.Context) (*compute.Service, []*compute.Firewall, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, nil, err
	}
	all, err := collect(func(token string) ([]*compute.Firewall, string, error) {
		page, err := api.Firewalls.List(p.project).MaxResults(listPage).PageToken(token).Context(ctx).Do()
		if err != nil {
			return nil, "", err
		}
		if w := page.Warning; w != nil && w.Code != "NO_RESULTS_ON_PAGE" {
			return nil, "", provider.Errorf(provider.Unknown, "gce: the list of firewall rules is not complete: %s", w.Code)
		}
		return page.Items, page.NextPageToken, nil
	})
	return api, all, p.unlisted(p.failed("list firewall rules", err))
}

// groupOf returns the rules that target a pool's tag and nothing else.
func (p *Provider) groupOf(pool string, all []*compute.Firewall) []*compute.Firewall {
	var group []*compute.Firewall
	for _, x := range all {
		if len(x.TargetTags) == 1 && x.TargetTags[0] == tag(p.cluster, pool) && x.Direction != "EGRESS" {
			group = append(group, x)
		}
	}
	return group
}

// difference says what is to do for a group to be as wanted.
func (p *Provider) difference(f provider.Firewall, all []*compute.Firewall) change {
	var c change
	has := map[string]*compute.Firewall{}
	for _, x := range p.groupOf(f.Pool, all) {
		has[x.Name] = x
	}
	for _, wanted := range p.wanted(f) {
		switch x := has[wanted.Name]; {
		case x == nil:
			c.insert = append(c.insert, wanted)
		case !same(x, wanted):
			c.patch = append(c.patch, wanted)
		}
		delete(has, wanted.Name)
	}
	for name := range has {
		c.remove = append(c.remove, name)
	}
	slices.Sort(c.remove)
	return c
}

// apply asks for all changes, then waits for all of them.
func (p *Provider) apply(ctx context.Context, api *compute.Service, c change) error {
	type asked struct {
		verb   string
		o      *compute.Operation
		wanted *compute.Firewall
	}
	var at []asked
	var failed []error
	ask := func(verb, name string, wanted *compute.Firewall, o *compute.Operation, err error) {
		verb += " firewall rule " + name
		switch {
		case err == nil:
			at = append(at, asked{verb, o, wanted})
		case conflict(err) && wanted != nil:
			failed = append(failed, p.takeOver(ctx, api, wanted))
		case absent(err, name) && wanted == nil:
		default:
			failed = append(failed, p.unmade(p.failed(verb, err)))
		}
	}
	for _, x := range c.insert {
		o, err := api.Firewalls.Insert(p.project, x).Context(ctx).Do()
		ask("insert", x.Name, x, o, err)
	}
	for _, x := range c.patch {
		o, err := p.patch(ctx, api, x)
		ask("patch", x.Name, x, o, err)
	}
	for _, name := range c.remove {
		o, err := api.Firewalls.Delete(p.project, name).Context(ctx).Do()
		ask("delete", name, nil, o, err)
	}
	for _, a := range at {
		o, err := p.done(ctx, api, a.verb, "", a.o)
		switch {
		case err != nil:
			failed = append(failed, err)
		case alreadyExists(o) && a.wanted != nil:
			failed = append(failed, p.takeOver(ctx, api, a.wanted))
		default:
			failed = append(failed, p.unmade(opFailed(a.verb, o)))
		}
	}
	return worst(failed)
}

// patch makes a rule as it is wanted: by a patch, or by a new rule in its place where the server lacks patches. Sources that
// are empty are sent as well: a patch keeps what it does not name.
func (p *Provider) patch(ctx context.Context, api *compute.Service, wanted *compute.Firewall) (*compute.Operation, error) {
	forced := *wanted
	forced.ForceSendFields = []string{"Disabled", "SourceRanges", "SourceTags"}
	o, err := api.Firewalls.Patch(p.project, wanted.Name, &forced).Context(ctx).Do()
	if !p.lacks(ctx, err, "firewall rules that change are deleted and made anew") {
		return o, err
	}
	verb := "delete firewall rule " + wanted.Name
	o, err = api.Firewalls.Delete(p.project, wanted.Name).Context(ctx).Do()
	if err == nil {
		err = p.finish(ctx, api, verb, "", o)
	}
	if err != nil && !absent(err, wanted.Name) {
		return nil, p.failed(verb, err)
	}
	return api.Firewalls.Insert(p.project, wanted).Context(ctx).Do()
}

// takeOver makes a rule that exists already, though no list has shown it, as it is wanted.
func (p *Provider) takeOver(ctx context.Context, api *compute.Service, wanted *compute.Firewall) error {
	verb := "patch firewall rule " + wanted.Name
	x, err := api.Firewalls.Get(p.project, wanted.Name).Context(ctx).Do()
	if err != nil {
		return p.unlisted(p.failed(verb, err))
	}
	if same(x, wanted) {
		return nil
	}
	if len(x.TargetTags) != 1 || x.TargetTags[0] != wanted.TargetTags[0] {
		return provider.Errorf(provider.Invalid, "gce: a firewall rule %s that is not ours exists", wanted.Name)
	}
	o, err := p.patch(ctx, api, wanted)
	if err != nil {
		return p.unmade(p.failed(verb, err))
	}
	return p.unmade(p.finish(ctx, api, verb, "", o))
}

// unmade: what a rule names and is missing, as its network, makes it invalid.
func (p *Provider) unmade(err error) error {
	if provider.KindOf(err) == provider.NotFound {
		return &provider.Error{Kind: provider.Invalid, Message: err.Error(), Err: err}
	}
	return err
}

// worst joins errors under the kind that asks for the most: Unknown before all others, else the first.
func worst(all []error) error {
	all = slices.DeleteFunc(all, func(err error) bool { return err == nil })
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	first := all[0]
	for _, err := range all {
		if provider.KindOf(err) == provider.Unknown {
			first = err
		}
	}
	texts := namesOf(all, error.Error)
	slices.Sort(texts)
	return &provider.Error{Kind: provider.KindOf(first), Message: strings.Join(slices.Compact(texts), "; "), After: provider.AfterOf(first), Err: errors.Join(all...)}
}

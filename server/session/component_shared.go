package session

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/tmpl"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// poolKey identifies what a pool component is made from, but for what it refers to.
type poolKey struct {
	uid, name       string
	generation      uint64
	network         string
	networkRevision uint64
}

// pooled is an encoded pool component and the pools whose members go with it.
type pooled struct {
	part    part
	members []string
	refers  references
	// context is what the references stood for.
	context string
}

// references are what a pool component depends on beside its own pool and network.
type references struct{ secrets, roles []string }

func (v *view) pool(p *provisionrv1.Pool, networkName string) (pooled, error) {
	network := v.s.Network(networkName)
	key := poolKey{
		uid: p.GetMetadata().GetUid(), name: p.GetMetadata().GetName(), generation: p.GetMetadata().GetGeneration(),
		network: networkName, networkRevision: network.GetMetadata().GetGeneration(),
	}
	if known, ok := v.pools[key]; ok {
		return known, nil
	}
	known, ok := v.before[key]
	refers := known.refers
	if !ok {
		refers = referencesOf(p.GetSpec())
	}
	context := v.context(refers)
	if !ok || known.context != context {
		component, err := poolComponent(p, network.GetSpec().GetCidr(), v.poolsOf)
		if err != nil {
			return pooled{}, errs.New(errs.KindOf(err), "cannot compile pool %s: %w", key.name, err)
		}
		component.Secrets = v.secretRefs(refers.secrets)
		known = pooled{members: membersOf(component), refers: refers, context: context}
		if known.part, err = encode("pool", component); err != nil {
			return pooled{}, err
		}
	}
	v.pools[key] = known
	return known, nil
}

// referencesOf finds the secrets of files and templates and the roles of firewall rules.
func referencesOf(spec *provisionrv1.PoolSpec) references {
	secrets, roles := map[string]bool{}, map[string]bool{}
	for _, f := range spec.GetFiles() {
		if f.GetSecret() != "" {
			secrets[f.GetSecret()] = true
		}
		for _, name := range tmpl.Secrets(f.GetTemplate()) {
			secrets[name] = true
		}
	}
	ends := slices.Clone(spec.GetFirewall().GetSshFrom())
	for _, r := range spec.GetFirewall().GetRules() {
		ends = append(ends, r.GetFrom()...)
	}
	for _, r := range spec.GetFirewall().GetEgress() {
		ends = append(ends, r.GetTo()...)
	}
	for _, end := range ends {
		if role, ok := strings.CutPrefix(end, "role:"); ok {
			roles[role] = true
		}
	}
	return references{secrets: slices.Sorted(maps.Keys(secrets)), roles: slices.Sorted(maps.Keys(roles))}
}

// context says what references stand for now.
func (v *view) context(r references) string {
	var b strings.Builder
	for _, ref := range v.secretRefs(r.secrets) {
		b.WriteString(ref.Name + "=" + strconv.FormatUint(ref.Revision, 10) + ";")
	}
	for _, role := range r.roles {
		b.WriteString(role + ":" + strings.Join(v.poolsOf(role), ",") + ";")
	}
	return b.String()
}

// secretRefs returns the present revisions of secrets; that of one that does not exist is 0.
func (v *view) secretRefs(names []string) []*agentv1.SecretRef {
	var refs []*agentv1.SecretRef
	for _, name := range names {
		refs = append(refs, &agentv1.SecretRef{Name: name, Revision: v.s.Secret(name).GetRevision()})
	}
	return refs
}

// poolsOf returns the names of the pools of a role, in order.
func (v *view) poolsOf(role string) []string {
	if v.roles == nil {
		v.roles = map[string][]string{}
		for p := range v.s.Pools() {
			name := p.GetMetadata().GetName()
			for _, r := range v.poolOf(name).GetSpec().GetRoles() {
				v.roles[r] = append(v.roles[r], name)
			}
		}
	}
	return v.roles[role]
}

// membersOf returns the pools whose members a component's firewall speaks of, its own among them.
func membersOf(c *agentv1.PoolComponent) []string {
	members := []string{c.GetName()}
	for _, rule := range slices.Concat(c.GetFirewall().GetRules(), c.GetFirewall().GetEgress()) {
		members = append(members, rule.GetPools()...)
		for _, slot := range rule.GetMachines() {
			if i := strings.LastIndexByte(slot, '-'); i > 0 {
				members = append(members, slot[:i])
			}
		}
	}
	slices.Sort(members)
	return slices.Compact(members)
}

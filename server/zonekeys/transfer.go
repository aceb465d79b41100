package zonekeys

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// policy is who may have copies of a zone, and the rows that say so.
type policy struct {
	zone    *provisionrv1.Zone
	secrets []*provisionrv1.Secret
	// sealed is what opens the secrets: it may come to this member later than they do.
	sealed *raftlogv1.SealedKey
	transfer.Policy
}

// Policy says who may have copies of a zone now: what its object says, or for a reverse zone the default zone's. A key that
// cannot be used is left out, and told of once.
func (k *Keeper) Policy(origin string) transfer.Policy {
	s := k.cfg.State.Read()
	z := zoneOf(s, plain(origin))
	if z.GetSpec().GetTransfer() == nil {
		return transfer.Policy{}
	}
	var secrets []*provisionrv1.Secret
	for _, key := range z.GetSpec().GetTransfer().GetKeys() {
		secrets = append(secrets, s.Secret(key.GetSecret()))
	}
	name, sealed := z.GetMetadata().GetName(), s.SealedKey()
	k.mu.Lock()
	defer k.mu.Unlock()
	if p, ok := k.policies[name]; ok && p.zone == z && p.sealed == sealed && slices.Equal(p.secrets, secrets) {
		return p.Policy
	}
	p := policy{z, secrets, sealed, k.policyOf(z, secrets)}
	if len(k.policies) >= maxPolicies {
		clear(k.policies)
	}
	k.policies[name] = p
	return p.Policy
}

// maxPolicies bounds what is remembered of zones.
const maxPolicies = 10000

// zoneOf returns the zone object that says whom an origin is transferred to, or nil.
func zoneOf(s *state.Snapshot, origin string) *provisionrv1.Zone {
	for z := range s.Zones() {
		if z.GetSpec().GetDomain() == origin {
			return z
		}
	}
	if strings.HasSuffix(origin, ".arpa") {
		return s.Zone(s.DefaultZoneName())
	}
	return nil
}

func (k *Keeper) policyOf(z *provisionrv1.Zone, secrets []*provisionrv1.Secret) (p transfer.Policy) {
	log := k.cfg.Logger.With("zone", z.GetSpec().GetDomain())
	byName := map[string]tsig.Key{}
	for i, t := range z.GetSpec().GetTransfer().GetKeys() {
		key, err := k.transferKey(t, secrets[i])
		if err != nil {
			log.Warn("transfer key is not used", "key", t.GetName(), "err", err)
			continue
		}
		byName[t.GetName()] = key
		p.Keys = append(p.Keys, key)
	}
	if len(p.Keys) == 0 {
		return p
	}
	for _, t := range z.GetSpec().GetTransfer().GetSecondaries() {
		address, err := secondaryAddress(t.GetAddress())
		if err != nil {
			log.Warn("secondary is not told of changes", "address", t.GetAddress(), "err", err)
			continue
		}
		key := p.Keys[0]
		if t.GetKey() != "" {
			named, ok := byName[t.GetKey()]
			if !ok {
				log.Warn("secondary is not told of changes: its key is not there", "address", t.GetAddress(), "key", t.GetKey())
				continue
			}
			key = named
		}
		p.Secondaries = append(p.Secondaries, transfer.Secondary{Address: address, Key: key})
	}
	return p
}

// transferKey makes a key of a Secret. Errors say nothing of its value.
func (k *Keeper) transferKey(t *provisionrv1.TransferKey, secret *provisionrv1.Secret) (tsig.Key, error) {
	if secret == nil {
		return tsig.Key{}, errs.New(errs.NotFound, "secret %s does not exist", t.GetSecret()).WithHint("provisionr secret set %s", t.GetSecret())
	}
	algorithm, err := tsig.ParseAlgorithm(t.GetAlgorithm())
	if err != nil {
		return tsig.Key{}, errs.New(errs.Invalid, "%w", err)
	}
	value, err := k.cfg.Sealer.OpenSecret(secret)
	if err != nil {
		return tsig.Key{}, err
	}
	defer clear(value)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(value)))
	if err != nil {
		return tsig.Key{}, errs.New(errs.Invalid, "secret %s is not in base64, as tsig-keygen prints it", t.GetSecret())
	}
	defer clear(raw)
	key, err := tsig.NewKey(t.GetName(), algorithm, raw)
	if err != nil {
		return tsig.Key{}, errs.New(errs.Invalid, "%w", err)
	}
	return key, nil
}

// secondaryAddress reads IP or IP:PORT.
func secondaryAddress(text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(addr, 53), nil
	}
	return netip.ParseAddrPort(text)
}

package state

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/hashicorp/go-memdb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Table names a set of rows to watch.
type Table uint32

// The tables.
const (
	TablePools Table = 1 << iota
	TableMachines
	TableSlots
	TableClaims
	TableZones
	TableNetworks
	TableProviders
	TableUsers
	TableTokens
	TableMembers
	TableProofs
	TableEvents
	// TableCluster holds the cluster record and its sealed key.
	TableCluster
	TableAuthorities
	TableJoinTokens
	TableVpns
	TableVpnPeers
	TableSecrets
	TableZoneKeys

	tableNames
	tableApplied
)

// Bounds of history: the oldest rows above them are dropped.
const (
	// MaxEvents is how many events are kept.
	MaxEvents = 10000
	// MaxApplied is how many request ids are remembered.
	MaxApplied = 65536
)

// The names of memdb tables and indexes.
const (
	idIndex = "id"

	clusterTable = "cluster"
	metaTable    = "meta"
)

var memTables = map[Table]string{
	TablePools: "pools", TableMachines: "machines", TableSlots: "slots", TableClaims: "claims", TableZones: "zones",
	TableNetworks: "networks", TableProviders: "providers", TableUsers: "users", TableTokens: "tokens",
	TableMembers: "members", TableProofs: "proofs", TableEvents: "events", TableCluster: clusterTable,
	TableAuthorities: "authorities", TableJoinTokens: "join_tokens",
	TableVpns: "vpns", TableVpnPeers: "vpn_peers", TableSecrets: "secrets", TableZoneKeys: "zone_keys", tableNames: "names", tableApplied: "applied",
}

// NameOwner says who has a name within a zone.
type NameOwner struct {
	Zone, Name string
	// Kind is pool (its own name or an alias), slot, zone (a static record) or server (a member as name server).
	Kind string
	// Owner is the name of the pool, of the zone of a static record, or of the member.
	Owner string
}

// meta holds what is counted beside the tables, so that it commits and aborts with them.
type meta struct {
	version                   *provisionrv1.Version
	events, applied, machines int
	eventIndex                uint64
	eventSub                  uint32
}

// singleton wraps a row that exists at most once in the table cluster.
type singleton struct {
	key string
	row any
}

// index orders a table by a key made from a row; a nil key leaves the row out.
type index[T any] func(T) []byte

func (f index[T]) FromObject(raw any) (bool, []byte, error) {
	row, ok := raw.(T)
	if !ok {
		return false, nil, fmt.Errorf("row of type %T in the wrong table", raw)
	}
	key := f(row)
	return key != nil, key, nil
}

func (f index[T]) FromArgs(args ...any) ([]byte, error) {
	key, ok := args[0].([]byte)
	if !ok || len(args) != 1 {
		return nil, fmt.Errorf("an index is asked by one key of bytes")
	}
	return key, nil
}

func unique(indexer memdb.Indexer) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: idIndex, Unique: true, Indexer: indexer}
}

func table(t Table, id memdb.Indexer, others map[string]memdb.Indexer) *memdb.TableSchema {
	indexes := map[string]*memdb.IndexSchema{idIndex: unique(id)}
	for name, indexer := range others {
		indexes[name] = &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: indexer}
	}
	return &memdb.TableSchema{Name: memTables[t], Indexes: indexes}
}

type named interface{ GetMetadata() *provisionrv1.Metadata }

func byName[T named](row T) []byte { return key(row.GetMetadata().GetName()) }

func schema() *memdb.DBSchema {
	none := map[string]memdb.Indexer{}
	tables := []*memdb.TableSchema{
		table(TablePools, index[*provisionrv1.Pool](byName[*provisionrv1.Pool]), none),
		table(TableMachines, index[*provisionrv1.Machine](byName[*provisionrv1.Machine]), map[string]memdb.Indexer{
			"pool": index[*provisionrv1.Machine](func(m *provisionrv1.Machine) []byte {
				return appendUint(key(m.GetSpec().GetPool()), uint64(m.GetSpec().GetIndex()))
			}),
			"vpn": index[*provisionrv1.Machine](func(m *provisionrv1.Machine) []byte {
				if m.GetStatus().GetVpnAddress() == "" {
					return nil
				}
				return claimKey(m.GetStatus().GetVpn(), m.GetStatus().GetVpnAddress())
			}),
			"vpn_key": index[*provisionrv1.Machine](func(m *provisionrv1.Machine) []byte {
				if m.GetStatus().GetFacts().GetVpnPublicKey() == "" {
					return nil
				}
				return key(m.GetStatus().GetFacts().GetVpnPublicKey())
			}),
		}),
		table(TableSlots, index[*provisionrv1.Slot](byName[*provisionrv1.Slot]), map[string]memdb.Indexer{
			"pool": index[*provisionrv1.Slot](func(s *provisionrv1.Slot) []byte {
				return appendUint(key(s.GetPool()), uint64(s.GetIndex()))
			}),
			"fqdn": index[*provisionrv1.Slot](func(s *provisionrv1.Slot) []byte { return key(s.GetFqdn()) }),
		}),
		table(TableClaims, index[*provisionrv1.AddressClaim](func(c *provisionrv1.AddressClaim) []byte {
			return claimKey(c.GetNetwork(), c.GetAddress())
		}), map[string]memdb.Indexer{
			"machine": index[*provisionrv1.AddressClaim](func(c *provisionrv1.AddressClaim) []byte {
				if c.GetMachine() == "" {
					return nil
				}
				return key(c.GetMachine())
			}),
			"released": index[*provisionrv1.AddressClaim](func(c *provisionrv1.AddressClaim) []byte {
				if c.GetMachine() != "" {
					return nil
				}
				return appendUint(key(c.GetNetwork()), c.GetReleased())
			}),
		}),
		table(TableZones, index[*ZoneRow](byName[*ZoneRow]), none),
		table(TableNetworks, index[*provisionrv1.Network](byName[*provisionrv1.Network]), none),
		table(TableProviders, index[*provisionrv1.Provider](byName[*provisionrv1.Provider]), none),
		table(TableUsers, index[*provisionrv1.User](byName[*provisionrv1.User]), none),
		table(TableTokens, index[*provisionrv1.Token](byName[*provisionrv1.Token]), map[string]memdb.Indexer{
			"user": index[*provisionrv1.Token](func(t *provisionrv1.Token) []byte { return key(t.GetUser()) }),
		}),
		table(TableMembers, index[*provisionrv1.Member](byName[*provisionrv1.Member]), none),
		table(TableProofs, index[*provisionrv1.Proof](func(p *provisionrv1.Proof) []byte {
			return key(p.GetMachine(), p.GetAssumption(), p.GetObserver())
		}), map[string]memdb.Indexer{
			"observer": index[*provisionrv1.Proof](func(p *provisionrv1.Proof) []byte { return key(p.GetObserver()) }),
		}),
		table(TableEvents, index[*provisionrv1.Event](func(e *provisionrv1.Event) []byte { return versionKey(e.GetVersion()) }), none),
		table(TableCluster, index[*singleton](func(s *singleton) []byte { return key(s.key) }), none),
		table(TableAuthorities, index[*raftlogv1.Authority](func(a *raftlogv1.Authority) []byte { return key(a.GetId()) }), none),
		table(TableJoinTokens, index[*raftlogv1.JoinToken](func(t *raftlogv1.JoinToken) []byte { return key(t.GetId()) }), none),
		table(TableVpns, index[*provisionrv1.Vpn](byName[*provisionrv1.Vpn]), none),
		table(TableVpnPeers, index[*provisionrv1.VpnPeer](byName[*provisionrv1.VpnPeer]), map[string]memdb.Indexer{
			"vpn": index[*provisionrv1.VpnPeer](func(p *provisionrv1.VpnPeer) []byte {
				return claimKey(p.GetSpec().GetVpn(), p.GetAddress())
			}),
		}),
		table(TableSecrets, index[*provisionrv1.Secret](byName[*provisionrv1.Secret]), none),
		table(TableZoneKeys, index[*provisionrv1.ZoneKey](byName[*provisionrv1.ZoneKey]), map[string]memdb.Indexer{
			"origin": index[*provisionrv1.ZoneKey](func(k *provisionrv1.ZoneKey) []byte { return key(k.GetOrigin()) }),
		}),
		table(tableNames, index[*NameOwner](func(n *NameOwner) []byte { return key(n.Zone, n.Name) }), nil),
		table(tableApplied, index[*raftlogv1.AppliedRequest](func(a *raftlogv1.AppliedRequest) []byte { return key(a.GetId()) }),
			map[string]memdb.Indexer{
				"version": index[*raftlogv1.AppliedRequest](func(a *raftlogv1.AppliedRequest) []byte { return versionKey(a.GetVersion()) }),
			}),
		{Name: metaTable, Indexes: map[string]*memdb.IndexSchema{idIndex: unique(index[*meta](func(*meta) []byte { return []byte{0} }))}},
	}
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, t := range tables {
		s.Tables[t.Name] = t
	}
	return s
}

// key joins parts so that no two lists of parts give the same key and none is a prefix of a longer part. Parts hold no
// zero byte: the FSM admits only names without one.
func key(parts ...string) []byte {
	n := len(parts)
	for _, p := range parts {
		n += len(p)
	}
	k := make([]byte, 0, n+24)
	for _, p := range parts {
		k = append(append(k, p...), 0)
	}
	return k
}

func appendUint(k []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(k, n) }

func versionKey(v *provisionrv1.Version) []byte {
	k := appendUint(make([]byte, 0, 20), v.GetIncarnation())
	return binary.BigEndian.AppendUint32(appendUint(k, v.GetIndex()), v.GetSub())
}

// claimKey orders the claims of a network by address, which text does not.
func claimKey(network, address string) []byte {
	k := key(network)
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return append(k, address...)
	}
	b := addr.As16()
	return append(k, b[:]...)
}

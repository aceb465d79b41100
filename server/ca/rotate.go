package ca

import (
	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/seal"
)

// Prepare makes a new authority, which everybody trusts as soon as the command is committed and distributed.
func (a *CA) Prepare() (*raftlogv1.Command, error) {
	records := a.config.State()
	ring, _, err := a.open(records)
	if err != nil {
		return nil, err
	}
	authority, err := pki.NewAuthority(records.Cluster().GetId(), a.config.Now())
	if err != nil {
		return nil, err
	}
	row, err := sealAuthority(ring, authority, Prepared)
	if err != nil {
		return nil, err
	}
	return putAuthority(row), nil
}

// Activate lets a prepared authority sign from now on. The one before it stays trusted until it is retired.
// The caller must have seen that every agent that matters has the new root.
func (a *CA) Activate(id string) (*raftlogv1.Command, error) {
	row, err := a.find(id)
	if err != nil {
		return nil, err
	}
	if row.GetState() == Retired {
		return nil, errs.New(errs.Conflict, "cannot activate authority %s: it is retired", id)
	}
	return moved(row, Active), nil
}

// Retire ends the trust in an authority. The one that signs cannot be retired.
func (a *CA) Retire(id string) (*raftlogv1.Command, error) {
	row, err := a.find(id)
	if err != nil {
		return nil, err
	}
	signer, _, err := a.newestActive(a.config.State())
	if err != nil {
		return nil, err
	}
	if signer.GetId() == id {
		return nil, errs.New(errs.Conflict, "cannot retire authority %s: it is the one that signs", id).
			WithHint("prepare and activate another one first")
	}
	return moved(row, Retired), nil
}

func (a *CA) find(id string) (*raftlogv1.Authority, error) {
	for row := range a.config.State().Authorities() {
		if row.GetId() == id && row.GetPurpose() == "" {
			return row, nil
		}
	}
	return nil, errs.New(errs.NotFound, "cannot find authority %s", id)
}

func moved(row *raftlogv1.Authority, state string) *raftlogv1.Command {
	row = proto.CloneOf(row)
	row.State = state
	return putAuthority(row)
}

func putAuthority(row *raftlogv1.Authority) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutAuthority{PutAuthority: &raftlogv1.PutAuthority{Authority: row}}}
}

func putSealedKey(row *raftlogv1.SealedKey) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutSealedKey{PutSealedKey: &raftlogv1.PutSealedKey{Key: row}}}
}

// Admit wraps the data key for a further member.
func (a *CA) Admit(member string, sealingKey []byte) (*raftlogv1.Command, error) {
	records := a.config.State()
	ring, _, err := a.open(records)
	if err != nil {
		return nil, err
	}
	wrapped, err := ring.Wrap(sealingKey, records.Cluster().GetId())
	if err != nil {
		return nil, err
	}
	row := proto.CloneOf(records.SealedKey())
	row.Version++
	row.Newest, row.Oldest = ring.Version(), ring.Oldest()
	row.Wrapped[member] = wrapped
	return putSealedKey(row), nil
}

// Evict returns the commands that give the remaining members a new data key and seal everything with it anew; an empty
// name evicts who has the key and is no member. They must be committed in order. It may be called again after any of them: a
// rotation that was interrupted is completed. The last is refused where a secret was put in between that only the old key opens:
// call it again then.
//
// What the member saw before stays known to it: an operator who distrusts it rotates the authority as well.
func (a *CA) Evict(member string) ([]*raftlogv1.Command, error) {
	records := a.config.State()
	old, tokenKey, err := a.open(records)
	if err != nil {
		return nil, err
	}
	ring, err := old.Rotated()
	if err != nil {
		return nil, err
	}
	version := records.SealedKey().GetVersion()
	both, err := wrapFor(records, member, ring, tokenKey, version+1)
	if err != nil {
		return nil, err
	}
	secrets, err := reseal(records, old, ring)
	if err != nil {
		return nil, err
	}
	zoneKeys, err := resealZoneKeys(records, old, ring)
	if err != nil {
		return nil, err
	}
	commands := sealedKeys(both, secrets, zoneKeys)
	version += uint64(len(commands))
	for row := range records.Authorities() {
		purpose := purposeAuthority + row.GetId()
		der, err := old.Open(purpose, row.GetSealedKey())
		if err != nil {
			return nil, err
		}
		again := proto.CloneOf(row)
		if again.SealedKey, err = ring.Seal(purpose, der); err != nil {
			return nil, err
		}
		commands = append(commands, putAuthority(again))
	}
	newest, err := wrapFor(records, member, ring.Newest(), tokenKey, version+1)
	if err != nil {
		return nil, err
	}
	return append(commands, putSealedKey(newest)), nil
}

// wrapFor wraps the ring for every member but one.
func wrapFor(records Records, without string, ring *seal.Ring, tokenKey []byte, version uint64) (*raftlogv1.SealedKey, error) {
	sealed, err := ring.Seal(purposeTokens, tokenKey)
	if err != nil {
		return nil, err
	}
	row := &raftlogv1.SealedKey{Version: version, Wrapped: make(map[string][]byte), SealedTokenKey: sealed, Newest: ring.Version(), Oldest: ring.Oldest()}
	for m := range records.Members() {
		name := m.GetMetadata().GetName()
		if name == without {
			continue
		}
		if row.Wrapped[name], err = ring.Wrap(m.GetSealingKey(), records.Cluster().GetId()); err != nil {
			return nil, err
		}
	}
	return row, nil
}

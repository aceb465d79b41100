package zonekeys

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// State is what a Keeper reads.
type State interface {
	Read() *state.Snapshot
	Watch(tables ...state.Table) <-chan struct{}
}

// Sealer seals and opens what is encrypted in the state. Package ca has the one.
type Sealer interface {
	SealZoneKey(name string, private []byte) (ciphertext []byte, keyVersion uint64, err error)
	OpenZoneKey(k *provisionrv1.ZoneKey) ([]byte, error)
	OpenSecret(s *provisionrv1.Secret) ([]byte, error)
}

// Config of a Keeper.
type Config struct {
	// State, Sealer and Logger are required.
	State  State
	Sealer Sealer
	Logger *slog.Logger
	// Put commits a command. Required by Keep only.
	Put func(ctx context.Context, cmd *raftlogv1.Command) error
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Keeper has the keys of zones. Its methods may be called concurrently. It is a dnszone.Signing.
type Keeper struct {
	cfg Config

	mu sync.Mutex
	// opened are private keys by name, signers and policies by origin: see their users.
	opened   map[string]*dnssec.Key
	signers  map[string]signer
	policies map[string]policy
	// pruneAt is how many opened keys have those of removed rows looked for.
	pruneAt int
}

// New makes a Keeper. It reads nothing yet.
func New(c Config) (*Keeper, error) {
	if c.State == nil || c.Sealer == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot keep zone keys: state, sealer and logger are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Keeper{
		cfg: c, opened: map[string]*dnssec.Key{}, signers: map[string]signer{}, policies: map[string]policy{}, pruneAt: 64,
	}, nil
}

const (
	// pause is the least time between two looks at the state: every change of a name may be one of the networks, too.
	pause = 5 * time.Second
	// retry is after how long what failed is tried again.
	retry = 10 * time.Second
	// longest is the longest time between two looks: clocks are set.
	longest = time.Hour
)

// Keep keeps the keys in step with the zones and the time, until ctx ends, whose error it returns. It is for the leader.
func (k *Keeper) Keep(ctx context.Context) error {
	unsigned := map[string]time.Time{}
	for {
		changed := k.cfg.State.Watch(state.TableZoneKeys, state.TableZones, state.TableNetworks, state.TableCluster)
		now := k.cfg.Now()
		p := planOf(k.cfg.State.Read(), now, unsigned)
		wait := longest
		if !p.next.IsZero() {
			wait = max(min(p.next.Sub(now), longest), time.Second)
		}
		if err := k.carryOut(ctx, p, now); err != nil && ctx.Err() == nil {
			if !errs.Is(err, errs.Conflict) {
				k.cfg.Logger.Warn("cannot keep the dnssec keys; trying again", "err", err)
			}
			wait = retry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(wait):
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// carryOut does what a plan says until ctx ends: the keys that there are first, whose signatures expire. What fails keeps
// nothing else from being done.
func (k *Keeper) carryOut(ctx context.Context, p plan, now time.Time) error {
	var failed, raced error
	note := func(err error) {
		if errs.Is(err, errs.Conflict) {
			raced = err
		} else if err != nil {
			failed = errors.Join(failed, err)
		}
	}
	for _, command := range p.commands {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		note(k.cfg.Put(ctx, command))
	}
	for _, origin := range p.make {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		note(k.first(ctx, origin, now))
	}
	if failed != nil {
		return failed
	}
	return raced
}

// first makes the first key of an origin.
func (k *Keeper) first(ctx context.Context, origin string, now time.Time) error {
	command, err := k.generate(k.cfg.State.Read(), origin, state.KeyActive, now)
	if err != nil {
		return err
	}
	if err := k.cfg.Put(ctx, command); err != nil {
		return err
	}
	k.cfg.Logger.Info("dnssec key made", "zone", origin, "tag", command.GetPutZoneKey().GetKey().GetTag())
	return nil
}

// generate returns the command that creates a key of an origin.
func (k *Keeper) generate(s *state.Snapshot, origin, in string, now time.Time) (*raftlogv1.Command, error) {
	var taken []uint16
	for key := range s.ZoneKeysOf(origin) {
		taken = append(taken, uint16(key.GetTag()))
	}
	key, err := dnssec.Generate(origin, taken...)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot make zone key: %w", err)
	}
	private, err := key.Marshal()
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot make zone key: %w", err)
	}
	defer clear(private)
	row := &provisionrv1.ZoneKey{
		Metadata: &provisionrv1.Metadata{Name: state.ZoneKeyName(origin, uint32(key.Tag()))},
		Origin:   origin, Tag: uint32(key.Tag()), State: in, PublicKey: key.Public(),
	}
	if in == state.KeyActive {
		row.Signed = timestamppb.New(now)
	}
	if row.Ciphertext, row.KeyVersion, err = k.cfg.Sealer.SealZoneKey(row.GetMetadata().GetName(), private); err != nil {
		return nil, err
	}
	return put(row), nil
}

func put(row *provisionrv1.ZoneKey) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutZoneKey{PutZoneKey: &raftlogv1.PutZoneKey{Key: row}}}
}

// plain returns an origin as the state has it.
func plain(origin string) string { return strings.ToLower(strings.TrimSuffix(origin, ".")) }

// keysOf returns the keys of an origin, which are rows of the store.
func keysOf(s *state.Snapshot, origin string) []*provisionrv1.ZoneKey {
	return slices.Collect(s.ZoneKeysOf(origin))
}

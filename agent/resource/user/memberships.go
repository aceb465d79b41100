package user

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/accounts"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// givenPath holds, by account, the groups that we put it into.
	givenPath = conffile.StateDir + "/memberships.json"
	maxGiven  = 4 << 20
)

// memberships takes accounts out of groups that we put them into and that are no longer listed. What people did themselves
// stays, and so do accounts that are no longer listed.
type memberships struct {
	host     *host.Host
	accounts *accounts.Reader
	wanted   map[string][]string
	mu       sync.Mutex
}

func newMemberships(h *host.Host, db *accounts.Reader, users []*agentv1.User) *memberships {
	m := &memberships{host: h, accounts: db, wanted: make(map[string][]string)}
	for _, u := range users {
		if !u.Absent {
			m.wanted[u.Name] = append(slices.Clone(u.Groups), u.Group)
		}
	}
	return m
}

// Name implements converge.Resource.
func (m *memberships) Name() string { return "user/memberships" }

// Triggers implements converge.Triggered.
func (m *memberships) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: "/etc/group"}}
}

// load returns what was given. What cannot be read counts as nothing: such memberships stay.
func (m *memberships) load() (map[string][]string, error) {
	b, err := conffile.Read(m.host, givenPath, maxGiven)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var given map[string][]string
	if json.Unmarshal(b, &given) != nil || given == nil {
		given = make(map[string][]string)
	}
	return given, nil
}

func (m *memberships) save(given map[string][]string) error {
	b, err := json.Marshal(given)
	if err != nil {
		return err
	}
	return conffile.Apply(m.host, &conffile.File{Path: givenPath, Content: append(b, '\n'), Mode: 0o600})
}

// give notes that an account is about to be put into groups.
func (m *memberships) give(user string, groups []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	given, err := m.load()
	if err != nil {
		return err
	}
	for _, g := range groups {
		if !slices.Contains(given[user], g) {
			given[user] = append(given[user], g)
		}
	}
	return m.save(given)
}

// stale returns accounts with the groups to take them out of.
func (m *memberships) stale(given map[string][]string) (map[string][]string, error) {
	db, err := m.accounts.Load()
	if err != nil {
		return nil, err
	}
	stale := make(map[string][]string)
	for user, groups := range given {
		for _, name := range groups {
			if g, ok := db.Group(name); ok && !slices.Contains(m.wanted[user], name) && slices.Contains(g.Members, user) {
				stale[user] = append(stale[user], name)
			}
		}
	}
	return stale, nil
}

// Check implements converge.Resource.
func (m *memberships) Check(context.Context) (converge.Diff, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	given, err := m.load()
	if err != nil {
		return converge.Diff{}, err
	}
	stale, err := m.stale(given)
	var lines []string
	for _, user := range slices.Sorted(maps.Keys(stale)) {
		lines = append(lines, "account "+user+" is in groups that are not listed: "+strings.Join(stale[user], ", "))
	}
	return converge.Diff{Text: textdiff.Join(lines...)}, err
}

// Apply implements converge.Resource.
func (m *memberships) Apply(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	given, err := m.load()
	if err != nil {
		return err
	}
	stale, err := m.stale(given)
	if err != nil {
		return err
	}
	for _, user := range slices.Sorted(maps.Keys(stale)) {
		for _, g := range stale[user] {
			_, err := command.Run(ctx, m.host, host.Command{Path: "gpasswd", Args: []string{"--delete", user, g}, Timeout: accountTimeout})
			if err != nil {
				return fmt.Errorf("cannot take account %s out of group %s: %w", user, g, err)
			}
		}
	}
	for user := range given {
		given[user] = slices.DeleteFunc(given[user], func(g string) bool { return !slices.Contains(m.wanted[user], g) })
		if len(given[user]) == 0 {
			delete(given, user)
		}
	}
	return m.save(given)
}

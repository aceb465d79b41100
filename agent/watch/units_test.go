package watch

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// fakeBus is a bus without systemd.
type fakeBus struct {
	mu      sync.Mutex
	rules   []string
	signals chan *dbus.Signal
	fail    error
}

func (b *fakeBus) match(rule string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rules = append(b.rules, rule)
	return b.fail
}

func (b *fakeBus) unmatch(rule string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rules = slices.DeleteFunc(b.rules, func(r string) bool { return r == rule })
	return nil
}

func (b *fakeBus) subscribe(context.Context) (<-chan *dbus.Signal, error) { return b.signals, nil }
func (b *fakeBus) close()                                                 {}

func changed(path, property string) *dbus.Signal {
	return &dbus.Signal{Path: dbus.ObjectPath(path), Name: "org.freedesktop.DBus.Properties.PropertiesChanged",
		Body: []any{"org.freedesktop.systemd1.Unit", map[string]dbus.Variant{property: dbus.MakeVariant("x")}, []string{"Job"}}}
}

func TestUnits(t *testing.T) {
	b := &fakeBus{signals: make(chan *dbus.Signal, 8)}
	u := newUnits(func(context.Context) (bus, error) { return b, nil })
	u.set([]string{"nginx.service", "a-b@c.service"})
	e := hear(t, u)
	const nginx, odd = "/org/freedesktop/systemd1/unit/nginx_2eservice", "/org/freedesktop/systemd1/unit/a_2db_40c_2eservice"
	b.mu.Lock()
	if rules := strings.Join(b.rules, "\n"); len(b.rules) != 3 || !strings.Contains(rules, "path='"+odd+"'") || !strings.Contains(rules, nginx) {
		t.Errorf("rules:\n%s", rules)
	}
	b.mu.Unlock()
	b.signals <- changed(odd, "MemoryCurrent") // not ours to care for
	b.signals <- changed("/org/freedesktop/systemd1/unit/ssh_2eservice", "ActiveState")
	b.signals <- changed(nginx, "ActiveState")
	e.not(t, "a-b@c.service", "nginx.service")
	b.signals <- changed(odd, "SubState")
	e.wait(t, "a-b@c.service")
	b.signals <- changed(odd, "SubState") // the same again, as of a unit that is loaded only to be asked about
	b.signals <- changed(nginx, "SubState")
	e.not(t, "a-b@c.service", "nginx.service")
	b.signals <- &dbus.Signal{Name: "org.freedesktop.systemd1.Manager.UnitFilesChanged"}
	e.wait(t, "nginx.service")
	u.set([]string{"ssh.service"})
	b.mu.Lock()
	defer b.mu.Unlock()
	if rules := strings.Join(b.rules, "\n"); len(b.rules) != 2 || strings.Contains(rules, nginx) {
		t.Errorf("rules after a new plan:\n%s", rules)
	}
}

package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

const (
	manager    = "org.freedesktop.systemd1.Manager"
	unitKind   = "org.freedesktop.systemd1.Unit"
	properties = "org.freedesktop.DBus.Properties"
	unitsPath  = "/org/freedesktop/systemd1/unit/"
	// maxRules bounds the rules that the bus filters by; a connection may have 512 (dbus-daemon(1)). Beyond, all units are
	// heard, and filtered here.
	maxRules = 256
	// signalQueue is how many signals wait in order; what comes beyond waits beside, and costs more.
	signalQueue = 256
	// busTimeout bounds a call: who sets what is watched waits for it.
	busTimeout = 5 * time.Second
)

// watchedProperties are those of a unit whose change may be drift (org.freedesktop.systemd1(5)).
var watchedProperties = []string{"ActiveState", "SubState", "LoadState", "UnitFileState", "NeedDaemonReload"}

// bus is a connection that signals come from.
type bus interface {
	// match has signals sent that obey a rule.
	match(rule string) error
	unmatch(rule string) error
	// subscribe has systemd send signals at all, and returns them. The channel is closed when the connection ends.
	subscribe(ctx context.Context) (<-chan *dbus.Signal, error)
	close()
}

// units watches systemd's units.
type units struct {
	connect func(context.Context) (bus, error)

	mu    sync.Mutex
	names map[dbus.ObjectPath]string
	// told is what was last said of each unit's watched properties. A unit that nothing keeps loaded, as one that does not
	// exist, is loaded anew for each question about it, and systemd tells all of it each time.
	told  map[dbus.ObjectPath]map[string]string
	rules []string
	bus   bus
	// broken holds why the rules could not be changed.
	broken chan error
}

func newUnits(connect func(context.Context) (bus, error)) *units {
	return &units{connect: connect, broken: make(chan error, 1), told: make(map[dbus.ObjectPath]map[string]string)}
}

func (u *units) set(names []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.names = make(map[dbus.ObjectPath]string, len(names))
	for _, name := range names {
		u.names[dbus.ObjectPath(unitsPath+systemd.PathBusEscape(name))] = name
	}
	maps.DeleteFunc(u.told, func(path dbus.ObjectPath, _ map[string]string) bool { return u.names[path] == "" })
	if u.bus == nil {
		return
	}
	if err := u.apply(); err != nil {
		select {
		case u.broken <- err:
		default:
		}
	}
}

// wanted are the rules for the present names.
func (u *units) wanted() []string {
	rules := []string{"type='signal',sender='org.freedesktop.systemd1',interface='" + manager + "',member='UnitFilesChanged'"}
	const changed = "type='signal',sender='org.freedesktop.systemd1',interface='" + properties + "',member='PropertiesChanged',arg0='" + unitKind + "'"
	if len(u.names) > maxRules {
		return append(rules, changed)
	}
	for path := range u.names {
		rules = append(rules, changed+",path='"+string(path)+"'")
	}
	return rules
}

// apply adds and removes rules. The caller holds the lock.
func (u *units) apply() error {
	wanted := u.wanted()
	for _, rule := range wanted {
		if !slices.Contains(u.rules, rule) {
			if err := u.bus.match(rule); err != nil {
				return fmt.Errorf("cannot watch units: %w", err)
			}
		}
	}
	for _, rule := range u.rules {
		if !slices.Contains(wanted, rule) {
			if err := u.bus.unmatch(rule); err != nil {
				return fmt.Errorf("cannot watch units: %w", err)
			}
		}
	}
	u.rules = wanted
	return nil
}

func (u *units) run(ctx context.Context, t teller) error {
	b, err := u.connect(ctx)
	if err != nil {
		return fmt.Errorf("cannot watch units: %w", err)
	}
	defer b.close()
	signals, err := b.subscribe(ctx)
	if err != nil {
		return fmt.Errorf("cannot watch units: %w", err)
	}
	u.mu.Lock()
	u.bus, u.rules, u.told = b, nil, make(map[dbus.ObjectPath]map[string]string)
	err = u.apply()
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		u.bus = nil
		u.mu.Unlock()
	}()
	if err != nil {
		return err
	}
	t.lost() // whatever happened before
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-u.broken:
			return err
		case signal, ok := <-signals:
			if !ok {
				return errors.New("cannot watch units: the connection to the bus ended")
			}
			if names := u.about(signal); len(names) > 0 {
				t.touch(names...)
			}
		}
	}
}

// about returns the watched units that a signal is about.
func (u *units) about(s *dbus.Signal) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch s.Name {
	case manager + ".UnitFilesChanged":
		var all []string
		for _, name := range u.names {
			all = append(all, name)
		}
		return all
	case properties + ".PropertiesChanged":
		if name, ok := u.names[s.Path]; ok && u.concerns(s) {
			return []string{name}
		}
	}
	return nil
}

// concerns reports whether a watched property of a unit is another than was told before: the body is the interface, values by
// name, and names whose values are not told (D-Bus specification, org.freedesktop.DBus.Properties). The caller holds the lock.
func (u *units) concerns(s *dbus.Signal) bool {
	if len(s.Body) < 3 || s.Body[0] != unitKind {
		return false
	}
	values, _ := s.Body[1].(map[string]dbus.Variant)
	names, _ := s.Body[2].([]string)
	before := u.told[s.Path]
	if before == nil {
		before = make(map[string]string, len(watchedProperties))
		u.told[s.Path] = before
	}
	news := false
	for _, name := range watchedProperties {
		if slices.Contains(names, name) {
			delete(before, name)
			news = true
		} else if value, ok := values[name]; ok && before[name] != value.String() {
			before[name] = value.String()
			news = true
		}
	}
	return news
}

// systemBus is the real bus.
type systemBus struct{ conn *dbus.Conn }

// connectBus connects to the system bus or, where there is none, as in small systems and early in the boot, to systemd itself.
func connectBus(ctx context.Context) (bus, error) {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err == nil {
		return &systemBus{conn}, nil
	}
	direct, failed := dbus.Dial("unix:path=/run/systemd/private", dbus.WithContext(ctx))
	if failed != nil {
		return nil, err
	}
	if failed := direct.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(0))}); failed != nil {
		direct.Close()
		return nil, errors.Join(err, failed)
	}
	return &directBus{systemBus{direct}}, nil
}

func (b *systemBus) match(rule string) error {
	return call(b.conn.Context(), b.conn.BusObject(), "org.freedesktop.DBus.AddMatch", rule)
}

func (b *systemBus) unmatch(rule string) error {
	return call(b.conn.Context(), b.conn.BusObject(), "org.freedesktop.DBus.RemoveMatch", rule)
}

func call(ctx context.Context, object dbus.BusObject, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	return object.CallWithContext(ctx, method, 0, args...).Err
}

func (b *systemBus) subscribe(ctx context.Context) (<-chan *dbus.Signal, error) {
	signals := make(chan *dbus.Signal, signalQueue)
	b.conn.Signal(signals)
	return signals, call(ctx, b.conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1"), manager+".Subscribe")
}

func (b *systemBus) close() { _ = b.conn.Close() }

// directBus is a connection to systemd without a bus between: all signals come, without rules.
type directBus struct{ systemBus }

func (*directBus) match(string) error   { return nil }
func (*directBus) unmatch(string) error { return nil }

package host

import (
	"slices"
	"sync"
	"time"
)

// aheadFor is how long what was asked ahead may serve.
const aheadFor = time.Second

// ahead are questions that were asked before their answers are needed: systemd answers meanwhile. The zero value has none. Safe for several goroutines.
type ahead struct {
	mu    sync.Mutex
	asked *inquiry
	at    time.Time
	// names are those that were asked for, in order, empty where the answer has served.
	names []string
}

// ask forgets what was asked before. Where it cannot ask, Unit asks by itself.
func (a *ahead) ask(names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget()
	if len(names) == 0 {
		return
	}
	if q, err := ask(names); err == nil {
		a.asked, a.at, a.names = q, time.Now(), slices.Clone(names)
	}
}

// take returns the answer about a unit, at most once.
func (a *ahead) take(name string) (Unit, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := slices.Index(a.names, name)
	if at < 0 {
		return Unit{}, false
	}
	if time.Since(a.at) > aheadFor {
		a.forget()
		return Unit{}, false
	}
	u, err := a.asked.unit(at)
	if err != nil {
		a.forget()
		return Unit{}, false
	}
	a.names[at] = ""
	return u, true
}

func (a *ahead) forget() {
	if a.asked != nil {
		a.asked.close()
	}
	a.asked, a.names = nil, nil
}

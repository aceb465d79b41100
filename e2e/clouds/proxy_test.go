package clouds

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"

	"github.com/provisionr/provisionr/server/provider"
)

// question is what a request asks, in words that do not depend on the vendor.
type question struct {
	// action as the vendor calls it.
	action string
	kind   kind
	// ends are the provider's ids of the instances that the call terminates.
	ends []string
}

// answer is an HTTP answer.
type answer struct {
	status int
	header http.Header
	body   []byte
	at     time.Time
}

// instance is the truth about an instance that exists.
type instance struct {
	id, machine, slot string
	// live says that it starts or runs, and nobody has asked for its end.
	live, running bool
}

// vendor is a cloud's test server, and what the proxy and the invariants must know of the vendor.
type vendor interface {
	http.Handler
	// provider returns a new provider, as a process that has just started has it.
	provider(*http.Client) (provider.Provider, error)
	// read understands a request.
	read(r *http.Request, body []byte) question
	// throttled is how the vendor refuses one call of too many, unavailable how it is out of order. The dice choose where
	// there are several ways.
	throttled(question, *rand.Rand) answer
	unavailable(question, *rand.Rand) answer
	// instances are those that exist.
	instances() []instance
	// made counts the instances that were ever made, by machine.
	made() map[string]int
	// groups has the pools whose firewall groups, or parts of them, exist.
	groups() map[string]bool
	// leftovers names what exists and is of no instance.
	leftovers() []string
	// kill ends an instance behind our back.
	kill(t failer, i instance)
}

// failer is what helpers need of testing.TB.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// maxHistory bounds the answers that are kept of one question.
const maxHistory = 64

// proxy is in front of a vendor's server.
type proxy struct {
	vendor vendor
	// decide says what happens to a call; happened hears what did.
	decide   func(question) (fault, *rand.Rand)
	happened func(question, fault)
	// depose takes the leadership away from whoever has it.
	depose func()
	// acts is called before a call acts, acted after.
	acts, acted func(question)

	inFlight sync.WaitGroup
	mu       sync.Mutex
	history  map[string][]answer
}

// ServeHTTP implements http.Handler. Once the request is read, it does not matter any more whether the client still waits.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.inFlight.Add(1)
	defer p.inFlight.Done()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	q := p.vendor.read(r, body)
	what, dice := p.decide(q)
	key := r.Method + " " + r.URL.String() + " " + string(body)
	old, ok := p.earlier(key, dice, what)
	if what == stale && !ok {
		what = fine
	}
	p.happened(q, what)
	switch what {
	case cut:
		panic(http.ErrAbortHandler)
	case unavailable:
		p.vendor.unavailable(q, dice).write(w)
		return
	case throttled:
		p.vendor.throttled(q, dice).write(w)
		return
	case stale:
		old.write(w)
		return
	case slow:
		time.Sleep(between(dice, 0, longestHold*9/10))
	case late:
		p.depose()
		time.Sleep(between(dice, time.Second, longestHold))
	}
	a := p.forward(q, key, r, body)
	switch what {
	case lost:
		panic(http.ErrAbortHandler)
	case unavailableAfter:
		a = p.vendor.unavailable(q, dice)
	case throttledAfter:
		a = p.vendor.throttled(q, dice)
	case slow:
		time.Sleep(between(dice, 0, longestHold))
	case truncated:
		a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
		a.body = a.body[:len(a.body)*dice.IntN(100)/100]
		a.write(w)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	a.write(w)
}

// forward has the call act.
func (p *proxy) forward(q question, key string, r *http.Request, body []byte) answer {
	p.acts(q)
	r = r.WithContext(context.WithoutCancel(r.Context()))
	r.Body = io.NopCloser(bytes.NewReader(body))
	recorder := httptest.NewRecorder()
	p.vendor.ServeHTTP(recorder, r)
	a := answer{recorder.Code, recorder.Header(), recorder.Body.Bytes(), time.Now()}
	p.acted(q)
	if q.kind == lists && a.status == http.StatusOK {
		p.mu.Lock()
		defer p.mu.Unlock()
		all := p.history[key]
		p.history[key] = append(all[max(0, len(all)-maxHistory+1):], a)
	}
	return a
}

// earlier returns an answer to the same question that was right not long ago.
func (p *proxy) earlier(key string, dice *rand.Rand, what fault) (answer, bool) {
	if what != stale {
		return answer{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []answer
	for _, a := range p.history[key] {
		if time.Since(a.at) <= oldestAnswer {
			all = append(all, a)
		}
	}
	if len(all) == 0 {
		return answer{}, false
	}
	// One time in two it is the oldest: others tell little that is new.
	if dice.IntN(2) == 0 {
		return all[0], true
	}
	return all[dice.IntN(len(all))], true
}

func (a answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// text makes an answer.
func text(status int, contentType, body string) answer {
	return answer{status: status, header: http.Header{"Content-Type": {contentType}}, body: []byte(body)}
}

// page is what a load balancer says.
func page() answer {
	return text(http.StatusServiceUnavailable, "text/html", "<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>")
}

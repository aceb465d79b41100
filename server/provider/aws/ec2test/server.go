package ec2test

import (
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test/model"
)

// The bounds of a request's body and of the violations that are kept.
const (
	maxBody       = 1 << 20
	maxViolations = 1000
)

// Server is the cloud. It is an http.Handler for EC2, SSM and STS alike; all methods may be called concurrently.
type Server struct {
	config Config
	models *model.Models

	mu         sync.Mutex
	rand       *rand.Rand
	hook       func(Call) Fault
	throttled  map[string]int
	denied     map[string]bool
	expected   map[string]bool
	violations []string
	calls      map[string]int
	errors     map[string]int
	levels     map[string]level
	keys       map[string]*credentials
	roles      map[string]bool
	parameters map[string]string

	vpcs       []*vpc
	subnets    []*subnet
	types      []*instanceType
	images     []*image
	keyPairs   map[string]string
	profiles   map[string]string
	instances  []*instance
	byID       map[string]*instance
	groups     []*group
	rules      []*rule
	volumes    []*volume
	interfaces []*networkInterface
	spots      []*spotRequest
	tokens     map[string]*launch
	capacity   map[capacityKey]int
	ids        int
}

func newServer(config Config) (*Server, error) {
	models, err := model.Load()
	if err != nil {
		return nil, err
	}
	config = config.withDefaults()
	s := &Server{
		config: config, models: models, rand: rand.New(rand.NewPCG(config.Seed, 0xec2)),
		throttled: map[string]int{}, denied: map[string]bool{}, expected: map[string]bool{}, calls: map[string]int{},
		errors: map[string]int{}, levels: map[string]level{}, parameters: map[string]string{},
		byID: map[string]*instance{}, tokens: map[string]*launch{}, capacity: map[capacityKey]int{},
		keyPairs: map[string]string{"ops": "key-0123456789abcdef0"},
		profiles: map[string]string{"machines": "AIPAEC2TEST0123456789"},
		roles:    map[string]bool{"arn:aws:iam::" + config.Account + ":role/provisionr": true},
	}
	s.keys = map[string]*credentials{config.AccessKeyID: {
		id: config.AccessKeyID, secret: config.SecretAccessKey, userID: "AIDAEC2TEST0123456789",
		arn: "arn:aws:iam::" + config.Account + ":user/ec2test",
	}}
	s.makeNetworks()
	s.makeCatalog()
	return s, nil
}

// call is one request on its way.
type call struct {
	server          *Server
	service, action string
	params          map[string]any
	form            url.Values
	// now is when the call acts; seen is when the state was that it sees.
	now, seen time.Time
	caller    *credentials
	id        string
}

// answer of a call: a body or an error.
type answer struct {
	body        []byte
	contentType string
	status      int
	requestID   string
	drop, cut   bool
	linger      time.Duration
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return
	}
	a := s.serve(r, body)
	time.Sleep(a.linger)
	if a.drop {
		// The documented way to close the connection without an answer.
		panic(http.ErrAbortHandler)
	}
	header := w.Header()
	header.Set("Content-Type", a.contentType)
	header.Set("Content-Length", itoa(len(a.body)))
	header.Set("X-Amzn-Requestid", a.requestID)
	w.WriteHeader(a.status)
	if a.cut {
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(a.body)
}

// serve takes a request through the checks and lets it act.
func (s *Server) serve(r *http.Request, body []byte) answer {
	c := &call{server: s, now: time.Now()}
	refused := c.parse(r, body)

	s.mu.Lock()
	c.id = s.uuid()
	s.calls[c.action]++
	var fault Fault
	if s.hook != nil {
		fault = s.hook(Call{Action: c.action, Params: c.form, N: s.calls[c.action]})
	}
	if refused == nil {
		c.caller, refused = s.authenticate(r, body, c.service, c.now)
	}
	s.mu.Unlock()

	time.Sleep(fault.Delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.now = time.Now()
	switch {
	case refused != nil:
		s.violate(c, refused.code, refused.message)
		return c.refusal(refused)
	case !fault.Before.isZero():
		return c.failure(fault.Before)
	}
	result, refused := c.act(body, fault)
	var a answer
	if refused != nil {
		a = c.refusal(refused)
	} else {
		a = c.success(result)
		a.cut = fault.Truncate
	}
	if !fault.After.isZero() {
		a = c.failure(fault.After)
	}
	a.linger = fault.Linger
	return a
}

// parse finds out which service and action a request is for.
func (c *call) parse(r *http.Request, body []byte) *apiError {
	c.service, c.action = "ec2", "unknown"
	mediaType := r.Header.Get("Content-Type")
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		c.service = "ssm"
		prefix, action, _ := strings.Cut(target, ".")
		if prefix != c.server.models.SSM.Metadata.TargetPrefix || mediaType != "application/x-amz-json-1.1" {
			return refuse("UnknownOperationException", "The target or the content type is not that of SSM")
		}
		c.action = action
	}
	switch {
	case r.Method != http.MethodPost:
		return refuse("InvalidAction", "Only POST is served")
	case r.URL.Path != "/" && r.URL.Path != "" || r.URL.RawQuery != "":
		return refuse("MalformedQueryString", "The path is / and the parameters are in the body")
	case len(body) > maxBody:
		return refuse("InvalidParameterValue", "The request is too large")
	case c.service == "ssm":
		return nil
	case !strings.HasPrefix(mediaType, "application/x-www-form-urlencoded"):
		return refuse("InvalidQueryParameter", "The content type %q is not a form's", mediaType)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return refuse("MalformedQueryString", "The query string contains a syntax error")
	}
	c.form = form
	if form.Get("Version") == c.server.models.STS.Metadata.APIVersion {
		c.service = "sts"
	}
	if len(form["Action"]) != 1 || len(form["Version"]) != 1 {
		return refuse("MissingAction", "The request must contain Action and Version once")
	}
	c.action = form.Get("Action")
	return nil
}

// act checks the parameters and runs the action.
func (c *call) act(body []byte, fault Fault) (any, *apiError) {
	s := c.server
	if s.denied[c.action] {
		return nil, refuse("UnauthorizedOperation", "You are not authorized to perform this operation.")
	}
	for _, name := range [...]string{c.action, ""} {
		if s.throttled[name] > 0 {
			s.throttled[name]--
			return nil, refuse("RequestLimitExceeded", "Request limit exceeded.")
		}
	}
	handler, refused := c.check(body)
	if refused != nil {
		return nil, refused
	}
	if refused := c.limit(); refused != nil {
		return nil, refused
	}
	c.seen = c.now.Add(-fault.Stale)
	if lag := int64(s.config.Lag); lag > 0 {
		c.seen = c.seen.Add(-time.Duration(s.rand.Int64N(lag + 1)))
	}
	if fault.Empty {
		c.seen = time.Time{}.Add(1)
	}
	if dry, _ := c.params["DryRun"].(bool); dry {
		return nil, refuse("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
	}
	return handler(c)
}

// violate records what no correct client or server does.
func (s *Server) violate(c *call, code, text string) {
	if s.expected[code] || len(s.violations) >= maxViolations {
		return
	}
	s.violations = append(s.violations, fmt.Sprintf("%s: %s: %s", c.action, code, text))
}

// uuid makes the id of a request.
func (s *Server) uuid() string {
	x := s.hex(32)
	return x[:8] + "-" + x[8:12] + "-4" + x[13:16] + "-a" + x[17:20] + "-" + x[20:]
}

// newID makes the id of a resource, as i-0123456789abcdef0.
func (s *Server) newID(prefix string) string { return prefix + "-0" + s.hex(16) }

func (s *Server) hex(n int) string {
	b := make([]byte, (n+1)/2)
	for i := range b {
		b[i] = byte(s.rand.Uint32())
	}
	return hex.EncodeToString(b)[:n]
}

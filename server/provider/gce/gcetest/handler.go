package gcetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxBody of a request; instances.insert with 512 KiB of metadata is the largest.
const maxBody = 4 << 20

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// call is one request at work.
type call struct {
	method *method
	path   map[string]string
	query  url.Values
	url    string
	raw    []byte
	now    time.Time
	// stale is how much older than usual a list is.
	stale time.Duration
}

// decode reads the body, which has been validated, into one of the library's types.
func (c *call) decode(into any) *apiError {
	if err := json.Unmarshal(c.raw, into); err != nil {
		return errorf(400, "parseError", "Parse Error: %v", err)
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return
	}
	m, path := s.model.match(r.Method, r.URL.Path)
	record := Call{Verb: r.Method, URL: r.URL.RequestURI(), Body: body, At: time.Now()}
	if m != nil {
		record.Method = m.ID
	}
	n, f, watch := s.record(record)
	if watch != nil {
		watch(record)
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
	}
	if f.DropBefore {
		panic(http.ErrAbortHandler)
	}
	status, answer := 0, any(nil)
	if f.Before != nil {
		status, answer = f.Before.Status, f.Before.error().body()
		s.retryAfter(w, f.Before)
	} else {
		status, answer = s.serve(r, m, path, body, f)
		if f.After != nil {
			status, answer = f.After.Status, f.After.error().body()
			s.retryAfter(w, f.After)
		}
	}
	s.answered(n, status)
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	s.write(w, status, answer, f.Truncate)
}

func (s *Server) retryAfter(w http.ResponseWriter, a *Answer) {
	if a.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((a.RetryAfter+time.Second-1)/time.Second)))
	}
}

func (s *Server) write(w http.ResponseWriter, status int, answer any, truncate bool) {
	text, err := json.Marshal(answer)
	if err != nil {
		s.Violate("cannot encode an answer: %v", err)
		text = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	if truncate {
		_, _ = w.Write(text[:len(text)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(text)
}

// serve authenticates, validates, acts and validates what it answers.
func (s *Server) serve(r *http.Request, m *method, path map[string]string, body []byte, f Fault) (int, any) {
	if e := s.authenticate(r); e != nil {
		return e.status, e.body()
	}
	if m == nil {
		s.Violate("%s %s is no method of the API", r.Method, r.URL.Path)
		return 404, errorf(404, "notFound", "no such method").body()
	}
	c := &call{method: m, path: path, query: r.URL.Query(), url: r.URL.Path, raw: body, now: time.Now(), stale: f.Stale}
	if wrong := s.checkRequest(c, r); len(wrong) > 0 {
		s.Violate("%s: %s", m.ID, strings.Join(wrong, "; "))
		return 400, errorf(400, "badRequest", "%s", strings.Join(wrong, "; ")).body()
	}
	answer, failed := s.act(r.Context(), c)
	if failed != nil {
		return failed.status, failed.body()
	}
	generic, ok := answer.(map[string]any)
	if !ok {
		s.Violate("%s: answer is a %T", m.ID, answer)
	}
	if wrong := s.model.checkBody(m.ID, inResponse, m.Response, any(generic)); len(wrong) > 0 {
		s.Violate("%s: answer: %s", m.ID, strings.Join(wrong, "; "))
	}
	if mask := c.query.Get("fields"); mask != "" {
		selected, err := parseFields(mask)
		if err != nil {
			return 400, errorf(400, "invalidParameter", "Invalid field selection %s: %v", mask, err).body()
		}
		return 200, selected.of(generic)
	}
	return 200, generic
}

// decoded turns a value into what its JSON is, with numbers as they are written.
func decoded(v any) (any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return decode(text)
}

func decode(text []byte) (generic any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&generic); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one value")
	}
	return generic, nil
}

func (s *Server) authenticate(r *http.Request) *apiError {
	if s.config.Auth == nil {
		return nil
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch s.config.Auth(token) {
	case 0:
		return nil
	case http.StatusUnauthorized:
		return errorf(401, "authError", "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.")
	}
	return errorf(403, "forbidden", "Required permission for 'projects/%s'", s.project)
}

func (s *Server) checkRequest(c *call, r *http.Request) []string {
	wrong := s.model.checkParameters(c.method, c.path, c.query)
	if c.method.Request == nil {
		if len(c.raw) > 0 {
			wrong = append(wrong, "a body where there must be none")
		}
		return wrong
	}
	if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		wrong = append(wrong, fmt.Sprintf("content type %q", kind))
	}
	if len(c.raw) > maxBody {
		return append(wrong, "the body is too large")
	}
	generic, err := decode(c.raw)
	if err != nil {
		return append(wrong, fmt.Sprintf("the body is no JSON: %v", err))
	}
	return append(wrong, s.model.checkBody(c.method.ID, inRequest, c.method.Request, generic)...)
}

// act dispatches to what does it. Waiting is the one method that does not hold the lock all along.
func (s *Server) act(ctx context.Context, c *call) (any, *apiError) {
	switch project := c.path["project"]; {
	case project == s.project:
	case strings.HasPrefix(c.method.ID, "compute.images.") && project == "debian-cloud":
	default:
		return nil, errorf(404, "notFound", "The resource 'projects/%s' was not found", project)
	}
	if c.method.ID == "compute.zoneOperations.wait" || c.method.ID == "compute.globalOperations.wait" {
		return s.wait(ctx, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(c.now)
	if e := s.places(c); e != nil {
		return nil, e
	}
	handler := map[string]func(*call) (any, *apiError){
		"compute.instances.insert": s.insertInstance, "compute.instances.get": s.getInstance, "compute.instances.delete": s.deleteInstance,
		"compute.instances.setLabels": s.setLabels, "compute.instances.getSerialPortOutput": s.serialPort, "compute.instances.bulkInsert": s.bulkInsert,
		"compute.instances.list": s.listInstances, "compute.instances.aggregatedList": s.aggregateInstances,
		"compute.disks.get": s.getDisk, "compute.disks.list": s.listDisks, "compute.disks.aggregatedList": s.aggregateDisks, "compute.disks.delete": s.deleteDisk,
		"compute.zoneOperations.get": s.operation, "compute.globalOperations.get": s.operation,
		"compute.firewalls.insert": s.insertFirewall, "compute.firewalls.patch": s.patchFirewall, "compute.firewalls.get": s.getFirewall,
		"compute.firewalls.list": s.listFirewalls, "compute.firewalls.delete": s.deleteFirewall,
		"compute.images.get": s.getImage, "compute.images.getFromFamily": s.imageFromFamily, "compute.images.list": s.listImages,
		"compute.machineTypes.get": s.getMachineType, "compute.machineTypes.list": s.listMachineTypes, "compute.machineTypes.aggregatedList": s.aggregateMachineTypes,
		"compute.diskTypes.get": s.getDiskType, "compute.diskTypes.list": s.listDiskTypes,
		"compute.zones.list": s.listZones, "compute.zones.get": s.getZone, "compute.regions.get": s.getRegion, "compute.regions.list": s.listRegions,
		"compute.networks.get": s.getNetwork, "compute.networks.list": s.listNetworks,
		"compute.subnetworks.get": s.getSubnetwork, "compute.subnetworks.list": s.listSubnetworks,
		"compute.resourcePolicies.get": s.getPolicy, "compute.resourcePolicies.list": s.listPolicies,
	}[c.method.ID]
	if handler == nil {
		s.violate("%s is not served by this test server", c.method.ID)
		return nil, errorf(501, "notImplemented", "%s is not implemented", c.method.ID)
	}
	answer, err := handler(c)
	if err != nil {
		return nil, err
	}
	// What is answered must not change any more once the lock is released.
	generic, failed := decoded(answer)
	if failed != nil {
		return nil, errorf(500, "backendError", "%v", failed)
	}
	return generic, nil
}

// places refuses zones and regions that do not exist.
func (s *Server) places(c *call) *apiError {
	if zone := c.path["zone"]; zone != "" && !s.hasZone(zone) {
		return errorf(400, "invalid", "Invalid value for field 'zone': '%s'. Unknown zone.", zone)
	}
	if region := c.path["region"]; region != "" && c.method.ID != "compute.regions.get" {
		if _, ok := find(s.regions, s.link("regions/"+region), regionLink); !ok {
			return errorf(400, "invalid", "Invalid value for field 'region': '%s'. Unknown region.", region)
		}
	}
	return nil
}

func (s *Server) hasZone(zone string) bool {
	for _, z := range s.zones {
		if z.Name == zone {
			return true
		}
	}
	return false
}

package boot

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Bounds.
const (
	maxBeacon       = 4 << 10
	maxStage        = 64
	downloadTimeout = 10 * time.Minute
	proposeTimeout  = 10 * time.Second
	// maxPaced bounds how many machines are paced one by one; above it the oldest pacing is forgotten altogether.
	maxPaced = 16384
	// perMachine and burst pace the beacons of one machine.
	perMachine = 1
	burst      = 10
)

// Proposer commits commands.
type Proposer interface {
	Do(ctx context.Context, caller *provisionrv1.Caller, requestID string, command *raftlogv1.Command) (*provisionrv1.Version, error)
}

// Tokens checks the tokens of machines: an error of kind Unauthenticated refuses one.
type Tokens interface {
	CheckMachineToken(machineID string, attempt uint32, token string) error
	CheckBeaconToken(machineID string, attempt uint32, token string) error
}

// Config of a Handler. All fields without a default are required.
type Config struct {
	// Member is this member's name, the caller of its commands.
	Member string
	Agents *Agents
	// Machine returns the machine's record, or nil.
	Machine func(id string) *provisionrv1.Machine
	// Adopt renders the script that has a machine join that exists already. An error of kind Unsupported says that the
	// machine is not such a one.
	Adopt    func(m *provisionrv1.Machine) ([]byte, error)
	Tokens   Tokens
	Proposer Proposer
	Logger   *slog.Logger
	// Downloads bounds the downloads at the same time. Default: 32.
	Downloads int
	// BeaconsPerSecond bounds the beacons that are committed. Default: 200.
	BeaconsPerSecond float64
}

// Handler serves /boot/v1/.
type Handler struct {
	config    Config
	mux       *http.ServeMux
	downloads chan struct{}
	beacons   *rate.Limiter

	mu    sync.Mutex
	paces map[string]*rate.Limiter
}

// New returns a handler.
func New(c Config) (*Handler, error) {
	if c.Member == "" || c.Agents == nil || c.Machine == nil || c.Adopt == nil || c.Tokens == nil || c.Proposer == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot make the boot handler: a required field of its configuration is missing")
	}
	if c.Downloads == 0 {
		c.Downloads = 32
	}
	if c.BeaconsPerSecond == 0 {
		c.BeaconsPerSecond = 200
	}
	h := &Handler{
		config: c, mux: http.NewServeMux(), downloads: make(chan struct{}, c.Downloads), paces: map[string]*rate.Limiter{},
		beacons: rate.NewLimiter(rate.Limit(c.BeaconsPerSecond), max(1, int(2*c.BeaconsPerSecond))),
	}
	h.mux.HandleFunc("GET /boot/v1/agent/{goarch}", h.serveAgent)
	h.mux.HandleFunc("POST /boot/v1/beacon", h.serveBeacon)
	h.mux.HandleFunc("GET "+AdoptPath+"{machine}", h.serveAdopt)
	return h, nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// beacon is the body of a beacon.
type beacon struct {
	MachineID string `json:"machine_id"`
	Attempt   uint32 `json:"attempt"`
	Token     string `json:"token"`
	Stage     string `json:"stage"`
}

// stagePattern admits what the stub sends; it is shown to people as it is.
var stagePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 .:/%_-]*$`)

func (h *Handler) serveBeacon(w http.ResponseWriter, r *http.Request) {
	var b beacon
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBeacon)).Decode(&b); err != nil || b.MachineID == "" ||
		len(b.MachineID) > 63 || len(b.Stage) > maxStage || !stagePattern.MatchString(b.Stage) {
		http.Error(w, "not a beacon", http.StatusBadRequest)
		return
	}
	// Checking a token costs a microsecond, so it comes before the pacing, which strangers must not use up.
	if err := h.config.Tokens.CheckBeaconToken(b.MachineID, b.Attempt, b.Token); err != nil {
		if errs.Is(err, errs.Unauthenticated) {
			http.Error(w, "unknown machine or token", http.StatusForbidden)
		} else {
			h.config.Logger.Warn("cannot check a beacon", "machine", b.MachineID, "error", err)
			http.Error(w, "try again", http.StatusServiceUnavailable)
		}
		return
	}
	m := h.config.Machine(b.MachineID)
	switch {
	case m == nil || m.GetStatus().GetAttempt() != b.Attempt:
		// The record may not have come to this member yet; if it never existed there is nothing to tell either.
		http.Error(w, "unknown machine or token", http.StatusForbidden)
		return
	case m.GetStatus().GetBootStage() == b.Stage || !booting(m.GetStatus().GetPhase()):
		w.WriteHeader(http.StatusNoContent)
		return
	case !h.pace(b.MachineID).Allow() || !h.beacons.Allow():
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many beacons", http.StatusTooManyRequests)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), proposeTimeout)
	defer cancel()
	caller := &provisionrv1.Caller{Name: h.config.Member, Kind: "server", Role: provisionrv1.Role_ROLE_ADMIN}
	_, err := h.config.Proposer.Do(ctx, caller, rand.Text(), &raftlogv1.Command{Kind: &raftlogv1.Command_BootStage{
		BootStage: &raftlogv1.BootStage{Id: b.MachineID, Stage: b.Stage},
	}})
	if err != nil {
		h.config.Logger.Warn("cannot record a boot stage", "machine", b.MachineID, "error", err)
		http.Error(w, "cannot record it now", errs.KindOf(err).HTTPStatus())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// booting says whether stages of the boot still matter.
func booting(p provisionrv1.Phase) bool {
	switch p {
	case provisionrv1.Phase_PHASE_LAUNCHING, provisionrv1.Phase_PHASE_BOOTING, provisionrv1.Phase_PHASE_JOINING:
		return true
	}
	return false
}

// pace returns the limiter of one machine.
func (h *Handler) pace(id string) *rate.Limiter {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l, ok := h.paces[id]; ok {
		return l
	}
	if len(h.paces) >= maxPaced {
		clear(h.paces)
	}
	l := rate.NewLimiter(perMachine, burst)
	h.paces[id] = l
	return l
}

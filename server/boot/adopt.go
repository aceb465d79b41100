package boot

import (
	"net/http"

	"github.com/provisionr/provisionr/internal/errs"
)

// TokenHeader has the join token of the machine whose script is asked for. Unlike a path, a header is logged by nobody.
const TokenHeader = "X-Provisionr-Token"

// AdoptPath is where the script of a machine is, with its id behind.
const AdoptPath = "/boot/v1/adopt/"

// serveAdopt answers the script that has an existing machine join. Only who has the machine's join token gets it, and only
// until the machine has joined.
func (h *Handler) serveAdopt(w http.ResponseWriter, r *http.Request) {
	m := h.config.Machine(r.PathValue("machine"))
	id, attempt := m.GetMetadata().GetName(), m.GetStatus().GetAttempt()
	if m == nil || len(id) > 63 {
		http.Error(w, "unknown machine or token", http.StatusForbidden)
		return
	}
	if err := h.config.Tokens.CheckMachineToken(id, attempt, r.Header.Get(TokenHeader)); err != nil {
		if errs.Is(err, errs.Unauthenticated) {
			http.Error(w, "unknown machine or token", http.StatusForbidden)
		} else {
			h.config.Logger.Warn("cannot check a token", "machine", id, "error", err)
			http.Error(w, "try again", http.StatusServiceUnavailable)
		}
		return
	}
	switch {
	case m.GetStatus().GetSessionSeen() || !booting(m.GetStatus().GetPhase()):
		http.Error(w, "the machine has joined already, or is not to join any more", http.StatusConflict)
		return
	case !h.pace(id).Allow():
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests for this machine", http.StatusTooManyRequests)
		return
	}
	script, err := h.config.Adopt(m)
	if err != nil {
		h.config.Logger.Warn("cannot render the script of a machine", "machine", id, "error", err)
		http.Error(w, "there is no script for this machine now", errs.KindOf(err).HTTPStatus())
		return
	}
	w.Header().Set("Content-Type", "text/x-shellscript; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	// Who asked is gone where this fails.
	_, _ = w.Write(script)
}

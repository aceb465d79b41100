package boot_test

import (
	"net/http"
	"strings"
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/boot"
)

func TestAdopt(t *testing.T) {
	h, c := newHandler(t, nil)
	c.machine.Spec = &provisionrv1.MachineSpec{Provider: "metal"}
	const path, good = boot.AdoptPath + "m-1", "join|m-1|1"
	for _, tt := range []struct {
		name, path, token string
		change            func()
		code              int
	}{
		{"good", path, good, nil, http.StatusOK},
		{"no token", path, "", nil, http.StatusForbidden},
		{"token in another attempt", path, "join|m-1|2", nil, http.StatusForbidden},
		{"the beacon token", path, "m-1|1", nil, http.StatusForbidden},
		{"unknown machine", boot.AdoptPath + "m-2", good, nil, http.StatusForbidden},
		{"no key yet", path, "broken", nil, http.StatusServiceUnavailable},
		{"joined already", path, good, func() { c.machine.Status.SessionSeen = true }, http.StatusConflict},
		{"terminating", path, good, func() {
			c.machine.Status.SessionSeen, c.machine.Status.Phase = false, provisionrv1.Phase_PHASE_TERMINATING
		}, http.StatusConflict},
		{"another provider's", path, good, func() {
			c.machine.Status.Phase, c.machine.Spec.Provider = provisionrv1.Phase_PHASE_BOOTING, "aws"
		}, http.StatusNotImplemented},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.change != nil {
				tt.change()
			}
			w := call(h, "GET", tt.path, "", boot.TokenHeader, tt.token)
			if w.Code != tt.code {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if tt.code == http.StatusOK && (w.Body.String() != "#!/bin/sh\n" || w.Header().Get("Cache-Control") != "no-store") {
				t.Errorf("%q %v", w.Body, w.Header())
			}
			if tt.token != "" && strings.Contains(w.Body.String(), tt.token) {
				t.Error("the answer has the token")
			}
		})
	}
	c.machine.Spec.Provider = "metal"
	codes := map[int]int{}
	for range 20 {
		codes[call(h, "GET", path, "", boot.TokenHeader, good).Code]++
	}
	if codes[http.StatusTooManyRequests] == 0 || codes[http.StatusOK] == 0 {
		t.Errorf("nothing paces the requests for one machine: %v", codes)
	}
}

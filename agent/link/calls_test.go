package link_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/agenttest"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func TestCallsNeedASession(t *testing.T) {
	s := agenttest.New(t, nil)
	r, stop := start(t, newMachine(t, s))
	session(t, s)
	stop()
	if r.link.Linked() {
		t.Error("linked without a session")
	}
	if _, err := r.link.Secrets(t.Context(), nil); !errs.Is(err, errs.Unavailable) {
		t.Errorf("secrets: %v", err)
	}
	if _, _, err := r.link.CertifyHost(t.Context(), nil); !errs.Is(err, errs.Unavailable) {
		t.Errorf("certificates: %v", err)
	}
	if _, err := r.link.Fetch(t.Context(), &agentv1.FetchRequest{}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("programs: %v", err)
	}
}

// settled waits until the agent's side of a session has begun too.
func settled(t *testing.T, r *rig, in *agenttest.Session) {
	t.Helper()
	in.Ask(t, &agentv1.Ask{Id: "0", Kind: &agentv1.Ask_Reboot{Reboot: &agentv1.Reboot{}}})
	receive(t, r.answered)
}

func TestCalls(t *testing.T) {
	s := agenttest.New(t, nil)
	content := bytes.Repeat([]byte("x"), 100_000)
	s.Values, s.Programs = map[string][]byte{"db": []byte("secret")}, map[[sha256.Size]byte][]byte{sha256.Sum256(content): content}
	r, _ := start(t, newMachine(t, s))
	settled(t, r, session(t, s))
	values, err := r.link.Secrets(t.Context(), []*agentv1.SecretRef{{Name: "db", Revision: 1}})
	if err != nil || len(values) != 1 || string(values[0]) != "secret" {
		t.Errorf("secrets %q, %v", values, err)
	}
	if _, err := r.link.Secrets(t.Context(), []*agentv1.SecretRef{{Name: "other"}}); !errs.Is(err, errs.Denied) {
		t.Errorf("denied: %v", err)
	}
	certs, renew, err := r.link.CertifyHost(t.Context(), []string{"a", "b"})
	if diff := cmp.Diff([]string{"certified a", "certified b"}, certs); err != nil || diff != "" || time.Until(renew) < time.Hour {
		t.Errorf("%v %s %s", err, renew, diff)
	}
	sum := sha256.Sum256(content)
	next, err := r.link.Fetch(t.Context(), &agentv1.FetchRequest{Sha256: sum[:], Offset: 10})
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for {
		m, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got += len(m.Data)
	}
	if got != len(content)-10 {
		t.Errorf("%d bytes", got)
	}
}

// TestConfirmIsAFreshConnection: it works beside the session, and fails where no new connection is taken.
func TestConfirmIsAFreshConnection(t *testing.T) {
	s := agenttest.New(t, nil)
	s.Reach = func(port uint32) *agentv1.Reach { return &agentv1.Reach{Observer: "s1", Greeting: fmt.Sprint(port)} }
	r, _ := start(t, newMachine(t, s))
	settled(t, r, session(t, s))
	reached, err := r.link.Confirm(t.Context(), []uint32{22, 7446})
	if err != nil || len(reached) != 2 || reached[1].Port != 7446 || reached[1].Greeting != "7446" {
		t.Errorf("%v, %v", reached, err)
	}
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := r.link.Confirm(ctx, nil); !errs.Is(err, errs.Unavailable) && !strings.Contains(fmt.Sprint(err), "refused") {
		t.Errorf("no server: %v", err)
	}
}

func TestAsks(t *testing.T) {
	s := agenttest.New(t, nil)
	r, _ := start(t, newMachine(t, s))
	in := session(t, s)
	a := in.Ask(t, &agentv1.Ask{Id: "1", Kind: &agentv1.Ask_Reboot{Reboot: &agentv1.Reboot{Reason: "why"}}})
	if a.Error != "asked why" {
		t.Errorf("answer %v", a)
	}
	receive(t, r.answered)
	// Those that hang leave room for no more than the bound.
	for n := range 17 {
		in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Ask{Ask: &agentv1.Ask{Id: fmt.Sprint("hang", n)}}})
	}
	if a := in.Next(t).GetAnswer(); !strings.Contains(a.GetError(), "more than 16") {
		t.Errorf("answer %v", a)
	}
	close(r.hang)
	for range 16 {
		if a := in.Next(t).GetAnswer(); a.GetError() != "hung" {
			t.Errorf("answer %v", a)
		}
	}
}

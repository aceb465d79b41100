package command_test

import (
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
)

func TestRun(t *testing.T) {
	h, c, _ := hosttest.New(t)
	c.Answer("good", "out")
	c.Fail("bad", 3, "first\nlast\n")
	if out, err := command.Run(t.Context(), &h, host.Command{Path: "good"}); err != nil || string(out) != "out" {
		t.Errorf("good: %q, %v", out, err)
	}
	if _, err := command.Run(t.Context(), &h, host.Command{Path: "bad"}); err == nil || err.Error() != "cannot run bad: exit 3: first; last" {
		t.Errorf("bad: %v", err)
	}
	if _, err := command.Run(t.Context(), &h, host.Command{Path: "missing"}); err == nil {
		t.Error("missing: no error")
	}
}

func TestTailIsBounded(t *testing.T) {
	long := strings.Repeat("ä", 1000)
	if got := command.Tail(host.Result{Stdout: []byte(long)}); len(got) > 600 || !strings.HasSuffix(long, strings.TrimLeft(got, "�")) {
		t.Errorf("tail of %d bytes: %q", len(got), got)
	}
}

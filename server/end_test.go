package server

import (
	"context"
	"testing"
)

// TestEnd: what a member's parts say when it ends, each at another moment, is no error of the member.
func TestEnd(t *testing.T) {
	c := newTrio(t)
	a := c.join("a")
	a.stop()
	s, release, err := open(a.config)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.run(ctx); err != nil {
		t.Errorf("ended before it began: %v", err)
	}
}

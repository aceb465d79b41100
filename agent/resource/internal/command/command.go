// Package command runs programs for resources and turns their failures into errors that say what happened.
package command

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
)

// maxTail bounds how much of a program's last words an error carries.
const maxTail = 512

// Run runs c and returns its standard output. An exit code other than 0 is an error that carries the program's last words.
func Run(ctx context.Context, h *host.Host, c host.Command) ([]byte, error) {
	r, err := h.Commands.Run(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("cannot run %s: %w", c.Path, err)
	}
	if r.Exit != 0 {
		return r.Stdout, errs.New(errs.Internal, "cannot run %s: exit %d: %s", c.Path, r.Exit, Tail(r))
	}
	return r.Stdout, nil
}

// Tail returns the last words of a program on one line: of standard error, or of standard output where that is empty.
func Tail(r host.Result) string {
	out := bytes.TrimSpace(r.Stderr)
	if len(out) == 0 {
		out = bytes.TrimSpace(r.Stdout)
	}
	if len(out) > maxTail {
		out = out[len(out)-maxTail:]
	}
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(out), "�"), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

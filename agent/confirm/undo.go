package confirm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
)

const (
	// commandTimeout bounds one command of an undo.
	commandTimeout = 30 * time.Second
	// rejectedFor is how long a change that was undone is not tried again, interruptedFor the same where nobody said that it
	// was bad: the agent or the machine went down meanwhile.
	rejectedFor    = time.Hour
	interruptedFor = 5 * time.Minute
	// interrupted is why then.
	interrupted = "the agent ended before the change was confirmed"
	// maxUndos is how often an undo that fails is tried. Beyond, it keeps nothing else from being made right.
	maxUndos = 10
)

// Undo undoes a change that is not confirmed, and returns it; nil where there is none. It is what the watchdog calls, in a
// process of its own.
func Undo(ctx context.Context, h *host.Host, why string) (*Pending, error) {
	return undo(ctx, h, why, rejectedFor)
}

// Recover undoes what an agent that is gone left unconfirmed. It is to be called before anything converges.
func Recover(ctx context.Context, h *host.Host) (*Pending, error) {
	return undo(ctx, h, interrupted, interruptedFor)
}

func undo(ctx context.Context, h *host.Host, why string, pause time.Duration) (*Pending, error) {
	r := records{h}
	release, err := r.lock()
	if err != nil {
		return nil, fmt.Errorf("cannot undo: %w", err)
	}
	defer release()
	p, err := r.pending()
	if p == nil || err != nil {
		return nil, err
	}
	if v, err := r.verdicts(); err == nil && p.Fingerprint != "" && v.Confirmed[p.Resource] == p.Fingerprint {
		// Confirmed, and cut short before its record was removed.
		return nil, h.Remove(undoPath)
	}
	if err := back(ctx, h, p.Undo); err != nil {
		err = fmt.Errorf("cannot undo the change of %s: %w", p.Resource, err)
		if p.Undos++; p.Undos < maxUndos {
			return p, errors.Join(err, r.write(undoPath, p))
		}
		why += "; " + err.Error()
	}
	return p, r.judge(p, &Rejected{Fingerprint: p.Fingerprint, Why: why, Until: time.Now().Add(pause)})
}

// back restores files, then runs commands, each whatever became of the one before.
func back(ctx context.Context, h *host.Host, u converge.Undo) error {
	var failed []error
	for _, f := range u.Files {
		if err := restore(h, f); err != nil {
			failed = append(failed, fmt.Errorf("cannot restore %s: %w", f.Path, err))
		}
	}
	for _, argv := range u.Commands {
		if len(argv) == 0 {
			continue
		}
		r, err := h.Commands.Run(ctx, host.Command{Path: argv[0], Args: argv[1:], Timeout: commandTimeout})
		if err == nil && r.Exit != 0 {
			err = fmt.Errorf("%s: exit %d: %s", strings.Join(argv, " "), r.Exit, strings.TrimSpace(string(r.Stderr)))
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

package agenttest

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// Log is a logger's handler that lets a test wait for a line. The zero value is ready.
type Log struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

// Logger returns a logger that writes to the log.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return len(p), nil
}

// Wait waits for a line that holds every word, and returns it.
func (l *Log) Wait(ctx context.Context, t testing.TB, words ...string) string {
	t.Helper()
	for {
		l.mu.Lock()
		for _, line := range l.lines {
			if holds(line, words) {
				l.mu.Unlock()
				return line
			}
		}
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("no line with %q in:\n%s", words, l)
		}
	}
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

func holds(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}

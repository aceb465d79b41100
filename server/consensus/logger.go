package consensus

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// logger passes Raft's log on to slog. What Raft calls information is detail to us: this package itself logs what a
// person should know, as a change of leader.
type logger struct {
	out  *slog.Logger
	name string
	with []any
}

func newLogger(out *slog.Logger, name string) hclog.Logger { return &logger{out: out, name: name} }

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	}
	return slog.LevelDebug
}

func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	to := slogLevel(level)
	if !l.out.Enabled(context.Background(), to) {
		return
	}
	attrs := append([]any{"source", l.name, "detail", msg}, args...)
	l.out.Log(context.Background(), to, "raft", attrs...)
}

func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *logger) enabled(level hclog.Level) bool {
	return l.out.Enabled(context.Background(), slogLevel(level))
}

func (l *logger) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *logger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *logger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *logger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *logger) IsError() bool { return l.enabled(hclog.Error) }

func (l *logger) ImpliedArgs() []any { return l.with }

func (l *logger) With(args ...any) hclog.Logger {
	return &logger{out: l.out.With(args...), name: l.name, with: append(l.with[:len(l.with):len(l.with)], args...)}
}

func (l *logger) Name() string { return l.name }

func (l *logger) Named(name string) hclog.Logger { return l.ResetNamed(l.name + "." + name) }

func (l *logger) ResetNamed(name string) hclog.Logger {
	return &logger{out: l.out, name: name, with: l.with}
}

// SetLevel does nothing: the handler of slog decides.
func (l *logger) SetLevel(hclog.Level) {}

func (l *logger) GetLevel() hclog.Level { return hclog.Debug }

func (l *logger) StandardLogger(options *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(options), "", 0)
}

func (l *logger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return logWriter{l} }

type logWriter struct{ to *logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.to.Debug(string(p))
	return len(p), nil
}

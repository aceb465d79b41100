package hosttest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/provisionr/provisionr/agent/host"
)

// Commands answers commands from a script and records them. The zero value knows no command.
type Commands struct {
	mu    sync.Mutex
	rules []rule
	calls []Call
}

// Call is a command that was run.
type Call struct {
	// Line is path and arguments joined by spaces.
	Line     string
	Env      []string
	Stdin    string
	Unsynced bool
}

type rule struct {
	prefix string
	answer func(Call) (host.Result, error)
}

// On answers commands whose line is prefix, or begins with it and a space. The newest matching rule wins.
func (c *Commands) On(prefix string, answer func(Call) (host.Result, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = append(c.rules, rule{prefix, answer})
}

// Answer is On with a constant result of exit code 0.
func (c *Commands) Answer(prefix, stdout string) {
	c.On(prefix, func(Call) (host.Result, error) { return host.Result{Stdout: []byte(stdout)}, nil })
}

// Fail is On with an exit code and what the command says on stderr.
func (c *Commands) Fail(prefix string, exit int, stderr string) {
	c.On(prefix, func(Call) (host.Result, error) { return host.Result{Exit: exit, Stderr: []byte(stderr)}, nil })
}

// Run implements host.Commands. A command that no rule matches cannot start.
func (c *Commands) Run(ctx context.Context, cmd host.Command) (host.Result, error) {
	if err := ctx.Err(); err != nil {
		return host.Result{}, err
	}
	call := Call{Line: strings.Join(append([]string{cmd.Path}, cmd.Args...), " "), Env: slices.Clone(cmd.Env), Unsynced: cmd.Unsynced}
	if cmd.Stdin != nil {
		in, err := io.ReadAll(cmd.Stdin)
		if err != nil {
			return host.Result{}, err
		}
		call.Stdin = string(in)
	}
	c.mu.Lock()
	c.calls = append(c.calls, call)
	rules := slices.Clone(c.rules)
	c.mu.Unlock()
	for _, r := range slices.Backward(rules) {
		if call.Line == r.prefix || strings.HasPrefix(call.Line, r.prefix+" ") {
			return r.answer(call)
		}
	}
	return host.Result{}, fmt.Errorf("cannot run %s: not in the script of the test", call.Line)
}

// Calls returns all commands in the order of their start.
func (c *Commands) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Lines returns the lines of all commands in the order of their start.
func (c *Commands) Lines() []string {
	var lines []string
	for _, call := range c.Calls() {
		lines = append(lines, call.Line)
	}
	return lines
}

// Reset forgets the calls and keeps the rules.
func (c *Commands) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = nil
}

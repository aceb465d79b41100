package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

// ask puts a question to the person at the terminal. Without one, --yes is needed.
func ask(ctx context.Context, s Streams, question string) error {
	if !isTerminal(s.In) {
		return errs.New(errs.Invalid, "cannot ask for confirmation: the input is not a terminal").WithHint("give --yes")
	}
	fmt.Fprintf(s.Err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	// A read of a terminal cannot be cancelled: after Ctrl-C this goroutine ends with the process.
	go func() {
		line, _ := bufio.NewReader(s.In).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.Err)
		return exitInterrupted
	case a := <-answer:
		if a == "y" || a == "yes" {
			return nil
		}
		fmt.Fprintln(s.Err, "nothing was changed")
		return exitError
	}
}

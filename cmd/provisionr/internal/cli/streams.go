package cli

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Streams are the input and output of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// System returns the streams of the process.
func System() Streams { return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }

// descriptor returns the file descriptor of a terminal.
func descriptor(stream any) (int, bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	return int(f.Fd()), true
}

func isTerminal(stream any) bool {
	_, ok := descriptor(stream)
	return ok
}

// size returns the columns and rows of a terminal.
func size(stream any) (width, height int, ok bool) {
	fd, ok := descriptor(stream)
	if !ok {
		return 0, 0, false
	}
	width, height, err := term.GetSize(fd)
	return width, height, err == nil && width > 0 && height > 0
}

// A style colours a cell.
type style string

const (
	plain  style = ""
	green  style = "\x1b[32m"
	yellow style = "\x1b[33m"
	red    style = "\x1b[31m"
	dim    style = "\x1b[2m"
	bold   style = "\x1b[1m"
)

// colours reports whether a stream should get colours (https://no-color.org).
func colours(stream any) bool {
	return isTerminal(stream) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func (s style) paint(text string, on bool) string {
	if !on || s == plain || text == "" {
		return text
	}
	return string(s) + text + "\x1b[0m"
}

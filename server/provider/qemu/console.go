package qemu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/files"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	consoleFile = "console.log"
	// consoleLimit bounds Console's answer, and what is kept of a log that was bounded, in bytes.
	consoleLimit = 64 << 10
	// logLimit is what a console's log may grow to before it is bounded. It grows beyond only while no server runs.
	logLimit = 1 << 20
)

// Console implements provider.Provider: the end of what the machine wrote to its serial port, running or not.
func (p *Provider) Console(_ context.Context, machineID, _ string) (string, error) {
	if !host.ValidID(machineID) {
		return "", provider.Errorf(provider.NotFound, "no machine %q", machineID)
	}
	dir := p.machines.Path(machineID)
	if _, err := os.Stat(dir); err != nil {
		return "", provider.Errorf(provider.NotFound, "no machine %q", machineID)
	}
	text, err := files.Tail(dir, consoleFile, consoleLimit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", provider.Errorf(provider.Unknown, "cannot read the console of machine %s: %w", machineID, err)
	}
	// A broken character is replaced by one that is no longer than it.
	return strings.ToValidUTF8(string(text), "?"), nil
}

// trim cuts a log that is too long down to its end. QEMU appends to it: what is written between the reading and the cut is
// lost, no more.
func trim(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil || info.Size() <= logLimit {
		return errors.Join(err, f.Close())
	}
	end := make([]byte, consoleLimit)
	if _, err := f.ReadAt(end, info.Size()-consoleLimit); err != nil {
		return errors.Join(err, f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.Write(end)
	}
	return errors.Join(err, f.Close())
}

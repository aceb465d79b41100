package host

import (
	"os"
	"path/filepath"

	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	"github.com/provisionr/provisionr/server"
)

// saveAdmin writes the first administrator's credentials to dir and makes them the current context of the command line.
func saveAdmin(dir, name, address string, c server.Credentials) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errs.New(errs.Internal, "cannot keep the administrator's credentials: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return errs.New(errs.Internal, "cannot keep the administrator's credentials: %w", err)
	}
	for file, data := range map[string][]byte{"cert.pem": c.Certificate, "key.pem": c.Key, "ca.pem": c.Roots} {
		if err := pki.WriteFile(filepath.Join(dir, file), data); err != nil {
			return err
		}
	}
	path, err := contexts.DefaultPath()
	if err != nil {
		return err
	}
	return contexts.Set(path, contexts.Context{
		Name: name, Servers: []string{address}, CAFile: filepath.Join(dir, "ca.pem"),
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
	}, true)
}

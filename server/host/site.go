package host

import (
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/host/archive"
)

// Site is where a provider keeps its machines on this host, and where it gets their system from.
type Site struct {
	// ClusterID names everything that is made on the host. Required: lower-case letters, digits and hyphens.
	ClusterID string
	// Name of the Provider object: what two of them make on one host is kept apart. Empty for the one that was there first.
	Name string
	// DataDir holds the machines; no other provider may have it. Required; it is created.
	DataDir string
	// Archive is how packages and systems are got.
	Archive archive.Config
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Complete checks a site and fills in what it leaves out.
func (s *Site) Complete() error {
	if !ValidID(s.ClusterID) || s.Name != "" && !ValidID(s.Name) {
		return errs.New(errs.Invalid, "cannot use this host: invalid cluster id %q or provider name %q", s.ClusterID, s.Name)
	}
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	s.Archive.Complete(s.Logger)
	for _, dir := range []*string{&s.DataDir, &s.Archive.CacheDir} {
		if *dir == "" || strings.Contains(*dir, "\n") {
			return errs.New(errs.Invalid, "cannot use this host: invalid directory %q", *dir)
		}
		absolute, err := filepath.Abs(*dir)
		if err != nil {
			return errs.New(errs.Internal, "cannot find directory %s: %w", *dir, err)
		}
		*dir = absolute
	}
	return nil
}

// Scope is the mark of the provider's things on the host.
func (s *Site) Scope() string { return Scope(s.ClusterID, s.Name) }

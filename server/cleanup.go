package server

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/provider/local"
	"github.com/provisionr/provisionr/server/provider/qemu"
)

// QemuDir is where the providers of kind qemu of a member keep their machines, one folder for each.
func QemuDir(dataDir string) string { return filepath.Join(dataDir, "qemu") }

// CleanHost removes the machines of a member of a cluster from this host, with all that was made for them. The member must
// not run.
func CleanHost(ctx context.Context, dataDir, cluster string, logger *slog.Logger) error {
	err := cleanLocal(ctx, dataDir, cluster, logger)
	names, readErr := os.ReadDir(QemuDir(dataDir))
	if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
		err = errors.Join(err, errs.New(errs.Internal, "cannot look for virtual machines: %w", readErr))
	}
	for _, name := range names {
		p, newErr := qemu.New(qemu.Config{Site: host.Site{
			ClusterID: cluster, Name: name.Name(), DataDir: filepath.Join(QemuDir(dataDir), name.Name()), Logger: logger,
		}})
		if newErr == nil {
			newErr = p.Cleanup(ctx)
		}
		err = errors.Join(err, newErr)
	}
	return err
}

func cleanLocal(ctx context.Context, dataDir, cluster string, logger *slog.Logger) error {
	dir := LocalDir(dataDir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	p, err := local.New(local.Config{ClusterID: cluster, DataDir: dir, Logger: logger})
	if err != nil {
		return err
	}
	return p.Cleanup(ctx)
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

// chunkSize is what one message of a restore carries, in bytes.
const chunkSize = 256 << 10

func newSnapshot(o *options) *cobra.Command {
	save := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the whole state of the cluster to a file",
		Long:  "Save the whole state of the cluster to a file. Secrets in it are encrypted; the file is private to its user.",
		Args:  cobra.ExactArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			n, err := saveSnapshot(ctx, c, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "saved %d bytes to %s\n", n, args[0])
			return nil
		}),
	}
	var yes bool
	restore := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the whole state of the cluster by that of a file",
		Args:  cobra.ExactArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			if !yes {
				if err := ask(ctx, o.streams, "replace the whole state of the cluster?"); err != nil {
					return err
				}
			}
			if err := restoreSnapshot(ctx, c, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "restored %s\n", args[0])
			return nil
		}),
	}
	restore.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return group("snapshot", "Save or restore the whole state", save, restore)
}

// saveSnapshot writes beside the file and renames, so that a half snapshot never has its name.
func saveSnapshot(ctx context.Context, c *client, path string) (n int64, err error) {
	stream, err := c.cluster.SaveSnapshot(ctx, &provisionrv1.SaveSnapshotRequest{})
	if err != nil {
		return 0, err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".snapshot-*")
	if err != nil {
		return 0, errs.New(errs.Invalid, "cannot save the snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			temp.Close()
			return 0, err
		}
		written, err := temp.Write(chunk.Data)
		n += int64(written)
		if err != nil {
			temp.Close()
			return 0, errs.New(errs.Invalid, "cannot save the snapshot: %w", err)
		}
	}
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return 0, errs.New(errs.Invalid, "cannot save the snapshot: %w", err)
	}
	if n == 0 {
		return 0, errs.New(errs.Internal, "cannot save the snapshot: the server sent nothing")
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return 0, errs.New(errs.Invalid, "cannot save the snapshot: %w", err)
	}
	return n, nil
}

func restoreSnapshot(ctx context.Context, c *client, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return errs.New(errs.NotFound, "cannot read the snapshot: %w", err)
	}
	defer f.Close()
	stream, err := c.cluster.RestoreSnapshot(ctx)
	if err != nil {
		return err
	}
	buffer := make([]byte, chunkSize)
	for {
		n, err := f.Read(buffer)
		if n > 0 {
			if err := stream.Send(&provisionrv1.SnapshotChunk{Data: buffer[:n]}); err != nil {
				break // CloseAndRecv has the reason
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errs.New(errs.Invalid, "cannot read the snapshot: %w", err)
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

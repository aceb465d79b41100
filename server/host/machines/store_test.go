package machines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

func TestStore(t *testing.T) {
	s, err := Open(t.TempDir() + "/data")
	if err != nil {
		t.Fatal(err)
	}
	request := &provisionrv1.LaunchRequest{MachineId: "m-1", Address: "10.0.0.2"}
	if _, err := s.Request("m-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent machine: %v", err)
	}
	if err := os.Mkdir(s.Path("m-1")+".tmp", 0o700); err != nil { // of an interrupted Commit
		t.Fatal(err)
	}
	if ids, err := s.IDs(); len(ids) != 0 || err != nil {
		t.Errorf("what was not committed is listed: %v %v", ids, err)
	}
	if err := s.Commit(request); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Request("m-1"); err != nil || !proto.Equal(got, request) {
		t.Errorf("read %v, %v", got, err)
	}
	if err := os.Mkdir(s.Path("m-2"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Request("m-2"); got != nil || err != nil {
		t.Errorf("a directory without a request: %v, %v", got, err)
	}
	if err := os.MkdirAll(s.Path("m-4")+"/"+requestFile, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Request("m-4"); err == nil {
		t.Errorf("a request that cannot be read is told to be none: %v", got)
	}
	for _, id := range []string{"m-1", "m-2", "m-3", "m-4"} {
		if err := s.Remove(id); err != nil {
			t.Error(err)
		}
	}
	if ids, err := s.IDs(); len(ids) != 0 || err != nil {
		t.Errorf("left %v, %v", ids, err)
	}
}

func TestList(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if err := s.Commit(&provisionrv1.LaunchRequest{MachineId: id}); err != nil {
			t.Fatal(err)
		}
	}
	list := func(ctx context.Context, broken string) (ids string, failed error) {
		for i, err := range s.List(ctx, func(id string) (provider.Instance, error) {
			if id == broken {
				return provider.Instance{}, errors.New("broken")
			}
			if id == "b" {
				return provider.Instance{}, fs.ErrNotExist
			}
			return provider.Instance{MachineID: id}, nil
		}) {
			ids, failed = ids+i.MachineID, err
		}
		return ids, failed
	}
	if ids, err := list(t.Context(), ""); ids != "ac" || err != nil {
		t.Errorf("listed %q, %v", ids, err)
	}
	if ids, err := list(t.Context(), "c"); ids != "a" || provider.KindOf(err) != provider.Unknown {
		t.Errorf("with a broken machine: %q, %v", ids, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := list(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a cut list: %v", err)
	}
}

func TestBury(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckBuried("m-1"); err != nil {
		t.Errorf("nobody was buried: %v", err)
	}
	for range 2 {
		if err := s.Bury("m-1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CheckBuried("m-1"); provider.KindOf(err) != provider.Unknown || err == nil {
		t.Errorf("a buried machine: %v", err)
	}
	old := time.Now().Add(-time.Hour)
	for n := range buriedLimit {
		path := fmt.Sprintf("%s/x%d", s.gone(), n)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Bury("m-2"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.gone())
	if err != nil || len(entries) > buriedLimit/2+2 || s.CheckBuried("m-1") == nil || s.CheckBuried("m-2") == nil {
		t.Errorf("%d are remembered, %v; of the youngest: %v, %v", len(entries), err, s.CheckBuried("m-1"), s.CheckBuried("m-2"))
	}
}

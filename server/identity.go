package server

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	"github.com/provisionr/provisionr/server/seal"
)

// identity is who this member is, as kept in DATA/identity.
type identity struct {
	dir   string
	store *pki.Store
	seal  *seal.MemberKey
	// who is nil before the member belongs to a cluster.
	who *who
}

// who is the content of DATA/identity/member.json. It is written last: with it the member belongs to the cluster.
type who struct {
	Cluster string `json:"cluster"`
	Name    string `json:"name"`
}

func openIdentity(dir string) (*identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.New(errs.Internal, "cannot make the identity directory: %w", err)
	}
	store, err := pki.OpenStore(dir)
	if err != nil {
		return nil, err
	}
	key, err := seal.OpenMemberKey(filepath.Join(dir, "sealing.key"))
	if err != nil {
		return nil, err
	}
	id := &identity{dir: dir, store: store, seal: key}
	data, err := os.ReadFile(id.file())
	if err == nil {
		// A crash may have left it behind; later it would give the log away.
		err = id.begun()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil
	}
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot read who this member is: %w", err)
	}
	id.who = &who{}
	if err := json.Unmarshal(data, id.who); err != nil || id.who.Cluster == "" || id.who.Name == "" {
		return nil, errs.New(errs.Internal, "cannot read %s: it does not name a cluster and a member", id.file()).
			WithHint("restore the file from a backup, or remove the data directory and join the cluster anew")
	}
	return id, nil
}

func (i *identity) file() string { return filepath.Join(i.dir, "member.json") }

// mark is the file that says that a cluster is about to begin here.
func (i *identity) mark() string { return filepath.Join(i.dir, "beginning") }

// begin marks what follows as worthless until settle.
func (i *identity) begin() error { return pki.WriteFile(i.mark(), nil) }

func (i *identity) beginning() bool {
	_, err := os.Stat(i.mark())
	return err == nil
}

// begun removes the mark.
func (i *identity) begun() error {
	if err := os.Remove(i.mark()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Internal, "cannot finish the beginning of a cluster: %w", err)
	}
	return nil
}

// settle makes the member one of the cluster.
func (i *identity) settle(w who, chain, roots []byte) error {
	if err := i.store.Put(chain, roots); err != nil {
		return err
	}
	data, err := json.Marshal(w)
	if err != nil {
		return errs.New(errs.Internal, "cannot write who this member is: %w", err)
	}
	if err := pki.WriteFile(i.file(), append(data, '\n')); err != nil {
		return err
	}
	i.who = &w
	return i.begun()
}

package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/provisionr/provisionr/internal/errs"
)

// WriteFile replaces a file whole: temporary file beside it with mode 0600, fsync, rename, fsync of the directory.
func WriteFile(path string, data []byte) error {
	if err := writeFile(path, data); err != nil {
		return errs.New(errs.Internal, "cannot write %s: %w", path, err)
	}
	return nil
}

func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// LoadOrCreate reads a secret file, or makes it with what create returns. The directory must exist.
func LoadOrCreate(path string, create func() ([]byte, error)) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		return data, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.Internal, "cannot read %s: %w", path, err)
	}
	if data, err = create(); err != nil {
		return nil, err
	}
	return data, WriteFile(path, data)
}

// The files of a [Store].
const (
	keyFile   = "key.pem"
	certFile  = "cert.pem"
	rootsFile = "roots.pem"
)

// Store is one party's identity in a directory: its key, its certificate and the roots that it trusts.
// Its methods may be called concurrently; Put by one caller at a time.
type Store struct {
	dir   string
	key   *ecdsa.PrivateKey
	cert  atomic.Pointer[tls.Certificate]
	roots atomic.Pointer[[]*x509.Certificate]
}

// OpenStore opens the identity in dir; the directory (mode 0700) and the key are made where missing.
// A certificate that does not belong to the key is an error: somebody copied half an identity.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.New(errs.Internal, "cannot make identity directory: %w", err)
	}
	s := &Store{dir: dir}
	data, err := LoadOrCreate(filepath.Join(dir, keyFile), func() ([]byte, error) {
		key, err := NewKey()
		if err != nil {
			return nil, err
		}
		return EncodeKey(key)
	})
	if err != nil {
		return nil, err
	}
	if s.key, err = ParseKey(data); err != nil {
		return nil, errs.New(errs.Invalid, "cannot read %s: %w", filepath.Join(dir, keyFile), err)
	}
	return s, s.load()
}

func (s *Store) load() error {
	chain, err := os.ReadFile(filepath.Join(s.dir, certFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errs.New(errs.Internal, "cannot read certificate: %w", err)
	}
	roots, err := os.ReadFile(filepath.Join(s.dir, rootsFile))
	if err != nil {
		return errs.New(errs.Internal, "cannot read roots: %w", err)
	}
	return s.use(chain, roots)
}

func (s *Store) use(chainPEM, rootsPEM []byte) error {
	cert, err := TLSCertificate(chainPEM, s.key)
	if err != nil {
		return err
	}
	roots, err := ParseCerts(rootsPEM)
	if err != nil {
		return err
	}
	s.cert.Store(cert)
	s.roots.Store(&roots)
	return nil
}

// Put replaces certificate chain and roots, on disk first; the next handshake uses them.
// Roots are written before the certificate, so that a certificate on disk always has its roots beside it.
func (s *Store) Put(chainPEM, rootsPEM []byte) error {
	if _, err := TLSCertificate(chainPEM, s.key); err != nil {
		return err
	}
	if _, err := ParseCerts(rootsPEM); err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(s.dir, rootsFile), rootsPEM); err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(s.dir, certFile), chainPEM); err != nil {
		return err
	}
	return s.use(chainPEM, rootsPEM)
}

// Key returns the private key.
func (s *Store) Key() *ecdsa.PrivateKey { return s.key }

// Certificate returns the certificate with its key, for [ServerConfig] and [ClientConfig]; an error before the first Put.
func (s *Store) Certificate() (*tls.Certificate, error) {
	if cert := s.cert.Load(); cert != nil {
		return cert, nil
	}
	return nil, errs.New(errs.Unavailable, "cannot present a certificate: none was issued yet")
}

// Roots returns the trusted roots; none before the first Put.
func (s *Store) Roots() []*x509.Certificate {
	if roots := s.roots.Load(); roots != nil {
		return *roots
	}
	return nil
}

package vpn

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io/fs"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	stateDir = conffile.StateDir + "/vpn"
	keyPath  = stateDir + "/private"
	keySize  = 32
	maxKey   = 64
)

// PublicKey returns the machine's public key for its VPN in base64, or "" while it has none.
func PublicKey(h *host.Host) (string, error) {
	key, err := readKey(h)
	if err != nil || key == nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()), nil
}

// readKey returns the private key; nil where there is none.
func readKey(h *host.Host) (*ecdh.PrivateKey, error) {
	text, err := conffile.Read(h, keyPath, maxKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(raw) != keySize {
		return nil, errs.New(errs.Internal, "cannot read %s: not a key in base64", keyPath).WithHint("remove the file: a new key is made")
	}
	return ecdh.X25519().NewPrivateKey(raw)
}

// makeKey makes a key and keeps it. The bits are set as WireGuard does (RFC 7748 section 5), so that it shows the same key.
func makeKey(h *host.Host) (*ecdh.PrivateKey, error) {
	raw := make([]byte, keySize)
	rand.Read(raw)
	raw[0] &= 248
	raw[31] = raw[31]&127 | 64
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return nil, err
	}
	text := base64.StdEncoding.EncodeToString(raw) + "\n"
	return key, conffile.Apply(h, &conffile.File{Path: keyPath, Content: []byte(text), Mode: 0o600})
}

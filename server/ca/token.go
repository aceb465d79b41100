package ca

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
)

// MachineToken returns the join token of one launch attempt of a machine: base64url of
// HMAC-SHA256(token key, id "|" attempt). It is the same on every member.
func (a *CA) MachineToken(machineID string, attempt uint32) (string, error) {
	token, err := a.machineToken(machineID, attempt)
	return base64.RawURLEncoding.EncodeToString(token), err
}

// BeaconToken returns what a booting machine shows with its beacons: base64url of HMAC-SHA256(join token, "beacon").
func (a *CA) BeaconToken(machineID string, attempt uint32) (string, error) {
	token, err := a.machineToken(machineID, attempt)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(mac(token, "beacon")), nil
}

// CheckMachineToken refuses a token that is not the one of the machine and attempt with errs.Unauthenticated.
// Whether the attempt is the present one and the token still unused is for the caller to look up.
func (a *CA) CheckMachineToken(machineID string, attempt uint32, token string) error {
	want, err := a.MachineToken(machineID, attempt)
	if err != nil {
		return err
	}
	return check("join token", want, token)
}

// CheckBeaconToken is [CA.CheckMachineToken] for beacons.
func (a *CA) CheckBeaconToken(machineID string, attempt uint32, token string) error {
	want, err := a.BeaconToken(machineID, attempt)
	if err != nil {
		return err
	}
	return check("beacon token", want, token)
}

func (a *CA) machineToken(machineID string, attempt uint32) ([]byte, error) {
	_, key, err := a.open(a.config.State())
	if err != nil {
		return nil, err
	}
	return mac(key, machineID+"|"+strconv.FormatUint(uint64(attempt), 10)), nil
}

// CookieDay is how long a secret of DNS cookies is the newest.
const CookieDay = 24 * time.Hour

// CookieSecrets returns the secrets of DNS cookies (RFC 7873 section 6) at a time: the newest, and the one of the day before.
// They are the same on every member.
func (a *CA) CookieSecrets(now time.Time) (secrets [2][16]byte, err error) {
	_, key, err := a.open(a.config.State())
	if err != nil {
		return secrets, err
	}
	day := now.Unix() / int64(CookieDay/time.Second)
	for i := range secrets {
		copy(secrets[i][:], mac(key, "dns cookie|"+strconv.FormatInt(day-int64(i), 10)))
	}
	return secrets, nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func check(what, want, got string) error {
	if !hmac.Equal([]byte(want), []byte(got)) {
		return errs.New(errs.Unauthenticated, "cannot accept %s: it is not the one of this machine and attempt", what).
			WithHint("the machine was made for another cluster, or for an earlier attempt: delete it and let its pool replace it")
	}
	return nil
}

// ServerToken lets one new server join: what `provisionr server --join` is given.
type ServerToken struct {
	// ID finds the token's row.
	ID string
	// Secret is 32 random bytes; the row has its SHA-256.
	Secret []byte
	// Pin is the key of the authority by which the new server knows the cluster.
	Pin string
}

const serverTokenPrefix = "pvj_"

// String keeps the secret out of logs.
func (t ServerToken) String() string { return serverTokenPrefix + t.ID + "_redacted" }

// GoString keeps the secret out of logs.
func (t ServerToken) GoString() string { return t.String() }

// NewServerToken makes a token for the cluster's present authority.
func (a *CA) NewServerToken() (ServerToken, error) {
	_, cert, err := a.newestActive(a.config.State())
	if err != nil {
		return ServerToken{}, err
	}
	t := ServerToken{ID: strings.ToLower(rand.Text()[:16]), Secret: make([]byte, 32), Pin: pki.SPKIPin(cert)}
	rand.Read(t.Secret)
	return t, nil
}

// Encode returns pvj_ID_base64url(secret, pin).
func (t ServerToken) Encode() (string, error) {
	pin, err := base64.StdEncoding.DecodeString(t.Pin)
	if err != nil || len(pin) != sha256.Size || len(t.Secret) != 32 {
		return "", errs.New(errs.Internal, "cannot encode server token: secret or pin of a wrong length")
	}
	return serverTokenPrefix + t.ID + "_" + base64.RawURLEncoding.EncodeToString(append(t.Secret[:32:32], pin...)), nil
}

// ParseServerToken reads what Encode wrote.
func ParseServerToken(s string) (ServerToken, error) {
	bad := errs.New(errs.Invalid, "cannot parse server token: not of the form pvj_ID_SECRET").
		WithHint("make one on any member with: provisionr cluster join-token")
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), serverTokenPrefix)
	id, text, cut := strings.Cut(rest, "_")
	if !ok || !cut || id == "" || len(s) > 256 {
		return ServerToken{}, bad
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(data) != 32+sha256.Size {
		return ServerToken{}, bad
	}
	return ServerToken{ID: id, Secret: data[:32], Pin: base64.StdEncoding.EncodeToString(data[32:])}, nil
}

package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"
)

const (
	tokenPrefix = "pvr_"
	secretSize  = 32
	// maxToken bounds what is looked at as a token: prefix, name, secret and room to spare.
	maxToken = 256
)

// NewToken makes the secret of a token: what the bearer sends, pvr_NAME_base64url(32 random bytes), and the SHA-256 of
// the random bytes, which is all that is kept.
func NewToken(name string) (token string, secretSHA256 []byte) {
	secret := make([]byte, secretSize)
	rand.Read(secret)
	sum := sha256.Sum256(secret)
	return tokenPrefix + name + "_" + base64.RawURLEncoding.EncodeToString(secret), sum[:]
}

// parseToken returns the name and the hash of the secret. A name has no underscore; the secret may.
func parseToken(token string) (name string, sum [sha256.Size]byte, ok bool) {
	rest, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || len(token) > maxToken {
		return "", sum, false
	}
	name, text, ok := strings.Cut(rest, "_")
	if !ok {
		return "", sum, false
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(secret) != secretSize {
		return "", sum, false
	}
	return name, sha256.Sum256(secret), true
}

// sameHash compares in constant time; no hash is the same as a missing one.
func sameHash(want []byte, got [sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(want, got[:]) == 1
}

// bearer returns the token of a request. Present says that there is an Authorization header, of whatever form.
func bearer(r *http.Request) (token string, present bool) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", false
	}
	if _, password, ok := r.BasicAuth(); ok {
		return password, true
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", true
	}
	return strings.TrimSpace(token), true
}

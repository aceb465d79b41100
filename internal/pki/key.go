package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"

	"github.com/provisionr/provisionr/internal/errs"
)

// maxPEM bounds what is parsed as keys or certificates, in bytes.
const maxPEM = 256 << 10

// NewKey makes a P-256 key.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot make key: %w", err)
	}
	return key, nil
}

// EncodeKey returns the key as PKCS #8 in PEM.
func EncodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads what [EncodeKey] wrote.
func ParseKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errs.New(errs.Invalid, "cannot parse key: no PEM block of type PRIVATE KEY")
	}
	return ParseKeyDER(block.Bytes)
}

// ParseKeyDER reads a P-256 key in PKCS #8.
func ParseKeyDER(der []byte) (*ecdsa.PrivateKey, error) {
	// The cause may quote key material, so it is left out.
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot parse key: not PKCS #8")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errs.New(errs.Invalid, "cannot parse key: not an ECDSA P-256 key")
	}
	return key, nil
}

// NewCSR returns a PKCS #10 request in DER that proves possession of the key. It carries no names: the signer decides on those.
func NewCSR(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot make certificate request: %w", err)
	}
	return der, nil
}

// ParseCSR returns the public key of a PKCS #10 request in DER whose signature is right. All names in it are ignored.
func ParseCSR(der []byte) (*ecdsa.PublicKey, error) {
	if len(der) > maxPEM {
		return nil, errs.New(errs.Invalid, "cannot parse certificate request: longer than %d bytes", maxPEM)
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot parse certificate request: %w", err)
	}
	pub, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, errs.New(errs.Invalid, "cannot accept certificate request: the key is not ECDSA P-256").
			WithHint("make the key with: openssl ecparam -name prime256v1 -genkey")
	}
	if err := req.CheckSignature(); err != nil {
		return nil, errs.New(errs.Invalid, "cannot accept certificate request: %w", err)
	}
	return pub, nil
}

// Fingerprint returns the hexadecimal SHA-256 of a public key in its SubjectPublicKeyInfo form.
func Fingerprint(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", errs.New(errs.Invalid, "cannot encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// CertFingerprint is [Fingerprint] of a certificate's key.
func CertFingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// SPKIPin returns the base64 SHA-256 of the certificate's public key (RFC 7469, section 2.4).
func SPKIPin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// EncodeCerts returns certificates in PEM, in order.
func EncodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// ParseCerts reads one or more certificates in PEM. Other PEM blocks are refused.
func ParseCerts(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxPEM {
		return nil, errs.New(errs.Invalid, "cannot parse certificates: longer than %d bytes", maxPEM)
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errs.New(errs.Invalid, "cannot parse certificates: unexpected PEM block")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errs.New(errs.Invalid, "cannot parse certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errs.New(errs.Invalid, "cannot parse certificates: no PEM block of type CERTIFICATE")
	}
	return certs, nil
}

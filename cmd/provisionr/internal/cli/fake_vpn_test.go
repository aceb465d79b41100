package cli_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

// vault is what the fake keeps of VPNs, secrets and ssh.
type vault struct {
	provisionrv1.UnimplementedVpnServiceServer
	provisionrv1.UnimplementedSecretServiceServer

	peers   map[string]*provisionrv1.VpnPeer
	secrets map[string][]byte
	// signer certifies keys; a server of an older version has none.
	signer ssh.Signer
	// role is the caller's.
	role string
}

func newVault() vault {
	return vault{peers: map[string]*provisionrv1.VpnPeer{}, secrets: map[string][]byte{}, role: "admin"}
}

// certifies gives the server an authority for ssh.
func (f *fake) certifies(role string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.role = role
	f.signer, err = ssh.NewSignerFromKey(key)
	return err
}

// facts are those of the machines of a server that certifies keys; agents of an older version report none.
func (f *fake) facts() *provisionrv1.Facts {
	if f.signer == nil {
		return nil
	}
	return &provisionrv1.Facts{SshHostKeys: []string{"ssh-ed25519 AAAAhost"}}
}

func (f *fake) SignSshKey(_ context.Context, r *provisionrv1.SignSshKeyRequest) (*provisionrv1.SignSshKeyResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.signer == nil {
		return f.UnimplementedAccessServiceServer.SignSshKey(context.Background(), r)
	}
	if f.role == "viewer" {
		return nil, errs.New(errs.Denied, "it needs the role operator")
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(r.PublicKey))
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot certify key")
	}
	cert := &ssh.Certificate{Key: key, CertType: ssh.UserCert, KeyId: "user ann", ValidBefore: ssh.CertTimeInfinity, ValidPrincipals: []string{"ann", "role:operator"}}
	if f.role == "admin" {
		cert.ValidPrincipals = append(cert.ValidPrincipals, "role:admin")
	}
	if err := cert.SignCert(rand.Reader, f.signer); err != nil {
		return nil, err
	}
	line := ssh.MarshalAuthorizedKey(cert)
	return &provisionrv1.SignSshKeyResponse{
		Certificate: string(line[:len(line)-1]), Principals: cert.ValidPrincipals, Expires: timestamppb.New(time.Now().Add(time.Hour)),
	}, nil
}

func (f *fake) GetSshAuthorities(_ context.Context, r *provisionrv1.GetSshAuthoritiesRequest) (*provisionrv1.GetSshAuthoritiesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.signer == nil {
		return f.UnimplementedAccessServiceServer.GetSshAuthorities(context.Background(), r)
	}
	line := ssh.MarshalAuthorizedKey(f.signer.PublicKey())
	return &provisionrv1.GetSshAuthoritiesResponse{PublicKeys: []string{string(line[:len(line)-1])}, Domains: []string{"provisionr.internal", "example.org"}}, nil
}

// join records a VpnPeer that is applied.
func (f *fake) join(p *provisionrv1.VpnPeer) {
	p.Address = fmt.Sprintf("10.90.0.%d", len(f.peers)+1)
	f.peers[p.Metadata.Name] = p
}

func (f *fake) ListVpns(context.Context, *provisionrv1.ListInfraRequest) (*provisionrv1.ListVpnsResponse, error) {
	return &provisionrv1.ListVpnsResponse{Vpns: []*provisionrv1.Vpn{{
		Metadata: &provisionrv1.Metadata{Name: "office"}, Spec: &provisionrv1.VpnSpec{Cidr: "10.90.0.0/16", Port: 51820, Routes: []string{"10.88.0.0/24"}},
	}}}, nil
}

func (f *fake) ListVpnPeers(context.Context, *provisionrv1.ListVpnPeersRequest) (*provisionrv1.ListVpnPeersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &provisionrv1.ListVpnPeersResponse{}
	for _, name := range slices.Sorted(maps.Keys(f.peers)) {
		out.Peers = append(out.Peers, f.peers[name])
	}
	return out, nil
}

func (f *fake) GetVpnPeerConfig(_ context.Context, r *provisionrv1.GetVpnPeerConfigRequest) (*provisionrv1.GetVpnPeerConfigResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.peers[r.Name]
	if p == nil {
		return nil, errs.New(errs.NotFound, "cannot find vpn peer %q", r.Name)
	}
	return &provisionrv1.GetVpnPeerConfigResponse{Config: "[Interface]\nPrivateKey = \nAddress = " + p.Address + "/16\n# " + p.Spec.PublicKey + "\n"}, nil
}

func (f *fake) DeleteVpn(_ context.Context, r *provisionrv1.DeleteInfraRequest) (*provisionrv1.WriteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers[r.Name] == nil || r.Kind != "vpn-peers" {
		return nil, errs.New(errs.NotFound, "%s %s does not exist", r.Kind, r.Name)
	}
	delete(f.peers, r.Name)
	return &provisionrv1.WriteResponse{}, nil
}

func (f *fake) PutSecret(_ context.Context, r *provisionrv1.PutSecretRequest) (*provisionrv1.WriteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secrets[r.Name] = r.Value
	return &provisionrv1.WriteResponse{}, nil
}

// ListSecrets shows, as its revision, how long a value is: the real one counts.
func (f *fake) ListSecrets(context.Context, *provisionrv1.ListSecretsRequest) (*provisionrv1.ListSecretsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &provisionrv1.ListSecretsResponse{}
	for _, name := range slices.Sorted(maps.Keys(f.secrets)) {
		out.Secrets = append(out.Secrets, &provisionrv1.SecretInfo{
			Metadata: &provisionrv1.Metadata{Name: name, Created: timestamppb.Now()}, Revision: uint64(len(f.secrets[name])), Pools: []string{"zk", "web"},
		})
	}
	return out, nil
}

func (f *fake) DeleteSecret(_ context.Context, r *provisionrv1.DeleteSecretRequest) (*provisionrv1.WriteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.secrets[r.Name] == nil {
		return nil, errs.New(errs.NotFound, "secret %s does not exist", r.Name)
	}
	delete(f.secrets, r.Name)
	return &provisionrv1.WriteResponse{}, nil
}

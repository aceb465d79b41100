package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/seal"
)

// BootstrapConfig describes a cluster that is about to be.
type BootstrapConfig struct {
	// Cluster needs name and feature level; id, created and incarnation are filled in where empty. Required.
	Cluster *provisionrv1.Cluster
	// Objects are the cluster's first ones; a user named admin with the role admin is added where missing.
	Objects []*provisionrv1.Object
	// Member is the first member; its metadata name and sealing key must be set. Required.
	Member *provisionrv1.Member
	// ServerKey is the first member's public key. Required.
	ServerKey crypto.PublicKey
	// Hosts are names and addresses for the first member's certificate. Default: none.
	Hosts []string
	// Now is when the cluster begins. Required.
	Now time.Time
}

// Material is all that begins a cluster: commands for the log and certificates for the first member and user.
type Material struct {
	ClusterID string
	// Commands must be committed in this order, best in one log entry. They hold no secret in plain.
	Commands []*raftlogv1.Command
	// Certificate is the first member's chain in PEM.
	Certificate []byte
	// Roots in PEM.
	Roots []byte

	authority *pki.Authority
	now       time.Time
}

// Admin is the name of the user that every cluster begins with.
const Admin = "admin"

// Bootstrap makes the material of a new cluster. Nothing is written anywhere.
func Bootstrap(c BootstrapConfig) (*Material, error) {
	if c.Cluster == nil || c.Member.GetMetadata().GetName() == "" || len(c.Member.GetSealingKey()) == 0 || c.Now.IsZero() {
		return nil, errs.New(errs.Internal, "cannot bootstrap: cluster, member with name and sealing key, and time are required")
	}
	cluster := proto.CloneOf(c.Cluster)
	if cluster.Id == "" {
		cluster.Id = "c-" + strings.ToLower(rand.Text()[:16])
	}
	cluster.Incarnation = max(cluster.Incarnation, 1)
	cluster.Created = timestamppb.New(c.Now)

	authority, err := pki.NewAuthority(cluster.Id, c.Now)
	if err != nil {
		return nil, err
	}
	ring := seal.NewRing()
	authorityRow, err := sealAuthority(ring, authority, Active)
	if err != nil {
		return nil, err
	}
	keyRow, err := firstSealedKey(ring, cluster.Id, c.Member)
	if err != nil {
		return nil, err
	}
	id := pki.ID{Cluster: cluster.Id, Kind: pki.Server, Name: c.Member.Metadata.Name}
	cert, err := authority.Issue(pki.Leaf{ID: id, Key: c.ServerKey, TTL: pki.ServerTTL, Hosts: c.Hosts}, c.Now)
	if err != nil {
		return nil, err
	}
	return &Material{
		ClusterID: cluster.Id,
		Commands: []*raftlogv1.Command{
			{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{Cluster: cluster, Objects: withAdmin(c.Objects)}}},
			{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: c.Member}}},
			{Kind: &raftlogv1.Command_PutSealedKey{PutSealedKey: &raftlogv1.PutSealedKey{Key: keyRow}}},
			{Kind: &raftlogv1.Command_PutAuthority{PutAuthority: &raftlogv1.PutAuthority{Authority: authorityRow}}},
		},
		Certificate: chainPEM(pki.Server, cert, authority.Cert),
		Roots:       pki.EncodeCerts(authority.Cert),
		authority:   authority,
		now:         c.Now,
	}, nil
}

// IssueUser signs a user's certificate, as of the cluster's beginning, and returns it in PEM.
func (m *Material) IssueUser(name string, key crypto.PublicKey, ttl time.Duration) ([]byte, error) {
	id := pki.ID{Cluster: m.ClusterID, Kind: pki.User, Name: name}
	cert, err := m.authority.Issue(pki.Leaf{ID: id, Key: key, TTL: ttl}, m.now)
	if err != nil {
		return nil, err
	}
	return pki.EncodeCerts(cert), nil
}

func withAdmin(objects []*provisionrv1.Object) []*provisionrv1.Object {
	for _, o := range objects {
		if o.GetUser().GetMetadata().GetName() == Admin {
			return objects
		}
	}
	return append(objects[:len(objects):len(objects)], &provisionrv1.Object{Kind: &provisionrv1.Object_User{User: &provisionrv1.User{
		ApiVersion: "provisionr/v1", Kind: "User",
		Metadata: &provisionrv1.Metadata{Name: Admin},
		Spec:     &provisionrv1.UserSpec{Role: provisionrv1.Role_ROLE_ADMIN},
	}}})
}

func firstSealedKey(ring *seal.Ring, cluster string, member *provisionrv1.Member) (*raftlogv1.SealedKey, error) {
	tokenKey := make([]byte, 32)
	rand.Read(tokenKey)
	sealed, err := ring.Seal(purposeTokens, tokenKey)
	if err != nil {
		return nil, err
	}
	wrapped, err := ring.Wrap(member.GetSealingKey(), cluster)
	if err != nil {
		return nil, err
	}
	return &raftlogv1.SealedKey{
		Version:        1,
		Wrapped:        map[string][]byte{member.GetMetadata().GetName(): wrapped},
		SealedTokenKey: sealed,
		Newest:         ring.Version(),
		Oldest:         ring.Oldest(),
	}, nil
}

func sealAuthority(ring *seal.Ring, authority *pki.Authority, state string) (*raftlogv1.Authority, error) {
	der, err := x509.MarshalPKCS8PrivateKey(authority.Key)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot encode key of authority: %w", err)
	}
	id := authorityID(authority.Cert)
	sealed, err := ring.Seal(purposeAuthority+id, der)
	if err != nil {
		return nil, err
	}
	return &raftlogv1.Authority{Id: id, State: state, Certificate: authority.Cert.Raw, SealedKey: sealed}, nil
}

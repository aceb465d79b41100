package server

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/ca"
	"github.com/provisionr/provisionr/server/fsm"
)

// featureLevel is the newest command set that this build understands.
const featureLevel = fsm.Level

// localName names the provider of system containers and its network.
const localName = "local"

// belong makes this member one of a cluster, if it is none yet. It returns the material of a cluster that is about to
// begin; then the member belongs to it only after beginCluster.
func (s *Server) belong(ctx context.Context) (*ca.Material, error) {
	if s.id.who != nil {
		return nil, nil
	}
	if err := s.removeUnfinished(); err != nil {
		return nil, err
	}
	if !s.config.Bootstrap {
		s.config.Progress("joining the cluster through " + s.config.JoinAddress)
		return nil, joinCluster(ctx, s.config, s.id, s.self())
	}
	s.config.Progress("beginning a new cluster")
	material, err := ca.Bootstrap(ca.BootstrapConfig{
		Cluster: &provisionrv1.Cluster{
			Id:           strings.ToLower(rand.Text()[:8]),
			Name:         s.config.ClusterName,
			FeatureLevel: featureLevel,
			DefaultZone:  "default",
		},
		Objects:   s.firstObjects(),
		Member:    s.self(),
		ServerKey: s.id.store.Key().Public(),
		Hosts:     s.certificateHosts(),
		Now:       time.Now(),
	})
	if err != nil {
		return nil, err
	}
	s.begun = material.ClusterID
	if err := s.id.store.Put(material.Certificate, material.Roots); err != nil {
		return nil, err
	}
	return material, s.id.begin()
}

// removeUnfinished removes the log of a start that was cut off before the member belonged to its cluster: nobody has seen
// it. A log without the mark of such a start is a cluster's, whose member lost its identity; nothing here may touch it.
func (s *Server) removeUnfinished() error {
	_, err := os.Stat(s.raftDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !s.id.beginning() {
		return errs.New(errs.Conflict, "cannot start: %s holds the log of a cluster, but %s, which says of which one, is missing", s.raftDir(), s.id.file()).
			WithHint("restore the file from a backup, or remove the data directory and join the cluster anew")
	}
	if err == nil {
		err = os.RemoveAll(s.raftDir())
	}
	if err != nil {
		return errs.New(errs.Internal, "cannot remove the log of an unfinished start: %w", err)
	}
	return nil
}

// firstObjects are what every cluster begins with.
func (s *Server) firstObjects() []*provisionrv1.Object {
	const apiVersion = "provisionr/v1"
	objects := []*provisionrv1.Object{{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
		ApiVersion: apiVersion, Kind: "Zone", Metadata: &provisionrv1.Metadata{Name: "default"},
		Spec: &provisionrv1.ZoneSpec{Domain: s.config.Domain},
	}}}}
	if s.config.Local == nil {
		return objects
	}
	return append(objects,
		&provisionrv1.Object{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
			ApiVersion: apiVersion, Kind: "Provider", Metadata: &provisionrv1.Metadata{Name: localName},
			Spec: &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{
				Local: &provisionrv1.LocalProvider{Owner: s.config.Name},
			}},
		}}},
		&provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: s.localNetwork()}})
}

func (s *Server) localNetwork() *provisionrv1.Network {
	cidr := s.config.Local.CIDR
	return &provisionrv1.Network{
		ApiVersion: "provisionr/v1", Kind: "Network", Metadata: &provisionrv1.Metadata{Name: localName},
		Spec: &provisionrv1.NetworkSpec{
			Cidr: cidr.String(), Provider: localName, Gateway: gatewayOf(cidr).String(), Managed: true,
		},
	}
}

// beginCluster commits the first commands of the cluster and hands out its first credentials.
func (s *Server) beginCluster(ctx context.Context, m *ca.Material) error {
	if err := s.node.Bootstrap(); err != nil {
		return err
	}
	if err := s.awaitLeader(ctx); err != nil {
		return err
	}
	var requests []*raftlogv1.Request
	for _, cmd := range m.Commands {
		requests = append(requests, &raftlogv1.Request{Caller: s.caller(), Command: cmd})
	}
	results, err := s.node.Propose(ctx, requests...)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
	}
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	cert, err := m.IssueUser(ca.Admin, key.Public(), pki.MaxUserTTL)
	if err != nil {
		return err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	if err := s.config.Admin(Credentials{Certificate: cert, Key: keyPEM, Roots: m.Roots}); err != nil {
		return err
	}
	return s.id.settle(who{Cluster: m.ClusterID, Name: s.config.Name}, m.Certificate, m.Roots)
}

func (s *Server) caller() *provisionrv1.Caller {
	return &provisionrv1.Caller{Name: s.config.Name, Kind: "server", Role: provisionrv1.Role_ROLE_ADMIN}
}

func (s *Server) raftDir() string { return filepath.Join(s.config.DataDir, "raft") }

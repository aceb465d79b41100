package server

import (
	"crypto/rand"
	"log/slog"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/session"
	"github.com/provisionr/provisionr/server/state"
)

// future is the state as it would be after the caller had applied objects: the same commands on a copy that nobody else sees.
func (s *Server) future(caller *provisionrv1.Caller, objects *raftlogv1.ApplyObjects) (*state.Snapshot, error) {
	copied := s.store.Fork()
	command := &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: objects}}
	entry, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{
		Id: rand.Text(), Time: timestamppb.Now(), Caller: caller, FeatureLevel: fsm.Needs(command), Command: command,
	}}})
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot encode objects: %w", err)
	}
	present := copied.Read()
	if need, level := fsm.Needs(command), present.Cluster().GetFeatureLevel(); need > level {
		return nil, errs.New(errs.Unsupported, "this needs feature level %d, the cluster is at %d", need, level).
			WithHint("upgrade all servers: the feature level follows")
	}
	machine := fsm.New(copied, featureLevel, slog.New(slog.DiscardHandler))
	results := machine.Apply(present.Version().GetIndex()+1, entry)
	switch {
	case len(results) != 1:
		return nil, errs.New(errs.Internal, "cannot tell what applying would lead to: %w", machine.Stopped())
	case results[0].Err != nil:
		return nil, results[0].Err
	}
	return copied.Read(), nil
}

// newCompiler returns a compiler that knows the programs of this member.
func (s *Server) newCompiler() *session.Compiler {
	return &session.Compiler{Programs: s.agents.Helpers()}
}

// previews returns what machines are to be at a snapshot, for agents to compare with.
func (s *Server) previews() func(*state.Snapshot, string) (*agentv1.Preview, error) {
	compiler := s.newCompiler()
	return func(snapshot *state.Snapshot, machineID string) (*agentv1.Preview, error) {
		compiled, err := compiler.Compile(snapshot, machineID)
		if err != nil {
			return nil, err
		}
		return compiled.Preview(), nil
	}
}

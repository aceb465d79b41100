package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// maxMembers bounds the servers of a cluster.
const maxMembers = 64

func (a *applier) initCluster(c *raftlogv1.InitCluster) *errs.Error {
	if present := a.Cluster(); present != nil {
		return errs.New(errs.Exists, "the cluster is initialised already, as %s", present.GetName())
	}
	if c.GetCluster().GetId() == "" {
		return errs.New(errs.Invalid, "a cluster needs an id")
	}
	cluster := proto.CloneOf(c.GetCluster())
	cluster.Incarnation = max(1, cluster.GetIncarnation())
	if cluster.Created == nil {
		cluster.Created = a.now
	}
	if cluster.DefaultZone == "" {
		cluster.DefaultZone = state.DefaultZone
	}
	if cluster.FeatureLevel > Level {
		return errs.New(errs.Invalid, "feature level %d does not exist", cluster.FeatureLevel)
	}
	cluster.FeatureLevel = max(1, cluster.GetFeatureLevel())
	a.version.Incarnation = cluster.GetIncarnation()
	a.PutCluster(cluster)
	a.names = true
	if err := a.applyObjects(c.GetObjects(), nil); err != nil {
		return err
	}
	a.event("ClusterInitialised", fmt.Sprintf("cluster %s was initialised", cluster.GetName()), false, "", nil)
	return nil
}

func (a *applier) putMember(wanted *provisionrv1.Member) *errs.Error {
	name := wanted.GetMetadata().GetName()
	if err := checkName("member", name); err != nil {
		return err
	}
	if !validName(state.NameServer(name)) {
		return errs.New(errs.Invalid, "the name %s is too long for a server: it is %s in the zones", name, state.NameServer(name)).
			WithHint("the names of servers have at most %d characters", maxName-len(state.NameServer("")))
	}
	present := a.Member(name)
	if present == nil {
		if count(a.Members(), maxMembers) >= maxMembers {
			return errs.New(errs.Exhausted, "a cluster has at most %d members", maxMembers)
		}
		for z := range a.Zones() {
			if err := a.claimName(state.MemberName(z.GetMetadata().GetName(), name)); err != nil {
				return err
			}
		}
	}
	if level := a.Cluster().GetFeatureLevel(); wanted.GetFeatureLevel() < level {
		return errs.New(errs.Unsupported, "server %s has feature level %d, the cluster %d", name, wanted.GetFeatureLevel(), level).
			WithHint("install the version of the other servers")
	}
	m := proto.CloneOf(wanted)
	m.Metadata = &provisionrv1.Metadata{
		Name: name, Generation: 1, Uid: wanted.GetMetadata().GetUid(), Created: a.now,
		Labels: wanted.GetMetadata().GetLabels(), Annotations: wanted.GetMetadata().GetAnnotations(),
	}
	if p := present.GetMetadata(); p != nil {
		m.Metadata.Uid, m.Metadata.Generation, m.Metadata.Created, m.Metadata.Version = p.GetUid(), p.GetGeneration(), p.GetCreated(), p.GetVersion()
		if proto.Equal(m, present) {
			return nil
		}
		m.Metadata.Generation++
	}
	m.Metadata.Version = a.version
	a.Put(m)
	// Name servers are records.
	a.names = true
	if present == nil {
		a.event("MemberAdded", fmt.Sprintf("server %s is a member", name), false, "", nil)
	}
	return nil
}

func (a *applier) removeMember(name string) *errs.Error {
	present := a.Member(name)
	if present == nil {
		return notFound("member", name)
	}
	a.Delete(present)
	for z := range a.Zones() {
		a.ReleaseName(state.MemberName(z.GetMetadata().GetName(), name))
	}
	a.names = true
	a.event("MemberRemoved", fmt.Sprintf("server %s is no member any more", name), false, "", nil)
	return nil
}

// setFeatureLevel turns on commands that every member understands. It never goes down.
func (a *applier) setFeatureLevel(level uint32) *errs.Error {
	cluster := a.Cluster()
	if cluster == nil {
		return errs.New(errs.Conflict, "the cluster is not initialised")
	}
	if level < cluster.GetFeatureLevel() {
		return errs.New(errs.Conflict, "the feature level is %d: it never goes down", cluster.GetFeatureLevel())
	}
	for m := range a.Members() {
		if m.GetFeatureLevel() < level {
			return errs.New(errs.Conflict, "server %s has feature level %d", m.GetMetadata().GetName(), m.GetFeatureLevel()).WithHint("upgrade every server first")
		}
	}
	if level == cluster.GetFeatureLevel() {
		return nil
	}
	cluster = proto.CloneOf(cluster)
	names := a.NamesLevel()
	cluster.FeatureLevel = level
	a.PutCluster(cluster)
	if !names && a.NamesLevel() {
		a.adoptNames()
		a.names = true
	}
	a.event("FeatureLevelRaised", fmt.Sprintf("the cluster is at feature level %d", level), false, "", nil)
	return nil
}

func (a *applier) beginIncarnation(c *raftlogv1.BeginIncarnation) *errs.Error {
	cluster := a.Cluster()
	if cluster == nil {
		return errs.New(errs.Conflict, "the cluster is not initialised")
	}
	if c.GetIncarnation() <= cluster.GetIncarnation() {
		return errs.New(errs.Conflict, "the cluster is at incarnation %d", cluster.GetIncarnation())
	}
	cluster = proto.CloneOf(cluster)
	cluster.Incarnation, cluster.SerialBase = c.GetIncarnation(), c.GetSerialBase()
	a.version.Incarnation = c.GetIncarnation()
	a.PutCluster(cluster)
	a.names = true
	a.event("ClusterRestored", fmt.Sprintf("the state was restored from a snapshot: incarnation %d begins", c.GetIncarnation()), true, "", nil)
	return nil
}

package fsm

import (
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// applier applies one request within one transaction.
type applier struct {
	*state.Tx
	request *raftlogv1.Request
	version *provisionrv1.Version
	now     *timestamppb.Timestamp
	// keep commits what a refused command did.
	keep bool
	// names says that a name, an address or a ready membership changed.
	names bool
}

func incarnation(s *state.Snapshot) uint64 { return max(1, s.Cluster().GetIncarnation()) }

func newApplier(tx *state.Tx, index uint64, sub uint32, r *raftlogv1.Request) *applier {
	now := r.GetTime()
	if now == nil || !now.IsValid() {
		now = &timestamppb.Timestamp{}
	}
	return &applier{
		Tx: tx, request: r, now: now,
		version: &provisionrv1.Version{Incarnation: incarnation(&tx.Snapshot), Index: index, Sub: sub},
	}
}

// finish writes what every request leaves behind.
func (a *applier) finish(err *errs.Error) {
	if a.names {
		if c := a.Cluster(); c != nil {
			c = proto.CloneOf(c)
			c.ZoneIndex = a.version.GetIndex()
			a.PutCluster(c)
		}
	}
	if id := a.request.GetId(); id != "" {
		first := &raftlogv1.AppliedRequest{Id: safeKey(id), Version: a.version}
		if err != nil {
			first.ErrorKind, first.ErrorMessage, first.ErrorHint = string(err.Kind), valid(err.Message), valid(err.Hint)
		}
		a.RememberRequest(first)
	}
	a.SetVersion(a.version)
}

func (a *applier) command(c *raftlogv1.Command) *errs.Error {
	switch kind := c.GetKind().(type) {
	case *raftlogv1.Command_InitCluster:
		return a.initCluster(kind.InitCluster)
	case *raftlogv1.Command_PutMember:
		return a.putMember(kind.PutMember.GetMember())
	case *raftlogv1.Command_RemoveMember:
		return a.removeMember(kind.RemoveMember.GetName())
	case *raftlogv1.Command_SetFeatureLevel:
		return a.setFeatureLevel(kind.SetFeatureLevel.GetLevel())
	case *raftlogv1.Command_BeginIncarnation:
		return a.beginIncarnation(kind.BeginIncarnation)
	case *raftlogv1.Command_PutAuthority:
		return a.putAuthority(kind.PutAuthority.GetAuthority())
	case *raftlogv1.Command_PutSealedKey:
		return a.putSealedKey(kind.PutSealedKey)
	case *raftlogv1.Command_PutJoinToken:
		return a.putJoinToken(kind.PutJoinToken.GetToken())
	case *raftlogv1.Command_UseJoinToken:
		return a.useJoinToken(kind.UseJoinToken)
	case *raftlogv1.Command_RecordEvent:
		return a.recordEvent(kind.RecordEvent.GetEvent())
	}
	if a.Cluster() == nil && c.GetKind() != nil {
		return errs.New(errs.Conflict, "the cluster is not initialised").WithHint("run provisionr server once with --init, or provisionr dev")
	}
	if need := needs(c); need > a.level() {
		return errs.New(errs.Unsupported, "the command needs feature level %d, the cluster is at %d", need, a.level()).
			WithHint("upgrade all servers, then raise the feature level")
	}
	switch kind := c.GetKind().(type) {
	case *raftlogv1.Command_ApplyObjects:
		return a.applyObjects(kind.ApplyObjects.GetObjects(), kind.ApplyObjects.GetUids())
	case *raftlogv1.Command_DeleteObject:
		return a.deleteObject(kind.DeleteObject.GetKind(), kind.DeleteObject.GetName())
	case *raftlogv1.Command_ScalePool:
		return a.scalePool(kind.ScalePool.GetName(), kind.ScalePool.GetSize())
	case *raftlogv1.Command_CreateMachine:
		return a.createMachine(kind.CreateMachine)
	case *raftlogv1.Command_BeginLaunch:
		return a.beginLaunch(kind.BeginLaunch)
	case *raftlogv1.Command_SetPhase:
		return a.setPhase(kind.SetPhase)
	case *raftlogv1.Command_BindKey:
		return a.bindKey(kind.BindKey)
	case *raftlogv1.Command_Quarantine:
		return a.quarantine(kind.Quarantine.GetId(), kind.Quarantine.GetReason())
	case *raftlogv1.Command_SessionSeen:
		return a.sessionSeen(kind.SessionSeen)
	case *raftlogv1.Command_ReportMachine:
		return a.reportMachine(kind.ReportMachine)
	case *raftlogv1.Command_BootStage:
		return a.bootStage(kind.BootStage)
	case *raftlogv1.Command_ForgetMachine:
		return a.forgetMachine(kind.ForgetMachine.GetId())
	case *raftlogv1.Command_HandOver:
		return a.handOver(kind.HandOver)
	case *raftlogv1.Command_RecordNotice:
		return a.recordNotice(kind.RecordNotice)
	case *raftlogv1.Command_AdoptMachine:
		return a.adoptMachine(kind.AdoptMachine)
	case *raftlogv1.Command_PutSecret:
		return a.putSecret(kind.PutSecret)
	case *raftlogv1.Command_BeginReboot:
		return a.beginReboot(kind.BeginReboot)
	case *raftlogv1.Command_PutZoneKey:
		return a.putZoneKey(kind.PutZoneKey.GetKey())
	case *raftlogv1.Command_RemoveZoneKey:
		return a.removeZoneKey(kind.RemoveZoneKey.GetName())
	}
	return errs.New(errs.Invalid, "the request holds no command")
}

// event appends an event caused by this request. The machine may be nil.
func (a *applier) event(reason, message string, warning bool, pool string, m *provisionrv1.Machine) {
	e := &provisionrv1.Event{
		Reason: reason, Message: clip(message, maxMessage), Warning: warning, Pool: pool,
		Machine: m.GetMetadata().GetName(), Slot: m.GetSpec().GetSlot(),
	}
	if m != nil {
		e.Pool = m.GetSpec().GetPool()
	}
	a.addEvent(e)
}

func (a *applier) addEvent(e *provisionrv1.Event) {
	if e.Time == nil {
		e.Time = a.now
	}
	if e.Caller == nil {
		e.Caller = a.request.GetCaller()
	}
	if e.RequestId == "" {
		e.RequestId = a.request.GetId()
	}
	a.AddEvent(e, a.version)
}

// Bounds of text in bytes; longer text is cut.
const (
	maxMessage = 4096
	maxName    = 63
	maxDetail  = 1024
	maxConsole = 16384
)

// clip cuts text to at most n bytes at a character, and makes it valid UTF-8, which the log and the wire demand.
func clip(s string, n int) string {
	s = valid(s)
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// safeKey makes text fit to be part of a key, which ends at a zero byte.
func safeKey(s string) string { return strings.ReplaceAll(s, "\x00", "\uFFFD") }

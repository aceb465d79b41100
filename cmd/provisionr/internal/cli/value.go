package cli

import (
	"crypto/rand"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/spec"
)

func protoValue(m proto.Message) protoreflect.Value {
	return protoreflect.ValueOfMessage(m.ProtoReflect())
}

// requestID makes a repeated write harmless.
func requestID() string { return "cli-" + strings.ToLower(rand.Text()) }

// enumText writes an enum value as manifests do; unspecified is "-".
func enumText(e interface {
	Descriptor() protoreflect.EnumDescriptor
	Number() protoreflect.EnumNumber
}) string {
	v := e.Descriptor().Values().ByNumber(e.Number())
	if v == nil || v.Number() == 0 {
		return "-"
	}
	return spec.EnumName(v)
}

func phaseCell(p provisionrv1.Phase) cell {
	switch p {
	case provisionrv1.Phase_PHASE_READY:
		return cell{enumText(p), green}
	case provisionrv1.Phase_PHASE_DEGRADED, provisionrv1.Phase_PHASE_UNREACHABLE, provisionrv1.Phase_PHASE_FAILED:
		return cell{enumText(p), red}
	case provisionrv1.Phase_PHASE_GONE:
		return cell{enumText(p), dim}
	}
	return cell{enumText(p), yellow}
}

func poolCell(state string) cell {
	switch state {
	case "ready":
		return cell{state, green}
	case "degraded":
		return cell{state, red}
	}
	return cell{orDash(state), yellow}
}

// machineMessage is the one line that says how a machine is doing.
func machineMessage(m *provisionrv1.Machine) string {
	s := m.GetStatus()
	switch {
	case s.GetQuarantined() != "":
		return "quarantined: " + s.GetQuarantined()
	case s.GetPhase() == provisionrv1.Phase_PHASE_READY:
		return ""
	case s.GetPhase() == provisionrv1.Phase_PHASE_CONVERGING && s.GetAgent().GetMessage() != "":
		return s.GetAgent().GetMessage()
	case s.GetPhase() == provisionrv1.Phase_PHASE_BOOTING && s.GetBootStage() != "":
		return s.GetBootStage()
	}
	return s.GetReason()
}

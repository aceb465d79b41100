package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// TestQuestions has another implementation of D-Bus read what is sent.
func TestQuestions(t *testing.T) {
	for _, name := range []string{"a", "ab", "abc", "abcd", "ssh.service", "provisionr-firewall.service"} {
		var m message
		m = append(m, "odd"...)
		begin := len(m)
		m = m.call(1, managerPath, managerKind, "ListUnitsByNames", "as", message{}.list(name))
		second := len(m)
		m = m.call(2, managerPath+"/unit/a", propertiesKind, "Get", "ss", message{}.text(unitKind).text(name))
		list, err := dbus.DecodeMessage(bytes.NewReader(m[begin:second]))
		if err != nil {
			t.Fatal(err)
		}
		if names, ok := list.Body[0].([]string); !ok || !slices.Equal(names, []string{name}) || list.Headers[dbus.FieldMember].Value() != "ListUnitsByNames" {
			t.Errorf("%s: %v", name, list)
		}
		get, err := dbus.DecodeMessage(bytes.NewReader(m[second:]))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(get.Body, []any{unitKind, name}) || get.Headers[dbus.FieldPath].Value() != dbus.ObjectPath(managerPath+"/unit/a") {
			t.Errorf("%s: %v", name, get)
		}
	}
}

type listed struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	Job                                             uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

// answerOf has another implementation of D-Bus write an answer.
func answerOf(t *testing.T, kind dbus.Type, to uint32, order binary.ByteOrder, body ...any) []byte {
	t.Helper()
	m := dbus.Message{Type: kind, Headers: map[dbus.HeaderField]dbus.Variant{}, Body: body}
	switch kind {
	case dbus.TypeSignal:
		m.Headers[dbus.FieldInterface], m.Headers[dbus.FieldMember] = dbus.MakeVariant("a.b"), dbus.MakeVariant("C")
		m.Headers[dbus.FieldPath] = dbus.MakeVariant(dbus.ObjectPath("/a"))
	case dbus.TypeError:
		m.Headers[dbus.FieldErrorName] = dbus.MakeVariant("a.b.C")
		fallthrough
	default:
		m.Headers[dbus.FieldReplySerial] = dbus.MakeVariant(to)
	}
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, order); err != nil {
		t.Fatal(err)
	}
	out := b.Bytes()
	order.PutUint32(out[8:], 7) // a serial number
	return out
}

func TestAnswers(t *testing.T) {
	answer := func(kind dbus.Type, to uint32, order binary.ByteOrder, body ...any) []byte {
		return answerOf(t, kind, to, order, body...)
	}
	ok := []byte("OK 0123\r\n")
	unit := []listed{{"ssh.service", "a shell", "loaded", "active", "running", "", "/u", 0, "", "/"}}
	le, be := binary.LittleEndian, binary.BigEndian
	list, file, pid := answer(dbus.TypeMethodReply, 1, le, unit), answer(dbus.TypeMethodReply, 2, le, dbus.MakeVariant("enabled")),
		answer(dbus.TypeMethodReply, 3, be, dbus.MakeVariant(uint32(42)))
	right := Unit{Load: "loaded", Active: "active", Sub: "running", File: "enabled", MainPID: 42}
	for _, tt := range []struct {
		name  string
		sent  []byte
		want  Unit
		wrong bool
	}{
		{"in order", slices.Concat(ok, list, file, pid), right, false},
		{"another order and signals", slices.Concat(ok, answer(dbus.TypeSignal, 0, le, "x", uint32(1)), pid, file, answer(dbus.TypeSignal, 0, be), list), right, false},
		{"refused", []byte("REJECTED EXTERNAL\r\n"), Unit{}, true},
		{"an error", slices.Concat(ok, list, answer(dbus.TypeError, 2, le, "no"), pid), Unit{}, true},
		{"no unit", slices.Concat(ok, answer(dbus.TypeMethodReply, 1, le, []listed{}), file, pid), Unit{}, true},
		{"cut short", slices.Concat(ok, list, file[:len(file)-3]), Unit{}, true},
		{"nonsense", slices.Concat(ok, bytes.Repeat([]byte{0xff}, 64)), Unit{}, true},
	} {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(ends[1], tt.sent); err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(ends[1]); err != nil {
			t.Fatal(err)
		}
		got, err := newInquiry(ends[0], []string{"ssh.service"}).unit(0)
		if tt.wrong != (err != nil) || !tt.wrong && got != tt.want {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
		if err := errors.Join(unix.Close(ends[0])); err != nil {
			t.Fatal(err)
		}
	}
}

package host

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// aheadOf has asked for two units at a time; the answers about the first are in, and those about the second where both is set.
func aheadOf(t *testing.T, at time.Time, both bool) *ahead {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	sent := []byte("OK 0123\r\n")
	for i, active := range []string{"active", "inactive"}[:map[bool]int{false: 1, true: 2}[both]] {
		unit := []listed{{"x", "", "loaded", active, "y", "", "/u", 0, "", "/"}}
		sent = append(sent, answerOf(t, dbus.TypeMethodReply, uint32(i*questionsEach+1), binary.LittleEndian, unit)...)
		sent = append(sent, answerOf(t, dbus.TypeMethodReply, uint32(i*questionsEach+2), binary.LittleEndian, dbus.MakeVariant("enabled"))...)
	}
	if _, err := unix.Write(ends[1], sent); err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(ends[1]); err != nil {
		t.Fatal(err)
	}
	names := []string{"a.socket", "b.timer"}
	a := &ahead{asked: newInquiry(ends[0], names), at: at, names: slices.Clone(names)}
	t.Cleanup(func() { a.ask(nil) })
	return a
}

func TestEachAnswerAheadServesOnce(t *testing.T) {
	a := aheadOf(t, time.Now(), true)
	for _, name := range []string{"b.timer", "a.socket"} {
		want := Unit{Load: "loaded", Active: map[string]string{"a.socket": "active", "b.timer": "inactive"}[name], Sub: "y", File: "enabled"}
		if u, ok := a.take(name); !ok || u != want {
			t.Errorf("%s: %+v, %v", name, u, ok)
		}
		if _, ok := a.take(name); ok {
			t.Errorf("%s: an answer served twice", name)
		}
	}
	if _, ok := a.take("c.service"); ok {
		t.Error("an answer about what was not asked")
	}
}

func TestAnswersAheadAreForgotten(t *testing.T) {
	for name, a := range map[string]*ahead{"too old": aheadOf(t, time.Now().Add(-2*aheadFor), true), "changed": aheadOf(t, time.Now(), true)} {
		if name == "changed" {
			a.ask(nil)
		}
		if _, ok := a.take("a.socket"); ok || a.asked != nil {
			t.Errorf("%s: an answer served", name)
		}
	}
}

func TestWhatIsNotAnsweredIsAskedAnew(t *testing.T) {
	a := aheadOf(t, time.Now(), false)
	if _, ok := a.take("a.socket"); !ok {
		t.Error("the first unit was answered")
	}
	if _, ok := a.take("b.timer"); ok || a.asked != nil {
		t.Error("the second unit was not answered")
	}
}

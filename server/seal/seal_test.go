package seal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/internal/errs"
)

func TestRingRoundTrip(t *testing.T) {
	ring := NewRing()
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		purpose := rapid.String().Draw(t, "purpose")
		sealed, err := ring.Seal(purpose, plain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ring.Open(purpose, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("Open = %x, %v; want %x", got, err, plain)
		}
		if _, err := ring.Open(purpose+"x", sealed); err == nil {
			t.Fatal("opened for another purpose")
		}
		at := rapid.IntRange(0, len(sealed)-1).Draw(t, "at")
		sealed[at] ^= 1
		if _, err := ring.Open(purpose, sealed); err == nil {
			t.Fatalf("opened with byte %d changed", at)
		}
	})
}

func TestRotation(t *testing.T) {
	old := NewRing()
	sealed, err := old.Seal("p", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	both := rotated(t, old)
	if both.Settled() || both.Version() != 2 {
		t.Fatalf("rotated ring: settled %v, version %d", both.Settled(), both.Version())
	}
	if got, err := both.Open("p", sealed); err != nil || string(got) != "secret" {
		t.Fatalf("Open during rotation = %q, %v", got, err)
	}
	resealed, err := both.Seal("p", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Open("p", resealed); err == nil {
		t.Fatal("the old key opens what the new one sealed")
	}
	last := both.Newest()
	if _, err := last.Open("p", sealed); err == nil {
		t.Fatal("the settled ring opens what the old key sealed")
	}
	if got, err := last.Open("p", resealed); err != nil || string(got) != "secret" {
		t.Fatalf("Open after rotation = %q, %v", got, err)
	}
}

func TestRingIsBounded(t *testing.T) {
	ring := NewRing()
	for range maxKeys - 1 {
		ring = rotated(t, ring)
	}
	if _, err := ring.Rotated(); !errs.Is(err, errs.Exhausted) {
		t.Fatalf("Rotated of a full ring: %v", err)
	}
	if got, err := decodeRing(ring.encode()); err != nil || got.Version() != maxKeys {
		t.Fatalf("a full ring does not survive encoding: %v", err)
	}
}

func rotated(t *testing.T, r *Ring) *Ring {
	t.Helper()
	next, err := r.Rotated()
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestWrap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sealing.key")
	key, err := OpenMemberKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", fi.Mode(), err)
	}
	other, err := NewMemberKey()
	if err != nil {
		t.Fatal(err)
	}
	ring := rotated(t, NewRing())
	wrapped, err := ring.Wrap(key.Public(), "c-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenMemberKey(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := again.Unwrap(wrapped, "c-1")
	if err != nil || !bytes.Equal(got.encode(), ring.encode()) {
		t.Fatalf("Unwrap: %v", err)
	}
	if _, err := other.Unwrap(wrapped, "c-1"); err == nil {
		t.Error("another member's key unwraps")
	}
	if _, err := key.Unwrap(wrapped, "c-2"); err == nil {
		t.Error("unwraps for another cluster")
	}
	if _, err := ring.Wrap([]byte("short"), "c-1"); err == nil {
		t.Error("wraps for a broken key")
	}
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v", ring, ring, ring), fmt.Sprintf("%v %#v", key, key)} {
		if !bytes.Contains([]byte(shown), []byte("redacted")) || bytes.Contains([]byte(shown), []byte("0x")) {
			t.Errorf("shows key material: %s", shown)
		}
	}
}

func FuzzUnwrap(f *testing.F) {
	key, err := NewMemberKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := key.Unwrap(data, "c-1"); err == nil {
			t.Fatal("unwraps noise")
		}
		if _, err := NewRing().Open("p", data); err == nil {
			t.Fatal("opens noise")
		}
	})
}

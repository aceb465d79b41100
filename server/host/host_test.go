package host

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/provider"
)

func TestNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`).Draw(t, "name")
		if !ValidID(name) || len(Digest("veth", name)) != 12 {
			t.Fatalf("%q is no id, or has the digest %q", name, Digest("veth", name))
		}
		if base := IDBase(name); base < firstID || base+IDRange > 1<<32-2 || base%IDRange != 0 {
			t.Fatalf("id base %#x", base)
		}
		if mac := HardwareAddress(name); mac[0]&3 != 2 {
			t.Fatalf("hardware address %v is not local and unicast", mac)
		}
	})
	for _, bad := range []string{"", "../x", "A", "a_b", "-a", "a-", "a b", strings.Repeat("a", 64)} {
		if ValidID(bad) {
			t.Errorf("%q is valid", bad)
		}
	}
	if Digest("a", "bc") == Digest("ab", "c") {
		t.Error("names of different clusters collide")
	}
	if Scope("c", "") != "provisionr-c" || Scope("c", "qemu") == Scope("c-qemu", "") {
		t.Error("scopes collide")
	}
}

func TestUnknown(t *testing.T) {
	for err, want := range map[error]provider.Kind{
		fs.ErrNotExist: provider.Unknown, provider.Errorf(provider.NoCapacity, "full"): provider.NoCapacity,
		errs.New(errs.Unsupported, "no such program").WithHint("apt-get install it"): provider.Invalid,
	} {
		got := Unknown("cannot launch: %w", err)
		if provider.KindOf(got) != want || !errors.Is(got, err) && want != provider.NoCapacity {
			t.Errorf("%v became %v, %v", err, provider.KindOf(got), got)
		}
		if want == provider.Invalid && !strings.Contains(got.Error(), "apt-get install it") {
			t.Errorf("the hint is lost: %v", got)
		}
	}
}

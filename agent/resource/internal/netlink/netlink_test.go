package netlink

import "testing"

func FuzzAttributes(f *testing.F) {
	f.Add(String(1, "provisionr"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := Parse(b); err == nil && len(b) > 0 && len(o) == 0 {
			t.Error("bytes without an attribute")
		}
	})
}

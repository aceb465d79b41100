package dnsserver

import "testing"

// TestSipHash: the vectors of the reference implementation, key 00 01 … 0f and data 00 01 … n-1; n = 15 is the one of the
// paper's appendix A.
func TestSipHash(t *testing.T) {
	var key [16]byte
	var data [64]byte
	for i := range data {
		data[i] = byte(i)
	}
	copy(key[:], data[:])
	for n, want := range map[int]uint64{
		0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 2: 0x0d6c8009d9a94f5a, 3: 0x85676696d7fb7e2d, 4: 0xcf2794e0277187b7,
		5: 0x18765564cd99a68d, 6: 0xcbc9466e58fee3ce, 7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462, 9: 0x9e0082df0ba9e4b0,
		15: 0xa129ca6149be45e5, 16: 0x3f2acc7f57c29bdb, 23: 0xa80c038ccd5ccec8, 63: 0x958a324ceb064572,
	} {
		if got := sipHash(&key, data[:n]); got != want {
			t.Errorf("of %d octets: %#x, want %#x", n, got, want)
		}
	}
}

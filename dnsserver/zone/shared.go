package zone

import (
	"iter"
	"net/netip"
)

// MaxShared is how many machines a name that many share has at most: the ready ones with the lowest ranks, which are the
// same for everyone who answers and stay when others come and go.
const MaxShared = 24

// Rank orders the machines that share a name as if at random; those of equal rank are in order of name. All who answer must
// agree on it: it never changes. It is FNV-1a with the finish of SplitMix64, for names that differ in their last digits only.
func Rank(machine string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(machine) {
		h = (h ^ uint64(machine[i])) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Shared makes the records of a name, without final dot, that machines share, given the addresses of each in order of rank:
// of the first [MaxShared] as many of each family as fit the smallest answer that every resolver takes, 512 octets
// (RFC 1035 section 4.2.1), beside the question and an OPT record with a cookie.
func Shared(name string, machines iter.Seq[[]netip.Addr]) []Record {
	const cookie, address, address6 = 28, fixed + 4, fixed + 16
	room := MinUDP - headerSize - (len(name) + 2 + questionTail) - optSize - cookie
	four, six, left := min(room/address, MaxShared), min(room/address6, MaxShared), MaxShared
	var records []Record
	for addrs := range machines {
		if left--; left < 0 {
			break
		}
		for _, addr := range addrs {
			family := &six
			if addr.Unmap().Is4() {
				family = &four
			}
			if *family--; *family >= 0 {
				records = append(records, Address(name, addr))
			}
		}
	}
	return records
}

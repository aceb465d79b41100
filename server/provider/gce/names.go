package gce

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Labels of all that is made. The two of a disk that outlives its machine differ: it is no leftover of it.
const (
	clusterLabel = "provisionr-cluster"
	poolLabel    = "provisionr-pool"
	machineLabel = "provisionr-machine"
	slotLabel    = "provisionr-slot"
	nameLabel    = "name"
	keptLabel    = "provisionr-kept-of"
	namePrefix   = "pv-"
	maxLabel     = 63
)

// name1035 is the form of all names and network tags (RFC 1035 section 2.3.1, 63 characters).
var name1035 = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

// instanceName of a machine: unique by itself, as machine ids are.
func instanceName(machineID string) string {
	name := namePrefix + strings.TrimPrefix(machineID, "m-")
	if name1035.MatchString(name) {
		return name
	}
	return namePrefix + hash(machineID)[:32]
}

// requestID is a UUID of our own making (RFC 9562 section 5.8) from what is asked for.
func requestID(parts ...string) string {
	sum := sha256.Sum256([]byte("provisionr gce request\x00" + strings.Join(parts, "\x00")))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// hash is hexadecimal.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}

// tag is the network tag of a pool's machines, which stands for the pool's group.
func tag(cluster, pool string) string {
	name := "provisionr-" + cluster + "-" + pool
	if name1035.MatchString(name) {
		return name
	}
	return "provisionr-" + hash(cluster, pool)[:32]
}

// labelValue makes s fit for a label's value: lower-case letters, digits, _ and - (63 at most).
// See https://cloud.google.com/compute/docs/labeling-resources, requirements.
func labelValue(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, strings.ToLower(s))
	return s[:min(len(s), maxLabel)]
}

// labelKey makes s fit for a label's key, which begins with a letter.
func labelKey(s string) string {
	s = labelValue(s)
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		s = labelValue("l-" + s)
	}
	return s
}

// labels of a machine: the pool's, then ours.
func labels(r *provisionrv1.LaunchRequest) map[string]string {
	all := map[string]string{}
	for key, value := range r.GetLabels() {
		all[labelKey(key)] = labelValue(value)
	}
	all[clusterLabel], all[poolLabel] = labelValue(r.GetClusterId()), labelValue(r.GetPool())
	all[machineLabel], all[slotLabel], all[nameLabel] = r.GetMachineId(), labelValue(r.GetSlot()), labelValue(r.GetSlot())
	return all
}

// zoneOf and nameOf read a provider id, as europe-west3-a/pv-0123456789abcdef.
func splitID(providerID string) (zone, name string, ok bool) {
	zone, name, ok = strings.Cut(providerID, "/")
	return zone, name, ok && name1035.MatchString(zone) && name1035.MatchString(name)
}

// base is the last segment of a resource's URL.
func base(link string) string { return link[strings.LastIndexByte(link, '/')+1:] }

// path is a resource's URL from projects/ on.
func path(link string) string {
	if i := strings.Index(link, "projects/"); i >= 0 {
		return link[i:]
	}
	return link
}

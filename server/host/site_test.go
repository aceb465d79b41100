package host

import (
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
)

func TestSite(t *testing.T) {
	for name, s := range map[string]Site{
		"no cluster": {DataDir: "/x"}, "bad cluster": {ClusterID: "A b", DataDir: "/x"}, "no directory": {ClusterID: "c"},
		"bad directory": {ClusterID: "c", DataDir: "/a\nb"}, "bad name": {ClusterID: "c", Name: "a_b", DataDir: "/x"},
	} {
		if err := s.Complete(); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := Site{ClusterID: "c-1", DataDir: "data"}
	if err := s.Complete(); err != nil || !filepath.IsAbs(s.DataDir) || s.Archive.CacheDir == "" || s.Logger == nil {
		t.Errorf("completed %+v, %v", s, err)
	}
}

// Package law holds the import law of the repository as a test. docs/ARCHITECTURE.md explains it.
package law

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/provisionr/provisionr/"

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(out); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 20 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

// below reports whether an import path is a package or below it; prefix is relative to the module.
func below(importPath, prefix string) bool {
	return importPath == module+prefix || strings.HasPrefix(importPath, module+prefix+"/")
}

// TestForbidden checks that no package below from imports one below to.
func TestForbidden(t *testing.T) {
	forbidden := []struct{ from, to string }{
		{"agent", "server"}, {"server", "agent"},
		{"proto", "agent"}, {"proto", "server"}, {"proto", "internal"},
		{"internal", "agent"}, {"internal", "server"}, {"internal", "cmd"},
		{"dnsserver", "agent"}, {"dnsserver", "server"},
		{"cloudinit", "agent"}, {"cloudinit", "server"},
		{"server", "cmd"}, {"agent", "cmd"},
		{"server/api", "server/fsm"}, {"server/console", "server/fsm"}, {"server/console", "server/state"},
		{"agent", "proto/provisionr"}, {"agent", "proto/raftlog"}, {"agent", "proto/member"},
	}
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			for _, f := range forbidden {
				if below(p.ImportPath, f.from) && below(imported, f.to) {
					t.Errorf("%s imports %s: %s must not import %s", p.ImportPath, imported, f.from, f.to)
				}
			}
		}
	}
}

// TestSiblings checks that resources and providers do not know each other.
func TestSiblings(t *testing.T) {
	for _, p := range packages(t) {
		for _, parent := range []string{"agent/resource", "server/provider"} {
			// The conformance suite is no provider; it may have the simulated cloud for its stage.
			own := path.Dir(p.ImportPath) == module+parent && path.Base(p.ImportPath) != "providertest"
			for _, imported := range p.Imports {
				if own && path.Dir(imported) == module+parent && path.Base(imported) != "providertest" {
					t.Errorf("%s imports its sibling %s", p.ImportPath, imported)
				}
			}
		}
	}
}

// TestOwners checks that only the owner of a library imports it.
func TestOwners(t *testing.T) {
	owners := []struct {
		library string
		owners  []string
	}{
		{"github.com/hashicorp/raft", []string{"server/consensus"}},
		{"github.com/hashicorp/go-memdb", []string{"server/state"}},
		{"github.com/miekg/dns", []string{"dnsserver", "agent/prove", "agent/stub", "e2e"}},
		{"buf.build/go/protovalidate", []string{"internal/spec", "server/api"}},
		{"github.com/vishvananda/netlink", []string{"server/host", "server/provider/local", "e2e"}},
		{"github.com/aws/aws-sdk-go-v2", []string{"server/provider/aws"}},
		{"github.com/aws/smithy-go", []string{"server/provider/aws"}},
		{"google.golang.org/api", []string{"server/provider/gce"}},
		{"github.com/gophercloud/gophercloud", []string{"server/provider/openstack"}},
	}
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			for _, o := range owners {
				foreign := !slices.ContainsFunc(o.owners, func(owner string) bool { return below(p.ImportPath, owner) })
				if foreign && (imported == o.library || strings.HasPrefix(imported, o.library+"/") || strings.HasPrefix(imported, o.library+"-")) {
					t.Errorf("%s imports %s: only %s may", p.ImportPath, imported, strings.Join(o.owners, ", "))
				}
			}
		}
	}
}

// TestAgentStaysSmall checks that the agent's binary links nothing of the control plane.
func TestAgentStaysSmall(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath != module+"cmd/provisionr-agent" {
			continue
		}
		for _, dep := range p.Deps {
			for _, heavy := range []string{
				module + "server", module + "proto/provisionr", "buf.build/", "cel.dev/", "github.com/hashicorp/",
				"github.com/grpc-ecosystem/", "github.com/aws/", "google.golang.org/api/", "github.com/gophercloud/",
				"github.com/spf13/",
			} {
				if strings.HasPrefix(dep, heavy) {
					t.Errorf("the agent links %s", dep)
				}
			}
		}
		return
	}
	t.Error("cmd/provisionr-agent is missing")
}

package cli_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/provisionr/provisionr/cmd/provisionr/internal/cli"
	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/pki"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"provisionr": func() { os.Exit(cli.Main(cli.New(cli.System()), cli.System(), os.Args[1:])) },
	})
}

// addContext writes a context for the user ann. The first of its servers does not answer: the second one is found.
func (f *fake) addContext(t *testing.T, path string) {
	t.Helper()
	key, chain := f.leaf(t, pki.User, "ann")
	encoded, err := pki.EncodeKey(key)
	dir := filepath.Dir(path)
	err = errors.Join(err, os.MkdirAll(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "ann.pem"), chain, 0o600), os.WriteFile(filepath.Join(dir, "ann.key"), encoded, 0o600),
		contexts.Set(path, contexts.Context{
			Name: "test", Servers: []string{"127.0.0.1:1", f.address}, Cluster: clusterID,
			CA: string(pki.EncodeCerts(f.authority.Cert)), Certificate: "ann.pem", Key: "ann.key",
		}, true))
	if err != nil {
		t.Fatal(err)
	}
}

// An interrupt ends the watching with its own exit code, and says that the servers go on.
func TestInterruptStopsOnlyTheWatching(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	t.Setenv("PROVISIONR_CONFIG", path)
	f := newFake(t)
	f.addContext(t, path)
	ctx, interrupt := context.WithCancel(t.Context())
	out := &trigger{text: "stuck-1 pending", fire: interrupt}
	var talk bytes.Buffer
	root := cli.New(cli.Streams{In: strings.NewReader(stuck), Out: out, Err: &talk})
	root.SetArgs([]string{"apply", "--yes", "-f", "-"})
	err := root.ExecuteContext(ctx)
	if err == nil || err.Error() != "exit status 130" || !strings.Contains(talk.String(), "stopped watching stuck: the servers go on with it") {
		t.Errorf("%v\n%s\n%s", err, out.buffer.String(), talk.String())
	}
	if f.pools["stuck"] == nil {
		t.Error("the pool is gone")
	}
}

const stuck = `apiVersion: provisionr/v1
kind: Pool
metadata: {name: stuck}
spec:
  size: 1
  os: {distribution: debian, release: "12"}
`

// trigger fires when a text has been written.
type trigger struct {
	buffer bytes.Buffer
	text   string
	fire   func()
}

func (w *trigger) Write(p []byte) (int, error) {
	n, err := w.buffer.Write(p)
	if strings.Contains(w.buffer.String(), w.text) {
		w.fire()
	}
	return n, err
}

// Scripts run the real command line against a server that speaks the real protocol over mTLS.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			examples, err := filepath.Abs("../../../../examples")
			if err != nil {
				return err
			}
			env.Setenv("EXAMPLES", examples)
			env.Setenv("PROVISIONR_CONFIG", filepath.Join(env.WorkDir, "config", "config.yaml"))
			env.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// With a role, the server certifies keys for ssh.
			"server": func(ts *testscript.TestScript, _ bool, args []string) {
				f := newFake(t)
				for _, role := range args {
					ts.Check(f.certifies(role))
				}
				f.addContext(t, ts.Getenv("PROVISIONR_CONFIG"))
				ts.Setenv("SERVER", f.address)
			},
		},
	})
}

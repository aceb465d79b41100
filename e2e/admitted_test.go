package e2e

import (
	"errors"
	"os"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/internal/spec"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/session"
	"github.com/provisionr/provisionr/server/state"
)

// What admission lets through must be usable on every machine: an agent that refuses its desired state converges to nothing any
// more. Every text of a manifest that uses every field is replaced by hostile ones; who is admitted must be decoded.
func TestAgentsAcceptWhatIsAdmitted(t *testing.T) {
	data, err := os.ReadFile("../internal/spec/testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := spec.Parse("full.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	if err := usable(objects); err != nil {
		t.Fatal(err)
	}
	admitted := 0
	for i, o := range objects {
		if o.GetPool() == nil && o.GetNetwork() == nil && o.GetVpn() == nil && o.GetVpnPeer() == nil {
			continue
		}
		texts(o.ProtoReflect(), func(where string, change func(string)) {
			for _, text := range []string{
				"a\nb", "a b", " a", "a\x7fb", "a\u0085b", "a\u2028b", "a\x00b", "../x", "/a/../b", "/a b", "/a\u00a0b", "é", "/é", `a"b`, `/a"b`, "a;b", "a'b", "*", "%h",
				"/", "/a/", "/a:b", "a:b", "A", "a/b", "a.b", "..", "10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1/8", "::ffff:10.0.0.0/104", "fd00::1%eth0", "fe80::1", "0.0.0.0/0",
				"http://a\u2003b", "https://a\vb", "http://é", "any", "self", "vpn", "pool:a", "role:none", "machine:none-1", "1-7445", "0", "no", "Match", "C", "a@b", "a@.service", "net/a..b",
				"net.a", "kernel/a", "net/ipv4/conf/*/x", "1:2", "~1", "a~b", "-a", "a-", "_a", "0644",
			} {
				change(text)
				if spec.ValidateAll(objects[i:i+1], spec.Options{}) != nil {
					continue
				}
				admitted++
				if err := usable(objects); err != nil {
					t.Errorf("%s = %q is admitted and then: %v", where, text, err)
				}
			}
		})
	}
	if admitted < 1000 {
		t.Errorf("only %d changes were admitted", admitted)
	}
}

// usable compiles and decodes the desired state of a machine of each pool.
func usable(objects []*provisionrv1.Object) error {
	store := state.New()
	tx := store.Begin()
	for _, o := range objects {
		o = proto.CloneOf(o)
		if p := o.GetVpnPeer(); p != nil {
			p.Address = "10.90.0.200"
		}
		tx.Put(state.RowOf(o))
		if p := o.GetPool(); p != nil {
			name, network := p.GetMetadata().GetName(), p.GetSpec().GetNetwork()
			if network == "" {
				network = "local"
			}
			tx.Put(&provisionrv1.Slot{Metadata: &provisionrv1.Metadata{Name: name + "-1"}, Pool: name, Index: 1, Holder: "m-" + name, Fqdn: name + "-1.p.internal"})
			tx.Put(&provisionrv1.Machine{
				Metadata: &provisionrv1.Metadata{Name: "m-" + name},
				Spec:     &provisionrv1.MachineSpec{Pool: name, Slot: name + "-1", Index: 1, Fqdn: name + "-1.p.internal", Network: network, Os: p.GetSpec().GetOs()},
				Status:   &provisionrv1.MachineStatus{Address: "10.88.0.9"},
			})
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	store.Publish()
	var all []error
	var compiler session.Compiler
	for _, o := range objects {
		if o.GetPool() == nil {
			continue
		}
		c, err := compiler.Compile(store.Read(), "m-"+spec.Name(o))
		if err == nil {
			_, err = desired.Decode(c.Desired, c.Body)
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

// texts calls f for every text below a message, with what changes it. The text is put back afterwards.
func texts(m protoreflect.Message, f func(where string, change func(string))) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		where := string(field.FullName())
		if field.Name() == "metadata" || field.Name() == "api_version" || field.Name() == "kind" {
			return true
		}
		isText := field.Kind() == protoreflect.StringKind
		switch {
		case field.IsMap():
			entries, before := v.Map(), map[string]string{}
			entries.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				before[k.String()] = v.String()
				return true
			})
			for k, value := range before {
				key := protoreflect.ValueOfString(k).MapKey()
				f(where+" value", func(text string) { entries.Set(key, protoreflect.ValueOfString(text)) })
				last := key
				f(where+" key", func(text string) {
					entries.Clear(last)
					last = protoreflect.ValueOfString(text).MapKey()
					entries.Set(last, protoreflect.ValueOfString(value))
				})
				entries.Clear(last)
				entries.Set(key, protoreflect.ValueOfString(value))
			}
		case field.IsList():
			for i := range v.List().Len() {
				if field.Message() != nil {
					texts(v.List().Get(i).Message(), f)
				} else if isText {
					before := v.List().Get(i)
					f(where, func(text string) { v.List().Set(i, protoreflect.ValueOfString(text)) })
					v.List().Set(i, before)
				}
			}
		case field.Message() != nil:
			texts(v.Message(), f)
		case isText:
			f(where, func(text string) { m.Set(field, protoreflect.ValueOfString(text)) })
			m.Set(field, v)
		}
		return true
	})
}

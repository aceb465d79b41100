package spec

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// APIVersion is the apiVersion of every manifest.
const APIVersion = "provisionr/v1"

// kind is a kind of object that users write.
type kind struct {
	name string
	make func() *provisionrv1.Object
}

// Kinds are the names of the kinds that a manifest may hold, in the order in which the documentation shows them.
func Kinds() []string {
	names := make([]string, 0, len(kinds()))
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

func kinds() []kind {
	return []kind{
		{"Pool", func() *provisionrv1.Object {
			return &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{}}}
		}},
		{"Zone", func() *provisionrv1.Object {
			return &provisionrv1.Object{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{}}}
		}},
		{"Network", func() *provisionrv1.Object {
			return &provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{}}}
		}},
		{"Provider", func() *provisionrv1.Object {
			return &provisionrv1.Object{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{}}}
		}},
		{"User", func() *provisionrv1.Object {
			return &provisionrv1.Object{Kind: &provisionrv1.Object_User{User: &provisionrv1.User{}}}
		}},
		{"Vpn", func() *provisionrv1.Object {
			return &provisionrv1.Object{Kind: &provisionrv1.Object_Vpn{Vpn: &provisionrv1.Vpn{}}}
		}},
		{"VpnPeer", func() *provisionrv1.Object {
			return &provisionrv1.Object{Kind: &provisionrv1.Object_VpnPeer{VpnPeer: &provisionrv1.VpnPeer{}}}
		}},
	}
}

// notWritten are kinds that Provisionr makes, with what to do instead of writing one.
func notWritten(name string) (instead string, ok bool) {
	instead, ok = map[string]string{
		"Machine":      "machines are made by their pool: change spec.size of the Pool",
		"Slot":         "slots are made by their pool: change spec.size of the Pool",
		"AddressClaim": "addresses are assigned by the Network",
		"Event":        "events are written by the servers",
		"Member":       "members join with `provisionr server --join`",
		"Token":        "tokens are made with `provisionr token create`",
		"ZoneKey":      "DNSSEC keys are made by the servers: set spec.dnssec of the Zone",
		"Secret":       "a secret is never written into a manifest: set it with `provisionr secret set NAME`, and refer to it by its name",
	}[name]
	return instead, ok
}

// Message returns the message in the object's oneof, or nil if there is none.
func Message(o *provisionrv1.Object) proto.Message {
	m := o.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if field == nil {
		return nil
	}
	return m.Get(field).Message().Interface()
}

// KindOf returns the kind of the object's message, as Pool; "" if there is none.
func KindOf(o *provisionrv1.Object) string {
	m := Message(o)
	if m == nil {
		return ""
	}
	return string(m.ProtoReflect().Descriptor().Name())
}

// Metadata returns the object's metadata, which may be nil.
func Metadata(o *provisionrv1.Object) *provisionrv1.Metadata {
	type object interface{ GetMetadata() *provisionrv1.Metadata }
	if m, ok := Message(o).(object); ok {
		return m.GetMetadata()
	}
	return nil
}

// Name returns the object's name, or "".
func Name(o *provisionrv1.Object) string { return Metadata(o).GetName() }

// OutputOnly reports whether users may not write the field.
func OutputOnly(f protoreflect.FieldDescriptor) bool {
	switch f.Parent().(protoreflect.MessageDescriptor).Name() {
	case "Metadata":
		return f.Number() >= 10 // uid, generation, version, created, deleted
	case "Pool":
		return f.Name() == "status"
	case "Network":
		return f.Name() == "written"
	case "VpnPeer":
		return f.Name() == "address"
	}
	return false
}

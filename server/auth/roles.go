package auth

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// methodRoles reads the required_role of every method of the public API from the descriptors.
func methodRoles() (map[string]provisionrv1.Role, error) {
	roles := make(map[string]provisionrv1.Role)
	services := provisionrv1.File_provisionr_v1_services_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			role, ok := proto.GetExtension(m.Options(), provisionrv1.E_RequiredRole).(provisionrv1.Role)
			if !ok || role == provisionrv1.Role_ROLE_UNSPECIFIED {
				return nil, errs.New(errs.Internal, "cannot open the API: method %s has no required_role", m.FullName())
			}
			roles[fullMethod(m)] = role
		}
	}
	return roles, nil
}

// fullMethod is the name that gRPC gives a method: /PACKAGE.SERVICE/METHOD.
func fullMethod(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// roleName is how people write a role.
func roleName(r provisionrv1.Role) string {
	switch r {
	case provisionrv1.Role_ROLE_VIEWER:
		return "viewer"
	case provisionrv1.Role_ROLE_OPERATOR:
		return "operator"
	case provisionrv1.Role_ROLE_ADMIN:
		return "admin"
	}
	return "none"
}

// authorise decides whether the caller may call the method.
func (d *Door) authorise(caller *provisionrv1.Caller, method string) error {
	if caller == nil {
		return errs.New(errs.Unauthenticated, "cannot call %s: nobody was authenticated", method)
	}
	required, known := d.roles[method]
	if !known {
		return errs.New(errs.Denied, "cannot call %s: the API has no such method", method)
	}
	if caller.GetRole() < required {
		return errs.New(errs.Denied, "cannot call %s: it needs the role %s, and %s %q has the role %s",
			method, roleName(required), caller.GetKind(), caller.GetName(), roleName(caller.GetRole())).
			WithHint("ask an admin to raise the user's or the token's role")
	}
	return nil
}

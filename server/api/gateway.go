package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/auth"
)

// newGateway returns the handler that translates REST into calls on the loopback.
func newGateway(local *loopback) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			// Lists that are empty are written as [], so that a script need not treat them apart.
			MarshalOptions:   protojson.MarshalOptions{EmitDefaultValues: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
			auth.WriteError(w, errs.FromRPC(err))
		}),
		runtime.WithRoutingErrorHandler(routingError),
		// No header becomes metadata and no form overrides the method: a call is what its URL and body say.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(context.Context, *http.Request) metadata.MD { return nil }),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	ctx := context.Background() // The generated functions do not use it.
	for _, err := range []error{
		provisionrv1.RegisterManifestServiceHandlerClient(ctx, mux, provisionrv1.NewManifestServiceClient(local)),
		provisionrv1.RegisterPoolServiceHandlerClient(ctx, mux, provisionrv1.NewPoolServiceClient(local)),
		provisionrv1.RegisterMachineServiceHandlerClient(ctx, mux, provisionrv1.NewMachineServiceClient(local)),
		provisionrv1.RegisterInfraServiceHandlerClient(ctx, mux, provisionrv1.NewInfraServiceClient(local)),
		provisionrv1.RegisterEventServiceHandlerClient(ctx, mux, provisionrv1.NewEventServiceClient(local)),
		provisionrv1.RegisterWatchServiceHandlerClient(ctx, mux, provisionrv1.NewWatchServiceClient(local)),
		provisionrv1.RegisterClusterServiceHandlerClient(ctx, mux, provisionrv1.NewClusterServiceClient(local)),
		provisionrv1.RegisterAccessServiceHandlerClient(ctx, mux, provisionrv1.NewAccessServiceClient(local)),
		provisionrv1.RegisterVpnServiceHandlerClient(ctx, mux, provisionrv1.NewVpnServiceClient(local)),
		provisionrv1.RegisterSecretServiceHandlerClient(ctx, mux, provisionrv1.NewSecretServiceClient(local)),
	} {
		if err != nil {
			return nil, errs.New(errs.Internal, "cannot register REST: %w", err)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, MaxRequest)
		r.URL.RawQuery = longConsistency(r.URL.RawQuery)
		mux.ServeHTTP(w, r)
	}), nil
}

func routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusMethodNotAllowed:
		auth.WriteError(w, errs.New(errs.Unsupported, "cannot %s this path", r.Method).WithHint("see /openapi.json"))
	case http.StatusNotFound:
		auth.WriteError(w, errs.New(errs.NotFound, "cannot find this path").WithHint("see /openapi.json"))
	default:
		auth.WriteError(w, errs.New(errs.Invalid, "cannot understand the request's path").WithHint("see /openapi.json"))
	}
}

// longConsistency lets people write consistency=stale for what the .proto files call CONSISTENCY_STALE.
func longConsistency(query string) string {
	values, err := url.ParseQuery(query)
	if err != nil || !values.Has("consistency") {
		return query
	}
	switch short := values.Get("consistency"); short {
	case "stale", "leader", "linearizable":
		values.Set("consistency", "CONSISTENCY_"+strings.ToUpper(short))
	}
	return values.Encode()
}

package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
)

// maxPublic bounds what a stranger may send to a public method, in bytes.
const maxPublic = 64 << 10

// Handler lets authenticated requests through to next, with their session in the context. Public gRPC methods pass
// without one. Everything else is answered here, before its body is read.
func (d *Door) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grpc := IsGRPC(r)
		if grpc && d.public[r.URL.Path] {
			r.Body = http.MaxBytesReader(w, r.Body, maxPublic)
			next.ServeHTTP(w, r)
			return
		}
		session, err := d.Authenticate(r)
		if err != nil {
			d.config.Logger.LogAttrs(r.Context(), slog.LevelWarn, "caller refused", slog.String("remote", r.RemoteAddr),
				slog.String("http_method", r.Method), slog.String("path", clip(r.URL.Path)),
				slog.String("outcome", string(errs.KindOf(err))), slog.String("error", err.Error()))
			if grpc {
				WriteGRPCError(w, err)
			} else {
				WriteError(w, err)
			}
			return
		}
		next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), session)))
	})
}

// IsGRPC reports whether a request is a gRPC call.
func IsGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// Body is what REST answers to a call that failed.
type Body struct {
	// Code is the HTTP status.
	Code    int       `json:"code"`
	Kind    errs.Kind `json:"kind"`
	Message string    `json:"message"`
	Hint    string    `json:"hint,omitempty"`
}

// BodyOf describes an error for REST. An error without a kind shows only that something is wrong inside.
func BodyOf(err error) Body {
	kind := errs.KindOf(err)
	b := Body{Code: kind.HTTPStatus(), Kind: kind, Hint: errs.HintOf(err), Message: err.Error()}
	var own *errs.Error
	if !errors.As(err, &own) && kind == errs.Internal {
		b.Message = "internal error"
	}
	return b
}

// WriteError answers a REST request that failed.
func WriteError(w http.ResponseWriter, err error) {
	b := BodyOf(err)
	if b.Code == http.StatusUnauthorized {
		// Not Basic: the console's own login form is to be seen, not the browser's.
		w.Header().Set("WWW-Authenticate", `Bearer realm="provisionr"`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(b.Code)
	// The status is sent already: a failure to write the rest means that the client is gone.
	_ = json.NewEncoder(w).Encode(b)
}

// WriteGRPCError answers a gRPC call that failed before it began: a response of trailers only
// (gRPC over HTTP/2, section Responses).
func WriteGRPCError(w http.ResponseWriter, err error) {
	s := status.Convert(err)
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", fmt.Sprintf("%d", s.Code()))
	h.Set("Grpc-Message", percentEncode(s.Message()))
	if details, err := proto.Marshal(s.Proto()); err == nil && len(s.Proto().GetDetails()) > 0 {
		h.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(details))
	}
	w.WriteHeader(http.StatusOK)
}

// percentEncode keeps printable ASCII but for the percent sign (gRPC over HTTP/2, section Responses).
func percentEncode(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// clip bounds what a stranger can write into the log.
func clip(s string) string { return s[:min(len(s), 128)] }

package host

import (
	"errors"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/provider"
)

// Unknown keeps the kind of a provider's error and makes every other one Unknown: the call may have acted. What this host
// cannot do at all is Invalid. The format wraps the error with %w.
func Unknown(format string, err error) error {
	var own *provider.Error
	if errors.As(err, &own) {
		return err
	}
	if errs.Is(err, errs.Unsupported) || errs.Is(err, errs.Invalid) || errs.Is(err, errs.Conflict) {
		e := provider.Errorf(provider.Invalid, format, err)
		if hint := errs.HintOf(err); hint != "" {
			e.Message += ": " + hint
		}
		return e
	}
	return provider.Errorf(provider.Unknown, format, err)
}

package cli_test

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

func zoneKey(tag uint32, state, next string) *provisionrv1.ZoneKeyInfo {
	return &provisionrv1.ZoneKeyInfo{
		Origin: "provisionr.internal", Tag: tag, State: state, Since: timestamppb.New(time.Now()), Next: next,
		Ds: "provisionr.internal. IN DS " + dec(tag) + " 13 2 AB", Dnskey: "provisionr.internal. IN DNSKEY 257 3 13 AA==",
	}
}

func dec(n uint32) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return dec(n/10) + dec(n%10)
}

func (f *fake) ListZoneKeys(_ context.Context, r *provisionrv1.ListZoneKeysRequest) (*provisionrv1.ListZoneKeysResponse, error) {
	keys := slices.DeleteFunc(slices.Clone(f.zoneKeys), func(k *provisionrv1.ZoneKeyInfo) bool { return r.Origin != "" && r.Origin != k.Origin })
	return &provisionrv1.ListZoneKeysResponse{Keys: keys}, nil
}

func (f *fake) RollZoneKey(_ context.Context, r *provisionrv1.RollZoneKeyRequest) (*provisionrv1.WriteResponse, error) {
	if r.Origin != "provisionr.internal" {
		return nil, errs.New(errs.NotFound, "zone %s is not signed", r.Origin)
	}
	f.zoneKeys = append(f.zoneKeys, zoneKey(2222, "published", "not before noon: provisionr dns activate provisionr.internal 2222"))
	return &provisionrv1.WriteResponse{}, nil
}

func (f *fake) ActivateZoneKey(_ context.Context, r *provisionrv1.ActivateZoneKeyRequest) (*provisionrv1.WriteResponse, error) {
	if r.Tag != 2222 {
		return nil, errs.New(errs.NotFound, "zone %s has no key %d", r.Origin, r.Tag)
	}
	f.zoneKeys = []*provisionrv1.ZoneKeyInfo{zoneKey(1111, "retired", "removed after noon"), zoneKey(2222, "active", "signs")}
	return &provisionrv1.WriteResponse{}, nil
}

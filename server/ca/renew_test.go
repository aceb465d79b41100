package ca

import (
	"context"
	"crypto/x509"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/provisionr/provisionr/internal/pki"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

func TestRenewer(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCluster(t)
		a := c.cas["a"]
		a.config.Now = time.Now
		// The authority of newCluster is from another time than the bubble's.
		authority, err := pki.NewAuthority(c.cluster.Id, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		ring, _, err := a.open(c.records)
		if err != nil {
			t.Fatal(err)
		}
		clear(c.authorities)
		row := must[*raftlogv1.Authority](t)(sealAuthority(ring, authority, Active))
		c.authorities[row.Id] = row

		store := must[*pki.Store](t)(pki.OpenStore(dir))
		chain := must[[]byte](t)(a.IssueServer("a", &store.Key().PublicKey, nil))
		if err := store.Put(chain, a.RootsPEM()); err != nil {
			t.Fatal(err)
		}
		leaf := func() *x509.Certificate {
			cert, err := store.Certificate()
			if err != nil {
				t.Fatal(err)
			}
			return cert.Leaf
		}
		changed := make(chan struct{})
		r, err := NewRenewer(RenewConfig{
			CA: a, Store: store, Member: "a", Hosts: func() []string { return []string{"localhost"} },
			Changed: func() <-chan struct{} { return changed }, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()

		first := leaf()
		time.Sleep(time.Until(pki.RenewAt(first)) - time.Second)
		synctest.Wait()
		if !leaf().Equal(first) {
			t.Error("renewed before half of its life")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		second := leaf()
		if second.Equal(first) || len(second.DNSNames) != 1 {
			t.Error("not renewed at half of its life")
		}

		// A prepared authority is a new root; an activated one signs anew.
		prepare := must[*raftlogv1.Command](t)(a.Prepare())
		step := func(cmd *raftlogv1.Command) {
			c.apply(t, cmd)
			signal := changed
			changed = make(chan struct{})
			close(signal)
			synctest.Wait()
		}
		step(prepare)
		if len(store.Roots()) != 2 || !leaf().Equal(second) {
			t.Errorf("%d roots after one was prepared", len(store.Roots()))
		}
		step(must[*raftlogv1.Command](t)(a.Activate(prepare.GetPutAuthority().Authority.Id)))
		if leaf().Issuer.String() == second.Issuer.String() {
			t.Error("the certificate is still of the old authority")
		}
	})
}

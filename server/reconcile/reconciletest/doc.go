// Package reconciletest runs the real control loop in a world of its own, in virtual time, over any providers.
//
// A [World] is a cluster in one process: the real state machine and store, servers that lead one after the other and may be
// killed or deposed at any point, the machines' agents, and whatever providers a test gives it. It belongs into a bubble
// of testing/synctest, which [Run] makes:
//
//	cloud := &providertest.Cloud{}
//	reconciletest.Run(t, reconciletest.Config{
//		Providers: map[string]provider.Provider{"local": cloud.Provider("c-test")},
//		Instances: func() []reconciletest.Instance { ... },
//	}, func(ctx context.Context, w *reconciletest.World) {
//		w.Start(ctx, nil)
//		w.Pool("web", 3)
//		w.Until("three machines are ready", w.Ready("web", 3))
//		w.Remove("pools", "web")
//		w.Until("all is gone", w.Empty("web"))
//	})
//
// In a bubble time stands still while any goroutine waits for something outside it. A provider over HTTP must therefore
// be given an http.Client whose transport calls the test server's handler directly, or over net.Pipe: an idle connection
// of the real network would stop the clock for good.
//
// Nothing here is random: what varies between runs comes from the providers and from the test's hooks.
package reconciletest

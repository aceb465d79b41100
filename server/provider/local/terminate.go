package local

import "context"

// Terminate implements provider.Provider: it kills the machine at once and removes everything that was made for it.
func (p *Provider) Terminate(ctx context.Context, machineID, _ string) error {
	return p.machines.Terminate(ctx, machineID, p.destroy)
}

func (p *Provider) destroy(ctx context.Context, id string) error {
	return p.machines.Destroy(ctx, p.scope, id, p.linkName(id))
}

// Cleanup removes everything that this provider made on the host, and DataDir: machines, links, rules, cgroups, and the
// switch for forwarding. It needs no running server, but none may be running. It may be repeated.
func (p *Provider) Cleanup(ctx context.Context) error {
	return p.machines.Cleanup(ctx, p.scope, p.networks, func(ctx context.Context, id string) error { return p.Terminate(ctx, id, "") })
}

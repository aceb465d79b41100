package openstack

import (
	"context"
	"net/http"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/provisionr/provisionr/server/provider"
)

const (
	maxConsole   = 64 << 10
	consoleLines = 1000
)

// Console returns the tail of the server's console log.
func (p *Provider) Console(ctx context.Context, machineID, _ string) (string, error) {
	s, err := p.open(ctx)
	if err != nil {
		return "", err
	}
	there, err := p.find(ctx, s, machineID)
	if err != nil {
		return "", err
	}
	server, _ := there.main()
	if server == nil {
		return "", provider.Errorf(provider.NotFound, "openstack: machine %s has no server", machineID)
	}
	text, err := servers.ShowConsoleOutput(ctx, s.compute, server.ID, servers.ShowConsoleOutputOpts{Length: consoleLines}).Extract()
	switch code(err) {
	case http.StatusNotFound: // the server ended a moment ago, or its console has never begun
		return "", provider.Errorf(provider.NotFound, "openstack: server %s has no console output", server.ID)
	case http.StatusConflict:
		return "", provider.Errorf(provider.Unknown, "openstack: server %s has no console output yet", server.ID)
	case http.StatusNotImplemented:
		return "", provider.Errorf(provider.Invalid, "openstack: the cloud's hypervisor keeps no console output")
	}
	if err != nil {
		return "", fail(err, "reading the console of server "+server.ID)
	}
	if len(text) > maxConsole {
		text = text[len(text)-maxConsole:]
	}
	return strings.ToValidUTF8(text, "\uFFFD"), nil
}

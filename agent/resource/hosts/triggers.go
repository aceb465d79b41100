package hosts

import "github.com/provisionr/provisionr/agent/converge"

// Triggers implements converge.Triggered. A change of the kernel's name alone has no event of inotify(7): the full check finds it.
func (r *hostname) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: r.file.Path}}
}

// Triggers implements converge.Triggered.
func (r *table) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: hostsPath}}
}

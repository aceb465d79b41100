package agent

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/firewall"
)

// PrintCounters writes what each rule of the firewall matched since it was loaded; nothing where there is no firewall of ours.
func PrintCounters(h *host.Host, out io.Writer) error {
	counters, err := firewall.Counters(h)
	if err != nil || len(counters) == 0 {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nFIREWALL\tPACKETS\tBYTES")
	for _, c := range counters {
		fmt.Fprintf(w, "%s\t%d\t%d\n", c.Name, c.Packets, c.Bytes)
	}
	return w.Flush()
}

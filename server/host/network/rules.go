package network

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

// ruleset is the cluster's whole nft table, replaced in one transaction (nft(8)). Machines reach each other and the world;
// the world reaches machines only through this host's own connections and answers.
func ruleset(table, cluster string, networks map[string]Network) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %[1]s {}\ndelete table inet %[1]s\ntable inet %[1]s {\n", table)
	b.WriteString("\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n")
	names := slices.Sorted(maps.Keys(networks))
	for _, name := range names {
		n := networks[name]
		fmt.Fprintf(&b, "\t\tip saddr %[1]s ip daddr != %[1]s oifname != %[2]q masquerade\n", n.Prefix, bridgeName(cluster, name))
	}
	b.WriteString("\t}\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n")
	for _, name := range names {
		n, bridge := networks[name], bridgeName(cluster, name)
		fmt.Fprintf(&b, "\t\tiifname %q ip saddr != %s drop\n", bridge, n.Prefix)
		fmt.Fprintf(&b, "\t\tiifname %q accept\n", bridge)
		fmt.Fprintf(&b, "\t\toifname %q ct state established,related accept\n", bridge)
		fmt.Fprintf(&b, "\t\toifname %q drop\n", bridge)
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

func applyRules(ctx context.Context, table, cluster string, networks map[string]Network) error {
	return nft(ctx, ruleset(table, cluster, networks))
}

// removeRules removes the table; that there is none is success.
func removeRules(ctx context.Context, table string) error {
	return nft(ctx, fmt.Sprintf("table inet %[1]s {}\ndelete table inet %[1]s\n", table))
}

func nft(ctx context.Context, commands string) error {
	program, err := exec.LookPath("nft")
	if err != nil {
		return errs.New(errs.Unsupported, "cannot set firewall rules: %w", err).WithHint("apt-get install nftables")
	}
	cmd := exec.CommandContext(ctx, program, "-f", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot set firewall rules: nft: %w: %s", err, bytes.TrimSpace(out[:min(len(out), 1000)]))
	}
	return nil
}

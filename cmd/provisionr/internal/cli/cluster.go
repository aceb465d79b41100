package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/spec"
)

func newCluster(o *options) *cobra.Command {
	return group("cluster", "Look at and change the servers",
		newClusterInfo(o), newClusterMembers(o), newJoinToken(o), newRemoveMember(o), newSnapshot(o))
}

func newClusterInfo(o *options) *cobra.Command {
	var f output
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show the cluster, its leader, and who you are to it",
		Args:  cobra.NoArgs,
		RunE: o.run(func(ctx context.Context, c *client, _ []string) error {
			r, err := c.cluster.GetCluster(ctx, &provisionrv1.GetClusterRequest{})
			if err != nil {
				return err
			}
			switch f.format {
			case "json":
				text, err := spec.MarshalJSON(r)
				if err != nil {
					return err
				}
				o.streams.Out.Write(text)
				return nil
			case "yaml":
				text, err := spec.Marshal(r)
				if err != nil {
					return err
				}
				o.streams.Out.Write(text)
				return nil
			}
			d := details{o.streams.Out}
			d.field("cluster", r.GetCluster().GetName())
			d.field("id", r.GetCluster().GetId())
			d.field("leader", orDash(r.GetLeader()))
			d.field("server version", r.GetServerVersion())
			d.field("log index", dec(r.GetVersion().GetIndex()))
			d.field("you are", fmt.Sprintf("%s %s, %s", r.GetCaller().GetKind(), r.GetCaller().GetName(), enumText(r.GetCaller().GetRole())))
			return nil
		}),
	}
	f.register(cmd, "text", "json", "yaml")
	return cmd
}

func newClusterMembers(o *options) *cobra.Command {
	var f output
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the servers",
		Args:  cobra.NoArgs,
		RunE: o.run(func(ctx context.Context, c *client, _ []string) error {
			r, err := c.cluster.ListMembers(ctx, &provisionrv1.ListMembersRequest{})
			if err != nil {
				return err
			}
			v := memberView()
			v.items, _ = messages(r.Members, nil)
			return v.print(o.streams, f)
		}),
	}
	f.register(cmd)
	return cmd
}

func memberView() view {
	return view{kind: "member", wide: 6,
		name: func(m proto.Message) string {
			return m.(*provisionrv1.MemberStatus).GetMember().GetMetadata().GetName()
		},
		header: []string{"NAME", "ROLE", "HEALTH", "API", "INDEX", "AGENTS", "RAFT", "DNS", "VERSION"},
		row: rowOf(func(s *provisionrv1.MemberStatus) []any {
			role := "follower"
			switch {
			case s.GetLeader():
				role = "leader"
			case !s.GetVoter():
				role = "learner"
			}
			health := cell{orDash(s.GetHealth()), yellow}
			switch s.GetHealth() {
			case "alive":
				health.style = green
			case "unreachable":
				health.style = red
			}
			m := s.GetMember()
			return []any{m.GetMetadata().GetName(), role, health, m.GetApiAddress(), dec(s.GetAppliedIndex()), dec(s.GetSessions()),
				m.GetRaftAddress(), orDash(m.GetDnsAddress()), orDash(m.GetVersion())}
		})}
}

func newJoinToken(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "join-token",
		Short: "Make a one-time token for `provisionr server --join`",
		Args:  cobra.NoArgs,
		RunE: o.run(func(ctx context.Context, c *client, _ []string) error {
			r, err := c.cluster.CreateJoinToken(ctx, &provisionrv1.CreateJoinTokenRequest{})
			if err != nil {
				return err
			}
			fmt.Fprintln(o.streams.Out, r.Token)
			fmt.Fprintf(o.streams.Err, "good for one server until %s\n", r.GetExpires().AsTime().Local().Format("15:04:05"))
			return nil
		}),
	}
}

func newRemoveMember(o *options) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove-member NAME",
		Short: "Take a server out of the cluster for good",
		Args:  cobra.ExactArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			if !yes {
				if err := ask(ctx, o.streams, fmt.Sprintf("remove server %s for good?", args[0])); err != nil {
					return err
				}
			}
			if _, err := c.cluster.RemoveMember(ctx, &provisionrv1.RemoveMemberRequest{Name: args[0]}); err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "removed %s\n", args[0])
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

package ec2test

import (
	"net/netip"
	"time"
)

// Instance is the truth about an instance, free of lag.
type Instance struct {
	ID, Type, Zone, Subnet, VPC, Image string
	// State as pending, running, shutting-down or terminated; it says terminated for ever.
	State string
	// Reason as Client.UserInitiatedShutdown; empty while it lives.
	Reason string
	// Token is the client token of the call that made it.
	Token string
	// Address is the primary private one; the zero Addr after termination.
	Address, Public, IPv6 netip.Addr
	// Groups are ids of security groups.
	Groups   []string
	Tags     map[string]string
	UserData []byte
	Spot     bool
	// SpotRequest is the id of the spot request, if any.
	SpotRequest string
	KeyName     string
	Profile     string
	// HTTPTokens is required or optional (IMDSv2).
	HTTPTokens string
	Launched   time.Time
	// Terminated is when it reached that state; zero before.
	Terminated time.Time
}

// Alive says whether the instance is neither shutting down nor terminated.
func (i Instance) Alive() bool { return i.State == "pending" || i.State == "running" }

// Group is the truth about a security group that exists.
type Group struct {
	ID, Name, Description, VPC string
	Tags                       map[string]string
	// Rules as "in tcp 22-22 10.0.0.0/8" and "out -1 sg-0123", sorted.
	Rules []string
}

// Volume is the truth about a volume that exists.
type Volume struct {
	ID, Type, State, Instance, Device, Zone string
	Size, IOPS                              int
	Encrypted, DeleteOnTermination          bool
	Tags                                    map[string]string
}

// Interface is the truth about a network interface that exists.
type Interface struct {
	ID, State, Instance, Subnet string
	Address                     netip.Addr
	Groups                      []string
	DeleteOnTermination         bool
	Tags                        map[string]string
}

// Image to add with [Server.AddImage].
type Image struct {
	// ID as ami-0123456789abcdef0. Default: made.
	ID string
	// Name, by which images are found. Required.
	Name string
	// Owner is an account number. Default: the server's own account. Alias is amazon or empty.
	Owner, Alias string
	// Architecture is x86_64 or arm64. Default: x86_64.
	Architecture string
	// Created is the time of creation. Default: now.
	Created time.Time
	// RootSize in GiB. Default: 8.
	RootSize int
	// State is available, pending or failed. Default: available.
	State string
	// Deprecated images are hidden from those who do not own or name them.
	Deprecated bool
}

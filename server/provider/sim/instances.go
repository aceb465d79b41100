package sim

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	// maxEnded is how many terminated machines' tokens are remembered.
	maxEnded = 1 << 17
	// maxConsole bounds a machine's console, in bytes.
	maxConsole = 64 << 10
	// noticeBefore is how long before a spot machine is taken back its notice shows (EC2: two minutes).
	noticeBefore = 2 * time.Minute
)

// of returns the instances of a machine, in the order in which they were made.
func (c *Cloud) of(key machineKey) []*Instance {
	var all []*Instance
	for _, id := range c.byMachine[key] {
		all = append(all, c.instances[id])
	}
	return all
}

// create makes an instance, or returns the one that there is.
func (c *Cloud) create(cluster string, r provider.LaunchRequest) (provider.Instance, error) {
	key := machineKey{cluster, r.Request.GetMachineId()}
	if there := c.of(key); len(there) > 0 {
		return there[0].Instance, nil
	}
	choice := r.Request.GetChoice()
	switch {
	case c.closed:
		return provider.Instance{}, provider.Errorf(provider.Unknown, "the simulated cloud is closed")
	case c.ended[key]:
		return provider.Instance{}, provider.Errorf(provider.Unknown, "machine %s was terminated: its token makes no other", key.machine)
	}
	if err := c.check(choice); err != nil {
		return provider.Instance{}, err
	}
	if err := c.fits(choice); err != nil {
		return provider.Instance{}, err
	}
	address, err := c.address(r.Request)
	if err != nil {
		return provider.Instance{}, err
	}
	return c.add(key, r, address).Instance, nil
}

// add makes an instance come what may.
func (c *Cloud) add(key machineKey, r provider.LaunchRequest, address netip.Addr) *Instance {
	if c.instances == nil {
		c.instances, c.byMachine, c.launches = map[string]*Instance{}, map[machineKey][]string{}, map[string]int{}
	}
	c.serial++
	now := time.Now()
	i := &Instance{
		Cluster: key.cluster, Request: proto.CloneOf(r.Request), UserData: slices.Clone(r.UserData), Console: "booting " + key.machine + "\n",
		Instance: provider.Instance{MachineID: key.machine, ProviderID: fmt.Sprintf("i-%08d", c.serial), State: provider.Running, Address: address},
	}
	i.visible = now.Add(c.lag(i, "visible"))
	c.instances[i.ProviderID] = i
	c.byMachine[key] = append(c.byMachine[key], i.ProviderID)
	c.launches[key.machine]++
	if r.Request.GetChoice().GetSpot() && c.ReclaimPerHour > 0 {
		lives := time.Duration(c.random("reclaim", key.machine).ExpFloat64() / c.ReclaimPerHour * float64(time.Hour))
		lives = min(lives, 1000*time.Hour) + noticeBefore
		i.Reclaimed = now.Add(lives)
		i.reclaim = time.AfterFunc(lives, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.remove(i, true)
		})
	}
	if c.Boot != nil {
		var ctx context.Context
		ctx, i.stop = context.WithCancel(context.Background())
		machine := Machine{Request: proto.CloneOf(i.Request), UserData: i.UserData, Address: address}
		c.machines.Go(func() { c.live(ctx, i, machine) })
	}
	return i
}

// live is the life of one machine.
func (c *Cloud) live(ctx context.Context, i *Instance, m Machine) {
	if wait(ctx, c.BootTime) != nil {
		return
	}
	err := c.Boot(ctx, m)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i.Console += fmt.Sprintf("the machine halted: %v\n", err)
	i.Console = i.Console[max(0, len(i.Console)-maxConsole):]
	i.State = provider.Stopped
}

// remove deletes an instance. End says that its machine's token is used up.
func (c *Cloud) remove(i *Instance, end bool) {
	if c.instances[i.ProviderID] != i {
		return
	}
	i.halt()
	key := machineKey{i.Cluster, i.MachineID}
	delete(c.instances, i.ProviderID)
	c.byMachine[key] = slices.DeleteFunc(c.byMachine[key], func(id string) bool { return id == i.ProviderID })
	if len(c.byMachine[key]) == 0 {
		delete(c.byMachine, key)
	}
	delete(c.used, i.Address)
	if lag := c.lag(i, "hidden"); lag > 0 {
		i.hidden = time.Now().Add(lag)
		c.fading = append(c.fading, i)
	}
	if end {
		c.end(key)
	}
}

// end uses the token of a machine up.
func (c *Cloud) end(key machineKey) {
	if c.ended[key] {
		return
	}
	if c.ended == nil {
		c.ended = map[machineKey]bool{}
	}
	c.ended[key] = true
	c.endOrder = append(c.endOrder, key)
	if len(c.endOrder) > maxEnded {
		delete(c.ended, c.endOrder[0])
		c.endOrder = slices.Delete(c.endOrder, 0, 1)
	}
}

func (c *Cloud) lag(i *Instance, what string) time.Duration {
	if c.Lag <= 0 {
		return 0
	}
	return time.Duration(c.random("lag", what, i.MachineID, i.ProviderID).Float64() * float64(c.Lag))
}

// page lists a cluster's instances from after an id on, as lists show them by now.
func (c *Cloud) page(cluster, after string, size int) (page []provider.Instance, more bool) {
	now := time.Now()
	c.fading = slices.DeleteFunc(c.fading, func(i *Instance) bool { return !now.Before(i.hidden) })
	var shown []provider.Instance
	show := func(i *Instance) {
		if i.Cluster != cluster || i.ProviderID <= after || now.Before(i.visible) {
			return
		}
		one := i.Instance
		if one.Notice == nil && !i.Reclaimed.IsZero() && !now.Before(i.Reclaimed.Add(-noticeBefore)) {
			one.Notice = &provisionrv1.Notice{Kind: "spot", At: timestamppb.New(i.Reclaimed), Message: "the capacity is reclaimed"}
		}
		shown = append(shown, one)
	}
	for _, i := range c.instances {
		show(i)
	}
	for _, i := range c.fading {
		show(i)
	}
	for _, i := range c.leftovers {
		show(i)
	}
	slices.SortFunc(shown, func(a, b provider.Instance) int { return cmp.Compare(a.ProviderID, b.ProviderID) })
	if size > 0 && len(shown) > size {
		return shown[:size], true
	}
	return shown, false
}

// address returns the address that the request names, or a free one of its network.
func (c *Cloud) address(r *provisionrv1.LaunchRequest) (netip.Addr, error) {
	if text := r.GetAddress(); text != "" {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Addr{}, provider.Errorf(provider.Invalid, "cannot use address: %w", err)
		}
		return a, nil
	}
	id, prefix, err := c.network(r.GetChoice().GetNetwork())
	if err != nil {
		return netip.Addr{}, err
	}
	if c.used == nil {
		c.used, c.next = map[netip.Addr]bool{}, map[string]netip.Addr{}
	}
	first := prefix.Masked().Addr().Next().Next()
	a, ok := c.next[id]
	if !ok {
		a = first
	}
	for range len(c.used) + 2 {
		if !prefix.Contains(a) {
			a = first
		}
		if !c.used[a] {
			c.used[a], c.next[id] = true, a.Next()
			return a, nil
		}
		a = a.Next()
	}
	return netip.Addr{}, provider.Errorf(provider.NoCapacity, "network %s has no free address", id)
}

// Add makes machines of a cluster without any call, whatever room and quota say.
func (c *Cloud) Add(cluster string, requests ...*provisionrv1.LaunchRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range requests {
		address, err := c.address(r)
		if err != nil {
			address = netip.Addr{} // it is not known yet, then
		}
		c.add(machineKey{cluster, r.GetMachineId()}, provider.LaunchRequest{Request: r}, address)
	}
}

// Remove deletes machines of a cluster without any call; lists show it at once.
func (c *Cloud) Remove(cluster string, machineIDs ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range machineIDs {
		for _, i := range c.of(machineKey{cluster, id}) {
			c.remove(i, true)
		}
	}
	c.fading = nil
}

// Duplicate makes a second instance of a machine, as clouds do that know no token. It does nothing if there is none.
func (c *Cloud) Duplicate(cluster, machineID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := machineKey{cluster, machineID}
	if there := c.of(key); len(there) > 0 {
		c.add(key, provider.LaunchRequest{Request: there[0].Request, UserData: there[0].UserData}, there[0].Address)
	}
}

// Leave makes what an interrupted launch leaves of a machine: a disk.
func (c *Cloud) Leave(cluster, machineID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leftovers == nil {
		c.leftovers = map[machineKey]*Instance{}
	}
	c.serial++
	c.leftovers[machineKey{cluster, machineID}] = &Instance{Cluster: cluster, Instance: provider.Instance{
		MachineID: machineID, ProviderID: fmt.Sprintf("disk-%08d", c.serial), State: provider.Stopped,
	}}
}

package tmpl

import "fmt"

// Data is what a template sees.
type Data struct {
	Machine Machine
	Pool    Pool
	// Vars are the pool's variables.
	Vars map[string]string
	// Secret answers the function secret; a template cannot see it otherwise. Nil means that there are no secrets to have.
	Secret func(name string) (string, error)
}

// visible is the part of Data that templates see as their dot.
type visible struct {
	Machine Machine
	Pool    Pool
	Vars    map[string]string
}

// Machine is the machine that the file is for.
type Machine struct {
	// Name is the slot, as zk-1; FQDN has no final dot.
	Name, FQDN string
	// Index is the slot's number within the pool, from 1.
	Index int
	// Address is the machine's own, without prefix length.
	Address string
	// Pool is the name of the pool.
	Pool string
	// ID is the machine's id; a replacement has another.
	ID string
}

// Pool is the pool that the machine is of.
type Pool struct {
	Name string
	// Domain is the zone's, without a final dot.
	Domain string
	// Members are the pool's slots in order of index, the machine itself included. They are known before any of them runs.
	Members []Member
}

// Member is a slot of the pool.
type Member struct {
	Name, FQDN string
	Index      int
	// Address is empty until the slot's machine has one.
	Address string
}

// String returns the member's name, so that a member printed as a whole gives something useful.
func (m Member) String() string { return m.Name }

// maxSample bounds the members of sample data: more would only cost time.
const maxSample = 64

// Sample returns data as the first machine of a pool of the size would see it, with addresses of TEST-NET-1 (RFC 5737).
// At least one and at most 64 members are made. Every secret has a value, which says that it is one.
func Sample(pool, domain string, size int, vars map[string]string) Data {
	d := Data{
		Pool: Pool{Name: pool, Domain: domain}, Vars: vars,
		Secret: func(name string) (string, error) { return "value of " + name, nil },
	}
	for i := 1; i <= max(1, min(size, maxSample)); i++ {
		name := fmt.Sprintf("%s-%d", pool, i)
		d.Pool.Members = append(d.Pool.Members, Member{Name: name, FQDN: name + "." + domain, Index: i, Address: fmt.Sprintf("192.0.2.%d", i)})
	}
	first := d.Pool.Members[0]
	d.Machine = Machine{Name: first.Name, FQDN: first.FQDN, Index: 1, Address: first.Address, Pool: pool, ID: "m-aaaaaaaaaaaaaaaa"}
	return d
}

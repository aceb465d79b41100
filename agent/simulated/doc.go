// Package simulated runs the agent for machines that are simulated: the real identity, join over TLS, link, cache,
// convergence, reports and status of package agent, for any number of machines in one process.
//
// What is not real is the machine. It is a directory: host name, hosts table and files are written there by the resources
// of real machines. Packages, accounts, services, firewall, time and resolver are remembered in memory under the names and
// in the order of the real resources, and each changes when what it stands for does. Proofs that rest on convergence say
// what came of it; those that would need a network of its own (names, clock, firewall, ssh) are answered by the
// simulation, and say so. No command of an operator runs: it would run on the host of the simulation.
package simulated

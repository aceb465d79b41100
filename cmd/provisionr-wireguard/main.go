// Command provisionr-wireguard carries a WireGuard interface in userspace, for machines whose kernel has none.
//
//	provisionr-wireguard INTERFACE
//
// It makes a TUN device of that name, runs WireGuard's own Go implementation on it, and takes its configuration over the
// socket /var/run/wireguard/INTERFACE.sock, in the protocol that wg(8) and the agent speak. It has no configuration of its
// own and keeps nothing: keys, peers, addresses and routes come from provisionr-agent, which runs it as the unit
// provisionr-wireguard@INTERFACE.service and configures it again after each start. Agents fetch it from their servers by
// hash. It needs CAP_NET_ADMIN and /dev/net/tun.
//
// It tells systemd when it is ready (sd_notify(3), Type=notify), and ends at SIGTERM or SIGINT, or when the interface is
// deleted; interface and socket are gone then. Exit code 1 says on standard error what failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"
)

func main() {
	if len(os.Args) != 2 || os.Args[1] == "" || os.Args[1][0] == '-' {
		fmt.Fprintln(os.Stderr, "usage: provisionr-wireguard INTERFACE")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "provisionr-wireguard:", err)
		os.Exit(1)
	}
}

// run carries the interface until ctx ends or the interface is deleted.
func run(ctx context.Context, name string) (err error) {
	link, err := tun.CreateTUN(name, device.DefaultMTU)
	if err != nil {
		return fmt.Errorf("cannot make interface %s: %w", name, err)
	}
	wireguard := device.NewDevice(link, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, name+": "))
	defer wireguard.Close()
	file, err := ipc.UAPIOpen(name)
	if err != nil {
		return fmt.Errorf("cannot open the socket for %s: %w", name, err)
	}
	listener, err := ipc.UAPIListen(name, file)
	if err != nil {
		return errors.Join(fmt.Errorf("cannot listen on the socket for %s: %w", name, err), file.Close())
	}
	failed := make(chan error, 1)
	go func() { failed <- serve(listener, wireguard) }()
	defer func() {
		if closing := listener.Close(); err == nil {
			err = closing
		}
	}()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("cannot tell systemd: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-wireguard.Wait():
	case err := <-failed:
		return fmt.Errorf("cannot accept on the socket for %s: %w", name, err)
	}
	return nil
}

// serve answers connections until the listener is closed. Who may connect is root alone: the socket's directory is.
func serve(l net.Listener, d *device.Device) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go d.IpcHandle(c)
	}
}

package prove

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

const (
	// exchangeTimeout bounds one question to one server, and a lost packet is asked again once.
	exchangeTimeout = 600 * time.Millisecond
	exchangeTries   = 2

	typeA    = uint16(dnsmessage.TypeA)
	typeAAAA = uint16(dnsmessage.TypeAAAA)
	typePTR  = uint16(dnsmessage.TypePTR)
)

// errSilent says that a server does not answer: nothing is known then.
var errSilent = errors.New("no answer")

// exchange asks one server one question and returns the sorted data of the answers of that kind. Only errors that wrap
// errSilent are no answer.
func exchange(ctx context.Context, server, name string, kind uint16) ([]string, error) {
	owner, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return nil, fmt.Errorf("cannot ask for %s: %w", name, err)
	}
	q := dnsmessage.Question{Name: owner, Type: dnsmessage.Type(kind), Class: dnsmessage.ClassINET}
	var answer *dnsmessage.Message
	for range exchangeTries {
		if answer, err = question(ctx, "udp", server, q); err == nil && answer.Truncated {
			answer, err = question(ctx, "tcp", server, q)
		}
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSilent, err)
	}
	if answer.RCode != dnsmessage.RCodeSuccess {
		return nil, errors.New(codeText(answer.RCode))
	}
	var data []string
	for _, r := range answer.Answers {
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			data = append(data, netip.AddrFrom4(body.A).String())
		case *dnsmessage.AAAAResource:
			data = append(data, netip.AddrFrom16(body.AAAA).String())
		case *dnsmessage.PTRResource:
			data = append(data, strings.ToLower(strings.TrimSuffix(body.PTR.String(), ".")))
		}
	}
	slices.Sort(data)
	return data, nil
}

// question sends one question and waits for its answer, passing over what answers another.
func question(ctx context.Context, network, server string, q dnsmessage.Question) (*dnsmessage.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	sent := dnsmessage.Message{Header: dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true}, Questions: []dnsmessage.Question{q}}
	packed, err := sent.Pack()
	if err != nil {
		return nil, err
	}
	stream := network == "tcp"
	if stream {
		packed = append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)
	}
	if _, err := conn.Write(packed); err != nil {
		return nil, err
	}
	buf := make([]byte, zone.MaxMessage)
	for {
		n, err := receive(conn, buf, stream)
		if err != nil {
			return nil, cmp.Or(ctx.Err(), err)
		}
		var m dnsmessage.Message
		switch err := m.Unpack(buf[:n]); {
		case err == nil && m.Response && m.ID == sent.ID && slices.EqualFunc(m.Questions, sent.Questions, sameQuestion):
			return &m, nil
		case stream:
			return nil, errors.New("an answer to something else")
		}
	}
}

func receive(conn net.Conn, buf []byte, stream bool) (int, error) {
	if !stream {
		return conn.Read(buf)
	}
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return 0, err
	}
	return io.ReadFull(conn, buf[:binary.BigEndian.Uint16(buf)])
}

func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && strings.EqualFold(a.Name.String(), b.Name.String())
}

// codeText names a response code as dig(1) does.
func codeText(code dnsmessage.RCode) string {
	switch code {
	case dnsmessage.RCodeFormatError:
		return "FORMERR"
	case dnsmessage.RCodeServerFailure:
		return "SERVFAIL"
	case dnsmessage.RCodeNameError:
		return "NXDOMAIN"
	case dnsmessage.RCodeNotImplemented:
		return "NOTIMP"
	case dnsmessage.RCodeRefused:
		return "REFUSED"
	}
	return fmt.Sprintf("RCODE%d", code)
}

// reverseName returns the name of the PTR record of an address.
func reverseName(address string) (string, error) {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return "", err
	}
	return zone.ReverseName(addr), nil
}

package prove

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/provisionr/provisionr/agent/dnsclient"
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
	query, err := (&dnsmessage.Message{
		Header:    dnsmessage.Header{RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: owner, Type: dnsmessage.Type(kind), Class: dnsmessage.ClassINET}},
	}).Pack()
	if err != nil {
		return nil, fmt.Errorf("cannot ask for %s: %w", name, err)
	}
	var answer *dnsmessage.Message
	for range exchangeTries {
		if answer, err = question(ctx, "udp", server, query); err == nil && answer.Truncated {
			answer, err = question(ctx, "tcp", server, query)
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

// question sends one query and waits for its answer.
func question(ctx context.Context, network, server string, query []byte) (*dnsmessage.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	octets, err := dnsclient.Exchange(ctx, network, server, query)
	if err != nil {
		return nil, err
	}
	answer := new(dnsmessage.Message)
	return answer, answer.Unpack(octets)
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

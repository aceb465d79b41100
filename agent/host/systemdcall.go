package host

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"
)

// Looking at units is most of what an agent asks of systemd, each time that it checks. It asks all questions in one go over
// systemd's private socket, as systemctl(1) uses it, in the bytes of the D-Bus specification ("Message Protocol"), and waits
// once: by way of the bus it would wait three times for each unit. The connection does not stay, because systemd tells all
// private ones of all signals. Where the socket may not be used, or what comes is not understood, the bus is asked.
const (
	privateSocket = "/run/systemd/private"
	// maxReply bounds an answer, askTimeout the wait for each part of it, in seconds.
	maxReply   = 1 << 20
	askTimeout = 5

	managerPath    = "/org/freedesktop/systemd1"
	managerKind    = "org.freedesktop.systemd1.Manager"
	unitKind       = "org.freedesktop.systemd1.Unit"
	serviceKind    = "org.freedesktop.systemd1.Service"
	propertiesKind = "org.freedesktop.DBus.Properties"

	// Types of messages and of fields of their heads.
	methodCall, methodReturn, methodError                                = 1, 2, 3
	fieldPath, fieldInterface, fieldMember, fieldReplyTo, fieldSignature = 1, 2, 3, 5, 8
)

// errAnswer says that an answer was not understood.
var errAnswer = errors.New("systemd answers in another way than expected")

// inquiry is a connection on which questions about units were asked.
type inquiry struct {
	stream   stream
	accepted bool
	names    []string
	units    []Unit
	// missing is how many answers about each unit have not been read.
	missing []int
}

func newInquiry(fd int, names []string) *inquiry {
	q := &inquiry{stream: stream{fd: fd}, names: names, units: make([]Unit, len(names)), missing: make([]int, len(names))}
	for i, name := range names {
		q.missing[i] = questionsEach
		if !isService(name) {
			q.missing[i]--
		}
	}
	return q
}

// Each unit has questionsEach serial numbers, in the order of the names: how it is, its file, its main process.
const questionsEach = 3

// askUnit asks systemd for the state of a unit, and for the main process of a service, and waits for the answers.
func askUnit(name string) (Unit, error) {
	q, err := ask([]string{name})
	if err != nil {
		return Unit{}, err
	}
	defer q.close()
	return q.unit(0)
}

// ask asks for all units at once. The caller closes what it returns.
func ask(names []string) (*inquiry, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	q := newInquiry(fd, names)
	if err := q.send(); err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

func (q *inquiry) close() { _ = unix.Close(q.stream.fd) } // it has nothing to lose

func (q *inquiry) send() error {
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(q.stream.fd, unix.SOL_SOCKET, option, &unix.Timeval{Sec: askTimeout}); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Connect(q.stream.fd, &unix.SockaddrUnix{Name: privateSocket}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	m := make(message, 0, 1<<10*len(q.names))
	m = append(m, "\x00AUTH EXTERNAL "+hex.EncodeToString(strconv.AppendInt(nil, int64(os.Geteuid()), 10))+"\r\nBEGIN\r\n"...)
	for i, name := range q.names {
		serial := uint32(i*questionsEach + 1)
		object := managerPath + "/unit/" + systemd.PathBusEscape(name)
		m = m.call(serial, managerPath, managerKind, "ListUnitsByNames", "as", message{}.list(name))
		m = m.call(serial+1, object, propertiesKind, "Get", "ss", message{}.text(unitKind).text("UnitFileState"))
		if isService(name) {
			m = m.call(serial+2, object, propertiesKind, "Get", "ss", message{}.text(serviceKind).text("MainPID"))
		}
	}
	for len(m) > 0 {
		n, err := unix.SendmsgN(q.stream.fd, m, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("write", err)
		}
		m = m[max(n, 0):]
	}
	return nil
}

func isService(name string) bool { return strings.HasSuffix(name, ".service") }

// unit waits for all answers about one of the units. They come in any order and among signals.
func (q *inquiry) unit(i int) (Unit, error) {
	if !q.accepted {
		if err := q.stream.authenticated(); err != nil {
			return Unit{}, err
		}
		q.accepted = true
	}
	for q.missing[i] > 0 {
		kind, to, body, err := q.stream.next()
		if err != nil {
			return Unit{}, err
		}
		if kind == methodError {
			return Unit{}, errAnswer
		}
		if kind != methodReturn {
			continue
		}
		at := (int(to) - 1) / questionsEach
		if to == 0 || at >= len(q.units) {
			return Unit{}, errAnswer
		}
		if q.units[at].set((int(to)-1)%questionsEach, &body); body.broken {
			return Unit{}, errAnswer
		}
		q.missing[at]--
	}
	return q.units[i], nil
}

// set takes over the answer to one of the questions about a unit.
func (u *Unit) set(question int, body *reader) {
	switch question {
	case 0:
		body.skip(8) // a(ssssssouso): its length, up to the first structure
		_, _ = body.text(), body.text()
		u.Load, u.Active, u.Sub = body.text(), body.text(), body.text()
		body.broken = body.broken || u.Load == "" || u.Active == ""
	case 1:
		if body.signature() == "s" {
			u.File = body.text()
		}
	case 2:
		if body.signature() == "u" {
			u.MainPID = int(body.number())
		}
	}
}

// message is what is written, in little endian.
type message []byte

func (m message) align(n, from int) message {
	for (len(m)-from)%n != 0 {
		m = append(m, 0)
	}
	return m
}

// text appends a string; what it is appended to begins at a multiple of four.
func (m message) text(s string) message {
	m = m.align(4, 0)
	m = binary.LittleEndian.AppendUint32(m, uint32(len(s)))
	return append(append(m, s...), 0)
}

// list appends an array of one string.
func (m message) list(s string) message {
	return message(binary.LittleEndian.AppendUint32(m, uint32(4+len(s)+1))).text(s)
}

// call appends a method call without destination, as there is but one.
func (m message) call(serial uint32, path, kind, member, signature string, body message) message {
	fields := message{}
	for _, f := range []struct {
		code byte
		kind byte
		text string
	}{{fieldPath, 'o', path}, {fieldInterface, 's', kind}, {fieldMember, 's', member}} {
		fields = append(fields.align(8, 0), f.code, 1, f.kind, 0).text(f.text)
	}
	fields = append(fields.align(8, 0), fieldSignature, 1, 'g', 0, byte(len(signature)))
	fields = append(append(fields, signature...), 0)
	begin := len(m)
	m = append(m, 'l', methodCall, 0, 1)
	m = binary.LittleEndian.AppendUint32(m, uint32(len(body)))
	m = binary.LittleEndian.AppendUint32(m, serial)
	m = binary.LittleEndian.AppendUint32(m, uint32(len(fields)))
	return append(append(m, fields...).align(8, begin), body...)
}

// stream is what is read.
type stream struct {
	fd   int
	data []byte
}

// need reads until there are n bytes.
func (s *stream) need(n int) error {
	for len(s.data) < n {
		if cap(s.data)-len(s.data) < n-len(s.data) || cap(s.data) == len(s.data) {
			s.data = append(make([]byte, 0, max(8<<10, 2*n)), s.data...)
		}
		got, err := unix.Read(s.fd, s.data[len(s.data):cap(s.data)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("read", err)
		case got == 0:
			return fmt.Errorf("%w: it closed the connection", errAnswer)
		default:
			s.data = s.data[:len(s.data)+got]
		}
	}
	return nil
}

// authenticated reads the line that says that we may ask.
func (s *stream) authenticated() error {
	const most = 256
	for n := 1; n < most; n++ {
		if err := s.need(n); err != nil {
			return err
		}
		if s.data[n-1] == '\n' {
			if string(s.data[:min(3, n)]) != "OK " {
				return errAnswer
			}
			s.data = s.data[n:]
			return nil
		}
	}
	return errAnswer
}

// next reads a message: its type, the serial number that it answers, and its body.
func (s *stream) next() (kind byte, to uint32, body reader, err error) {
	const head = 16
	if err := s.need(head); err != nil {
		return 0, 0, reader{}, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if s.data[0] == 'B' {
		order = binary.BigEndian
	}
	fields, rest := order.Uint32(s.data[12:]), order.Uint32(s.data[4:])
	if fields > maxReply || rest > maxReply {
		return 0, 0, reader{}, errAnswer
	}
	begin := (head + int(fields) + 7) &^ 7
	if err := s.need(begin + int(rest)); err != nil {
		return 0, 0, reader{}, err
	}
	kind = s.data[1]
	f := reader{order: order, data: s.data[:head+int(fields)], at: head}
	for f.at < len(f.data) && !f.broken {
		f.align(8)
		code, of := f.byte(), f.signature()
		switch {
		case of == "u" && code == fieldReplyTo:
			to = f.number()
		case of == "u":
			f.number()
		case of == "g":
			f.signature()
		case of == "s", of == "o":
			f.text()
		default:
			return 0, 0, reader{}, errAnswer
		}
	}
	if f.broken {
		return 0, 0, reader{}, errAnswer
	}
	body = reader{order: order, data: s.data[begin : begin+int(rest)]}
	s.data = s.data[begin+int(rest):]
	return kind, to, body, nil
}

// reader decodes values. Broken says that there were less than was asked for; what was returned since is zero.
type reader struct {
	order  binary.ByteOrder
	data   []byte
	at     int
	broken bool
}

func (r *reader) align(n int) { r.at = (r.at + n - 1) / n * n }

func (r *reader) skip(n int) { r.take(n) }

func (r *reader) take(n int) []byte {
	if r.broken || n < 0 || r.at+n > len(r.data) {
		r.broken = true
		return nil
	}
	r.at += n
	return r.data[r.at-n : r.at]
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) number() uint32 {
	r.align(4)
	if b := r.take(4); b != nil {
		return r.order.Uint32(b)
	}
	return 0
}

func (r *reader) text() string {
	n := r.number()
	if n > maxReply {
		r.broken = true
	}
	b := r.take(int(n))
	r.take(1) // the zero byte
	return string(b)
}

func (r *reader) signature() string {
	b := r.take(int(r.byte()))
	r.take(1)
	return string(b)
}

package state

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// snapshotFormat is the format of stored snapshots that this package writes and reads.
const snapshotFormat = 1

// maxRecord bounds one record of a stored snapshot in bytes.
const maxRecord = 64 << 20

// Save writes the snapshot as a stream of length-delimited records: header, rows in the order of their keys, end. Equal
// states give equal bytes.
func (s *Snapshot) Save(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 1<<16)
	// protodelim has no deterministic mode, so records are framed here in its format.
	var frame []byte
	var count uint64
	for r := range s.records() {
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
		if err != nil {
			return fmt.Errorf("cannot encode a snapshot record: %w", err)
		}
		if len(body) > maxRecord {
			return fmt.Errorf("cannot save a record of %d bytes: the most is %d", len(body), maxRecord)
		}
		frame = appendFrame(frame[:0], body)
		if _, err := buffered.Write(frame); err != nil {
			return fmt.Errorf("cannot write the snapshot: %w", err)
		}
		count++
	}
	end := &raftlogv1.SnapshotRecord{Row: &raftlogv1.SnapshotRecord_End{End: count}}
	if _, err := protodelim.MarshalTo(buffered, end); err != nil {
		return fmt.Errorf("cannot write the snapshot: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("cannot write the snapshot: %w", err)
	}
	return nil
}

func appendFrame(b, body []byte) []byte {
	n := uint64(len(body))
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), body...)
}

// ErrTorn says that a stored snapshot ends early or is damaged.
var ErrTorn = errors.New("the snapshot is torn or damaged")

// Restore replaces the whole state by what Save wrote and publishes it. After an error the state is as it was.
func (s *Store) Restore(r io.Reader) error {
	db, err := newDB()
	if err != nil {
		return err
	}
	fresh := &Store{db: db, watchers: map[Table]chan struct{}{}}
	tx := fresh.Begin()
	if err := load(tx, r); err != nil {
		tx.Abort()
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	s.db = db
	s.pending = 0
	s.names.forget()
	s.publish(^Table(0))
	return nil
}

// Verify reads a stored snapshot as Restore does and returns its version and cluster, which may be nil.
func Verify(r io.Reader) (*provisionrv1.Version, *provisionrv1.Cluster, error) {
	scratch := New()
	if err := scratch.Restore(r); err != nil {
		return nil, nil, err
	}
	return scratch.Read().Version(), scratch.Read().Cluster(), nil
}

func load(tx *Tx, r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<16)
	options := protodelim.UnmarshalOptions{MaxSize: maxRecord}
	var m meta
	for n := uint64(0); ; n++ {
		record := &raftlogv1.SnapshotRecord{}
		if err := options.UnmarshalFrom(in, record); err != nil {
			return fmt.Errorf("%w: record %d: %v", ErrTorn, n, err)
		}
		header := record.GetHeader()
		switch {
		case n == 0 && header == nil:
			return fmt.Errorf("%w: it does not begin with a header", ErrTorn)
		case n == 0 && header.GetFormat() != snapshotFormat:
			return fmt.Errorf("cannot read snapshot format %d: this version reads format %d", header.GetFormat(), snapshotFormat)
		case n == 0:
			m.version = header.GetVersion()
			continue
		case header != nil:
			return fmt.Errorf("%w: a second header is record %d", ErrTorn, n)
		}
		if end, ok := record.GetRow().(*raftlogv1.SnapshotRecord_End); ok {
			if end.End != n {
				return fmt.Errorf("%w: it counts %d records, %d were read", ErrTorn, end.End, n)
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("%w: bytes follow its end", ErrTorn)
			}
			break
		}
		if err := loadRow(tx, &m, record); err != nil {
			return err
		}
	}
	tx.putMeta(m)
	return tx.rebuildNames()
}

func loadRow(tx *Tx, m *meta, record *raftlogv1.SnapshotRecord) error {
	switch row := record.GetRow().(type) {
	case *raftlogv1.SnapshotRecord_Cluster:
		tx.PutCluster(row.Cluster)
	case *raftlogv1.SnapshotRecord_SealedKey:
		tx.PutSealedKey(row.SealedKey)
	case *raftlogv1.SnapshotRecord_Proof:
		tx.insert(TableProofs, row.Proof)
	case *raftlogv1.SnapshotRecord_Authority:
		tx.insert(TableAuthorities, row.Authority)
	case *raftlogv1.SnapshotRecord_JoinToken:
		tx.insert(TableJoinTokens, row.JoinToken)
	case *raftlogv1.SnapshotRecord_AppliedRequest:
		tx.insert(tableApplied, row.AppliedRequest)
		m.applied++
	case *raftlogv1.SnapshotRecord_Object:
		return loadObject(tx, m, row.Object)
	default:
		return fmt.Errorf("cannot read a snapshot record of an unknown kind: a newer version of this server wrote it")
	}
	return tx.err
}

func loadObject(tx *Tx, m *meta, o *provisionrv1.Object) error {
	switch o.GetKind().(type) {
	case *provisionrv1.Object_Event:
		tx.insert(TableEvents, o.GetEvent())
		m.events++
		// Events of one index are counted on, so that an index whose events are all stored never repeats one.
		if v := o.GetEvent().GetVersion(); v.GetIndex() >= m.eventIndex {
			m.eventIndex, m.eventSub = v.GetIndex(), v.GetSub()+1
		}
		return tx.err
	case *provisionrv1.Object_Machine:
		tx.insert(TableMachines, o.GetMachine())
		m.machines++
		return tx.err
	}
	row := RowOf(o)
	if row == nil {
		return fmt.Errorf("cannot read an object of an unknown kind: a newer version of this server wrote it")
	}
	if _, zone := row.(*provisionrv1.Zone); zone {
		tx.Put(row)
		return tx.err
	}
	t, _ := tableOf(row)
	tx.insert(t, row)
	return tx.err
}

// records yields the whole snapshot but for the end.
func (s *Snapshot) records() iter.Seq[*raftlogv1.SnapshotRecord] {
	return func(yield func(*raftlogv1.SnapshotRecord) bool) {
		header := &raftlogv1.SnapshotHeader{Format: snapshotFormat, Version: s.Version()}
		if !yield(&raftlogv1.SnapshotRecord{Row: &raftlogv1.SnapshotRecord_Header{Header: header}}) {
			return
		}
		if c := s.Cluster(); c != nil && !yield(&raftlogv1.SnapshotRecord{Row: &raftlogv1.SnapshotRecord_Cluster{Cluster: c}}) {
			return
		}
		if k := s.SealedKey(); k != nil && !yield(&raftlogv1.SnapshotRecord{Row: &raftlogv1.SnapshotRecord_SealedKey{SealedKey: k}}) {
			return
		}
		for a := range s.Authorities() {
			if !yield(&raftlogv1.SnapshotRecord{Row: &raftlogv1.SnapshotRecord_Authority{Authority: a}}) {
				return
			}
		}
		for t := range s.JoinTokens() {
			if !yield(&raftlogv1.SnapshotRecord{Row: &raftlogv1.SnapshotRecord_JoinToken{JoinToken: t}}) {
				return
			}
		}
		for o := range s.objects() {
			if !yield(&raftlogv1.SnapshotRecord{Row: &raftlogv1.SnapshotRecord_Object{Object: o}}) {
				return
			}
		}
		for p := range scan[*provisionrv1.Proof](s, TableProofs, idIndex, nil) {
			if !yield(&raftlogv1.SnapshotRecord{Row: &raftlogv1.SnapshotRecord_Proof{Proof: p}}) {
				return
			}
		}
		for a := range scan[*raftlogv1.AppliedRequest](s, tableApplied, "version", nil) {
			if !yield(&raftlogv1.SnapshotRecord{Row: &raftlogv1.SnapshotRecord_AppliedRequest{AppliedRequest: a}}) {
				return
			}
		}
	}
}

// objects yields every row that an Object can hold.
func (s *Snapshot) objects() iter.Seq[*provisionrv1.Object] {
	return func(yield func(*provisionrv1.Object) bool) {
		more := true
		each := func(row any) bool {
			more = yield(ObjectOf(row))
			return more
		}
		forward(s.Members(), each)
		for _, next := range []func(){
			func() { forward(s.Users(), each) }, func() { forward(s.Tokens(), each) },
			func() { forward(s.Providers(), each) }, func() { forward(s.Networks(), each) }, func() { forward(s.zonesAs((*ZoneRow).written), each) },
			func() { forward(s.Vpns(), each) }, func() { forward(s.VpnPeers(), each) }, func() { forward(s.Secrets(), each) },
			func() { forward(s.DeletedSecrets(), each) }, func() { forward(s.ZoneKeys(), each) },
			func() { forward(s.Pools(), each) }, func() { forward(s.Slots(), each) },
			func() { forward(scan[*provisionrv1.AddressClaim](s, TableClaims, idIndex, nil), each) },
			func() { forward(s.Machines(), each) }, func() { forward(s.Events(0), each) },
		} {
			if !more {
				return
			}
			next()
		}
	}
}

func forward[T any](rows iter.Seq[T], each func(any) bool) {
	for row := range rows {
		if !each(row) {
			return
		}
	}
}

package zone

import (
	"bytes"
	"strings"
	"testing"
)

// TestParseAll: answers are the same as those of Parse, whatever else is in the batch, and when the set changed in between.
func TestParseAll(t *testing.T) {
	label := strings.Repeat("x", maxLabel)
	longest := strings.Join([]string{label, label, label, label[:48], "example.test"}, ".")
	build := func(serial uint32) *Set {
		records := []Record{Text("a.example.test", "x"), Text(longest, "y")}
		z, err := Build(Config{Origin: "example.test", Serial: serial, TTL: 30, NS: []NameServer{{Name: "ns.other.test"}}, Records: records})
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSet([]*Zone{z})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	names := []string{"\x01a\x07example\x04test\x00", "\x01A\x07example\x04test\x00", "\x01b\x07example\x04test\x00", "\x07example\x04test\x00", "\x04test\x00", "\x00", "\xff"}
	wire, err := AppendName(nil, longest)
	if err != nil || len(wire) != maxName {
		t.Fatalf("a name of %d octets, %v", len(wire), err)
	}
	names = append(names, string(wire))
	var messages [][]byte
	for _, name := range names {
		for _, tail := range []string{"\x00\x10\x00\x01", "\x00\x01\x00\x01", "\x00\x10\x00\x03", "\x00\xfc\x00\x01"} {
			messages = append(messages, []byte("\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"+name+tail))
		}
	}
	old, next := build(1), build(2)
	for _, set := range []*Set{nil, old, next} {
		queries, verdicts := make([]Query, len(messages)), make([]Verdict, len(messages))
		for round := range 2 {
			if round == 0 {
				old.ParseAll(messages, queries, verdicts)
			} else {
				set.ParseAll(messages, queries, verdicts)
			}
			for i, msg := range messages {
				var q Query
				switch verdict := Parse(msg, &q); {
				case verdict != verdicts[i]:
					t.Errorf("% x: %d, want %d", msg, verdicts[i], verdict)
					continue
				case verdict != Ask:
					continue
				}
				r := Reply{Max: MaxUDP}
				want, outcome := set.Answer(nil, &q, &r)
				if got, same := set.Answer(nil, &queries[i], &r); !bytes.Equal(got, want) || same != outcome {
					t.Errorf("% x: % x, want % x", msg, got, want)
				}
			}
		}
	}
}

// TestAnswerForgets: no query keeps zones alive once it is answered, whatever became of it.
func TestAnswerForgets(t *testing.T) {
	for _, mode := range []Signing{Unsigned, Online} {
		z, err := Build(Config{Origin: "example.test", Serial: 1, TTL: 30, Mode: mode, NS: []NameServer{{Name: "ns.other.test"}}, Records: []Record{Text("a.example.test", "x")}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSet([]*Zone{z})
		if err != nil {
			t.Fatal(err)
		}
		msg := []byte("\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x07example\x04test\x00\x00\x10\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00")
		queries, verdicts := make([]Query, 1), make([]Verdict, 1)
		s.ParseAll([][]byte{msg}, queries, verdicts)
		if queries[0].place.set == nil {
			t.Fatal("not looked up")
		}
		if s.Answer(nil, &queries[0], &Reply{Max: MaxUDP}); queries[0].place != (place{}) {
			t.Errorf("mode %d: keeps %v", mode, queries[0].place)
		}
	}
}

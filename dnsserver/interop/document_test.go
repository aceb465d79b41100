//go:build machine

package interop

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the document of the differences anew")

const documentPath = "../../docs/dns-differences.md"

const documentHead = `# Where our DNS server answers otherwise than NSD and Knot

A test asks our server, NSD %s and Knot %s about the same zones, with the same thousands of queries, well-formed and not, over UDP
and TCP, and compares the code, the flags, the question, the sections as sets, OPT and its options. It fails on a difference that
no line of this table explains, and on a line that explains none. Spelling of names in the data of records is not compared:
compression gives them that of the question.

This file is made of the test's table: ` + "`go test -tags machine -run Document ./dnsserver/interop -update`" + `.
`

// tables are the parts of the document.
var tables = []struct {
	title   string
	entries []explanation
}{
	{"Queries that somebody calls malformed", malformedExplanations},
	{"What is no question for records", refusedExplanations},
	{"Answers", answerExplanations},
	{"What may be left out", courtesyExplanations},
}

// TestDocument has the document show the table.
func TestDocument(t *testing.T) {
	want := document()
	if *update {
		if err := os.WriteFile(documentPath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the table says: run this test with -update", documentPath)
	}
}

// document renders the table.
func document() string {
	var text strings.Builder
	fmt.Fprintf(&text, documentHead, "4.6", "3.2")
	names := strings.NewReplacer("nsd", "NSD", "knot", "Knot")
	for _, part := range tables {
		fmt.Fprintf(&text, "\n## %s\n\n| asked | other than ours | we answer | they answer | who is right | by |\n|---|---|---|---|---|---|\n", part.title)
		for _, e := range part.entries {
			fmt.Fprintf(&text, "| %s | %s | %s | %s | %s | %s |\n", e.asked, names.Replace(strings.Join(e.peers, ", ")), e.ours, e.theirs, e.why, e.rfc)
		}
	}
	return text.String()
}

package cli

import (
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// cell is a text in a colour.
type cell struct {
	text  string
	style style
}

// table is a grid with a header.
type table struct {
	header []string
	rows   [][]cell
}

func (t *table) add(cells ...any) {
	row := make([]cell, 0, len(cells))
	for _, c := range cells {
		switch c := c.(type) {
		case cell:
			row = append(row, c)
		case string:
			row = append(row, cell{text: c})
		}
	}
	t.rows = append(t.rows, row)
}

// lines lays the table out. Control characters of values are replaced, for they come from machines.
func (t *table) lines(colour bool) []string {
	widths := make([]int, len(t.header))
	for i, h := range t.header {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, row := range t.rows {
		for i := range row {
			row[i].text = clean(row[i].text)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	header := make([]cell, len(t.header))
	for i, h := range t.header {
		header[i] = cell{h, bold}
	}
	var out []string
	for _, row := range append([][]cell{header}, t.rows...) {
		var b strings.Builder
		for i, c := range row {
			b.WriteString(c.style.paint(c.text, colour))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+3))
			}
		}
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	return out
}

func (t *table) write(w io.Writer, colour bool) error {
	_, err := io.WriteString(w, strings.Join(t.lines(colour), "\n")+"\n")
	return err
}

// clean makes a text fit for one line of a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return -1
		}
		return r
	}, s)
}

// short cuts a text to n characters.
func short(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-1, 0)]) + "…"
}

// age is how long ago a time was, as 5s, 3m, 2h or 4d.
func age(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	switch d := max(time.Since(t.AsTime()), 0); {
	case d < 2*time.Minute:
		return d.Truncate(time.Second).String()
	case d < 2*time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Hour).String(), "0m0s")
	default:
		return dec(uint64(d/(24*time.Hour))) + "d"
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

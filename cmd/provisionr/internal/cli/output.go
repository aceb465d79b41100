package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
)

// output is the -o flag.
type output struct{ format string }

func (f *output) register(cmd *cobra.Command, formats ...string) {
	if len(formats) == 0 {
		formats = []string{"table", "wide", "json", "yaml", "name"}
	}
	cmd.Flags().StringVarP(&f.format, "output", "o", formats[0], "how to print: "+strings.Join(formats, ", "))
	// The error is that the flag does not exist; it was made the line before.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	check := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		for _, known := range formats {
			if f.format == known {
				if check != nil {
					return check(cmd, args)
				}
				return nil
			}
		}
		return errs.New(errs.Invalid, "cannot print as %q", f.format).WithHint("-o takes %s", strings.Join(formats, ", "))
	}
}

// view is a list of objects and how to show them.
type view struct {
	kind   string // in small letters and singular, as for -o name
	items  []proto.Message
	name   func(proto.Message) string
	header []string // columns from wide on are shown by -o wide only
	wide   int
	row    func(proto.Message) []any
	single bool // one object was asked for by name
}

func (v view) print(s Streams, f output) error {
	switch f.format {
	case "json":
		return v.json(s.Out)
	case "yaml":
		text, err := spec.Marshal(v.items...)
		if err != nil {
			return err
		}
		_, err = s.Out.Write(text)
		return err
	case "manifest":
		return v.manifest(s.Out)
	case "name":
		for _, m := range v.items {
			fmt.Fprintf(s.Out, "%s/%s\n", v.kind, v.name(m))
		}
		return nil
	}
	if len(v.items) == 0 {
		fmt.Fprintf(s.Err, "there is no %s\n", v.kind)
		return nil
	}
	t := table{header: v.header}
	if f.format != "wide" {
		t.header = t.header[:v.wide]
	}
	for _, m := range v.items {
		t.add(v.row(m)[:len(t.header)]...)
	}
	return t.write(s.Out, colours(s.Out))
}

// json prints one object for one name, else an array.
func (v view) json(w io.Writer) error {
	var parts []string
	for _, m := range v.items {
		text, err := spec.MarshalJSON(m)
		if err != nil {
			return err
		}
		parts = append(parts, strings.TrimSpace(string(text)))
	}
	if v.single && len(parts) == 1 {
		fmt.Fprintln(w, parts[0])
		return nil
	}
	if len(parts) == 0 {
		fmt.Fprintln(w, "[]")
		return nil
	}
	for i, p := range parts {
		parts[i] = "  " + strings.ReplaceAll(p, "\n", "\n  ")
	}
	fmt.Fprintf(w, "[\n%s\n]\n", strings.Join(parts, ",\n"))
	return nil
}

// manifest prints objects as they could be applied.
func (v view) manifest(w io.Writer) error {
	var objects []*provisionrv1.Object
	for _, m := range v.items {
		o := &provisionrv1.Object{}
		fields := o.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if fields.Get(i).Message() == m.ProtoReflect().Descriptor() {
				o.ProtoReflect().Set(fields.Get(i), protoValue(m))
			}
		}
		objects = append(objects, o)
	}
	text, err := spec.Manifest(objects...)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func dec[T uint32 | uint64 | int](n T) string { return strconv.FormatUint(uint64(n), 10) }

// message writes an answer in the chosen format: as json, as yaml, or as text does it.
func (f *output) message(out io.Writer, m proto.Message, text func()) error {
	var encoded []byte
	var err error
	switch f.format {
	case "json":
		encoded, err = spec.MarshalJSON(m)
	case "yaml":
		encoded, err = spec.Marshal(m)
	default:
		text()
		return nil
	}
	if err == nil {
		_, err = out.Write(encoded)
	}
	return err
}

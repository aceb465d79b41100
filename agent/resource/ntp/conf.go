package ntp

import (
	"strings"
)

// sources returns our part of chrony.conf(5). Servers are the administrator's own and asked often; pools are other people's,
// and asked as they like it.
func sources(servers, pools []string) []byte {
	var b strings.Builder
	b.WriteString("# Managed by provisionr-agent.\n")
	for _, s := range servers {
		b.WriteString("server " + s + " iburst minpoll 4 maxpoll 6\n")
	}
	for _, p := range pools {
		b.WriteString("pool " + p + " iburst\n")
	}
	// Steps when off by more than 0.1 s, in the first three updates after the start.
	b.WriteString("makestep 0.1 3\n")
	return []byte(b.String())
}

// timesyncdConf is for timesyncd.conf(5), which knows no difference between servers and pools. The distribution's own are
// taken away.
func timesyncdConf(servers, pools []string) []byte {
	all := strings.Join(append(append([]string(nil), servers...), pools...), " ")
	return []byte("# Managed by provisionr-agent.\n[Time]\nNTP=\nNTP=" + all + "\nFallbackNTP=\nPollIntervalMaxSec=64\n")
}

// disable comments out what contends with our part and has it read by the line include, if there is one. With off false it
// takes our marks and line away.
func disable(now []byte, off bool, include string) []byte {
	var b strings.Builder
	included := false
	for line := range strings.Lines(string(now)) {
		rest, marked := strings.CutPrefix(line, mark)
		f := strings.Fields(rest)
		contends := len(f) > 0 && (f[0] == "pool" || f[0] == "server" || f[0] == "makestep")
		switch {
		case include != "" && strings.TrimSpace(line) == include:
			if included = true; !off {
				continue
			}
		case marked && !off, marked && !contends:
			line = rest
		case !marked && off && contends:
			line = mark + line
		}
		b.WriteString(line)
	}
	if off && include != "" && !included {
		if s := b.String(); s != "" && !strings.HasSuffix(s, "\n") {
			b.WriteString("\n")
		}
		b.WriteString(include + "\n")
	}
	return []byte(b.String())
}

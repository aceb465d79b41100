package host

// Real returns the machine that the agent runs on, with files below root. Close its Systemd when done.
func Real(root string) (Host, *Systemd) {
	h := Host{Root: root, Commands: Processes{}}
	s := NewSystemd(h)
	h.Units = s
	return h, s
}

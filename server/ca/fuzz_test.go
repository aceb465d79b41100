package ca

import "testing"

func FuzzParseSSHKey(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS me@here")
	f.Add(`from="10.0.0.0/8" ssh-rsa AAAAB3NzaC1yc2E=`)
	f.Add("ssh-dss AAAAB3NzaC1kc3MAAACBAP")
	f.Fuzz(func(t *testing.T, line string) {
		key, err := parseSSHKey(line)
		if err != nil {
			return
		}
		again, err := parseSSHKey(keyLine(key))
		if err != nil || string(again.Marshal()) != string(key.Marshal()) {
			t.Fatalf("%q does not survive: %v", line, err)
		}
	})
}

package ospolicy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/sharedkernel"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	selinuxEnforce = "/sys/fs/selinux/enforce"
	selinuxConf    = "/etc/selinux/config"
	// relabelPath has files labelled at the next boot (selinux-autorelabel.service).
	relabelPath   = "/.autorelabel"
	apparmorParam = "/sys/module/apparmor/parameters/enabled"
	apparmorGrub  = "/etc/default/grub.d/90-provisionr-apparmor.cfg"
	maxConf       = 64 << 10
	// grubTimeout bounds update-grub, which may look for other systems on all disks.
	grubTimeout = 5 * time.Minute
)

// value reads a small file; "" if there is none.
func value(h *host.Host, path string) (string, error) {
	content, err := conffile.Read(h, path, maxConf)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(content)), err
}

// selinux keeps SELinux's mode: the one of the running kernel where that can change, and the one of the next boot.
type selinux struct {
	host   *host.Host
	mode   string
	shared bool
}

// Name implements converge.Resource.
func (s *selinux) Name() string { return "ospolicy/selinux" }

// After implements converge.Ordered.
func (s *selinux) After() []string { return []string{"package"} }

// Triggers implements converge.Triggered.
func (s *selinux) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: selinuxConf}}
}

// read returns the running kernel's mode, and the configuration's with all of its text.
func (s *selinux) read() (running, configured, text string, err error) {
	if s.shared {
		return "", "", "", sharedkernel.Error("osPolicy.selinux")
	}
	enforce, err := value(s.host, selinuxEnforce)
	if err != nil {
		return "", "", "", err
	}
	content, err := conffile.Read(s.host, selinuxConf, maxConf)
	if errors.Is(err, fs.ErrNotExist) {
		if s.mode == "disabled" && enforce == "" {
			return "disabled", "disabled", "", nil
		}
		return "", "", "", errs.New(errs.Unsupported, "cannot make SELinux %s: the system has none", s.mode).WithHint("take osPolicy.selinux out, or use an operating system that has it")
	}
	if err != nil {
		return "", "", "", err
	}
	for line := range strings.Lines(string(content)) {
		if mode, ok := strings.CutPrefix(strings.TrimSpace(line), "SELINUX="); ok {
			configured = strings.TrimSpace(mode)
		}
	}
	return map[string]string{"": "disabled", "0": "permissive", "1": "enforcing"}[enforce], configured, string(content), nil
}

// Check implements converge.Resource.
func (s *selinux) Check(context.Context) (converge.Diff, error) {
	running, configured, _, err := s.read()
	if err != nil {
		return converge.Diff{}, err
	}
	var lines []string
	if configured != s.mode {
		lines = append(lines, selinuxConf+":", "-SELINUX="+configured, "+SELINUX="+s.mode)
	}
	// Disabling and enabling take a boot, which RebootRequired tells of: only the modes of an active SELinux change at once.
	if running != s.mode && running != "disabled" && s.mode != "disabled" {
		lines = append(lines, "-running "+running, "+running "+s.mode)
	}
	return converge.Diff{Text: strings.Join(lines, "\n")}, nil
}

// Apply implements converge.Resource.
func (s *selinux) Apply(ctx context.Context) error {
	running, configured, text, err := s.read()
	if err != nil {
		return err
	}
	if configured != s.mode {
		var b strings.Builder
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(strings.TrimSpace(line), "SELINUX=") {
				b.WriteString(line)
			}
		}
		if out := b.String(); out != "" && !strings.HasSuffix(out, "\n") {
			b.WriteString("\n")
		}
		b.WriteString("SELINUX=" + s.mode + "\n")
		f, err := conffile.Edited(s.host, selinuxConf, []byte(b.String()))
		if err == nil {
			err = conffile.Apply(s.host, &f)
		}
		if err == nil && running == "disabled" && s.mode != "disabled" {
			// What was written meanwhile has no labels: a boot that enforces them would let nobody in.
			err = conffile.Apply(s.host, &conffile.File{Path: relabelPath})
		}
		if err != nil {
			return err
		}
	}
	if running == s.mode || running == "disabled" || s.mode == "disabled" {
		return nil
	}
	_, err = command.Run(ctx, s.host, host.Command{Path: "setenforce", Args: []string{map[string]string{"enforcing": "1", "permissive": "0"}[s.mode]}})
	return err
}

// apparmor keeps whether the kernel has AppArmor. Either way takes a boot, with a parameter of the kernel's command line.
type apparmor struct {
	host    *host.Host
	enabled bool
	shared  bool
	// left says that nothing is asked of it any more: our parameter goes.
	left bool
}

// Name implements converge.Resource.
func (a *apparmor) Name() string { return "ospolicy/apparmor" }

// After implements converge.Ordered.
func (a *apparmor) After() []string { return []string{"package"} }

// Triggers implements converge.Triggered.
func (a *apparmor) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: apparmorGrub}}
}

func (a *apparmor) file() *conffile.File {
	if a.left {
		return &conffile.File{Path: apparmorGrub, Absent: true}
	}
	parameter := "apparmor=0"
	if a.enabled {
		parameter = "apparmor=1 security=apparmor"
	}
	return &conffile.File{Path: apparmorGrub, Content: []byte("# Managed by provisionr-agent.\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX " + parameter + "\"\n")}
}

func (a *apparmor) running() (bool, error) {
	if a.shared {
		return false, sharedkernel.Error("osPolicy.apparmor")
	}
	param, err := value(a.host, apparmorParam)
	if err != nil {
		return false, fmt.Errorf("cannot see whether AppArmor is enabled: %w", err)
	}
	return param == "Y", nil
}

// Check implements converge.Resource. A machine whose boot loader has been told waits for its boot: it is as desired, and
// RebootRequired says what is missing.
func (a *apparmor) Check(context.Context) (converge.Diff, error) {
	running, err := a.running()
	// A file of ours that says otherwise counts at the next boot.
	told := conffile.Exists(a.host, apparmorGrub)
	if err != nil || running == a.enabled && !told || a.left && !told {
		return converge.Diff{}, err
	}
	if !conffile.Exists(a.host, "/etc/default/grub") && !told {
		return converge.Diff{}, errs.New(errs.Unsupported, "cannot change AppArmor: the machine's boot loader is not GRUB").
			WithHint("give the kernel apparmor=%s in the image", map[bool]string{true: "1", false: "0"}[a.enabled])
	}
	var seen conffile.Seen
	text, err := conffile.Check(a.host, a.file(), &seen)
	return converge.Diff{Text: text}, err
}

// Apply implements converge.Resource.
func (a *apparmor) Apply(ctx context.Context) error {
	if _, err := a.running(); err != nil {
		return err
	}
	before, err := conffile.Save(a.host, apparmorGrub)
	if err != nil {
		return err
	}
	if err := conffile.Apply(a.host, a.file()); err != nil {
		return err
	}
	if _, err := command.Run(ctx, a.host, host.Command{Path: "update-grub", Timeout: grubTimeout}); err != nil {
		if a.left {
			return errors.Join(err, conffile.Restore(a.host, before))
		}
		// Without the boot loader's file the next check finds the difference again.
		f := a.file()
		f.Absent = true
		return errors.Join(err, conffile.Apply(a.host, f))
	}
	return nil
}

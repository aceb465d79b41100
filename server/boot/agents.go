package boot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

// maxAgent bounds an agent's binary in bytes.
const maxAgent = 256 << 20

// architectures that agents are served for, by GOARCH.
var architectures = []string{"amd64", "arm64"}

// helpers are the programs that agents are given besides themselves where their machines lack what it does.
var helpers = []string{"wireguard"}

// Agents are the agent binaries and the helpers of agents, opened once: a file replaced later changes neither what is served
// nor its hash.
type Agents struct {
	byArch map[string]agent
	// helpers by NAME/GOARCH.
	helpers map[string]agent
}

// agent is a program.
type agent struct {
	content io.ReaderAt
	size    int64
	sha256  string
	closer  io.Closer
}

// OpenAgents opens provisionr-agent-GOARCH, of which there must be at least one, and provisionr-wireguard-GOARCH for every
// architecture that the directory has.
func OpenAgents(dir fs.FS) (*Agents, error) {
	a := &Agents{byArch: map[string]agent{}, helpers: map[string]agent{}}
	for _, arch := range architectures {
		err := put(a.byArch, arch, dir, "provisionr-agent-"+arch)
		for _, helper := range helpers {
			err = errors.Join(err, put(a.helpers, helper+"/"+arch, dir, "provisionr-"+helper+"-"+arch))
		}
		if err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	if len(a.byArch) == 0 {
		return nil, errs.New(errs.NotFound, "cannot find an agent binary: there is no provisionr-agent-amd64 or provisionr-agent-arm64").
			WithHint("build them with: make build")
	}
	return a, nil
}

// put opens a program; one that is not there is left out.
func put(into map[string]agent, key string, dir fs.FS, name string) error {
	opened, err := open(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return errs.New(errs.Internal, "cannot open program %s: %w", name, err)
	}
	into[key] = opened
	return nil
}

func open(dir fs.FS, name string) (agent, error) {
	file, err := dir.Open(name)
	if err != nil {
		return agent{}, err
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxAgent {
		return agent{}, errors.Join(err, file.Close(), errs.New(errs.Invalid, "it is not a regular file of at most %d bytes", maxAgent))
	}
	h := sha256.New()
	if at, ok := file.(io.ReaderAt); ok {
		if _, err := io.Copy(h, io.NewSectionReader(at, 0, info.Size())); err != nil {
			return agent{}, errors.Join(err, file.Close())
		}
		return agent{content: at, size: info.Size(), sha256: hex.EncodeToString(h.Sum(nil)), closer: file}, nil
	}
	data, err := io.ReadAll(io.LimitReader(file, maxAgent))
	if err := errors.Join(err, file.Close()); err != nil {
		return agent{}, err
	}
	h.Write(data)
	return agent{content: bytes.NewReader(data), size: int64(len(data)), sha256: hex.EncodeToString(h.Sum(nil)), closer: io.NopCloser(nil)}, nil
}

// SHA256 returns the hexadecimal hash of the binary for each architecture, as a machine's seed names it.
func (a *Agents) SHA256() map[string]string {
	hashes := map[string]string{}
	for arch, agent := range a.byArch {
		hashes[arch] = agent.sha256
	}
	return hashes
}

// Agent returns the hash of the agent for a GOARCH, or nil.
func (a *Agents) Agent(goarch string) []byte {
	program, ok := a.byArch[goarch]
	if !ok {
		return nil
	}
	hash, _ := hex.DecodeString(program.sha256)
	return hash
}

// Helpers returns the hashes of the helpers, by NAME/GOARCH as wireguard/amd64.
func (a *Agents) Helpers() map[string][]byte {
	hashes := map[string][]byte{}
	for key, helper := range a.helpers {
		hashes[key], _ = hex.DecodeString(helper.sha256)
	}
	return hashes
}

// Program returns the agent or helper with a hash.
func (a *Agents) Program(sha256 []byte) (content io.ReaderAt, size int64, ok bool) {
	hash := hex.EncodeToString(sha256)
	for _, all := range []map[string]agent{a.byArch, a.helpers} {
		for _, program := range all {
			if program.sha256 == hash {
				return program.content, program.size, true
			}
		}
	}
	return nil, 0, false
}

// Close closes the files. Requests must have ended.
func (a *Agents) Close() error {
	var all error
	for _, programs := range []map[string]agent{a.byArch, a.helpers} {
		for _, program := range programs {
			all = errors.Join(all, program.closer.Close())
		}
	}
	return all
}

// serveAgent answers the binary, in parts and conditionally if asked so (RFC 9110 sections 13 and 14).
func (h *Handler) serveAgent(w http.ResponseWriter, r *http.Request) {
	agent, ok := h.config.Agents.byArch[r.PathValue("goarch")]
	if !ok {
		http.Error(w, "no agent for this architecture", http.StatusNotFound)
		return
	}
	select {
	case h.downloads <- struct{}{}:
		defer func() { <-h.downloads }()
	default:
		w.Header().Set("Retry-After", "2")
		http.Error(w, "too many downloads at once", http.StatusServiceUnavailable)
		return
	}
	// A client that stops reading must not keep a place for ever.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(downloadTimeout))
	w.Header().Set("ETag", `"`+agent.sha256+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(agent.content, 0, agent.size))
}

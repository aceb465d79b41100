package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/provisionr/provisionr/server/host/files"
	"github.com/provisionr/provisionr/server/host/process"
)

// recordFile is where the outer helper records the machine's init, in the machine's directory.
const recordFile = "init.json"

// Record returns the recorded init of the machine in dir; fs.ErrNotExist where none was started.
func Record(dir string) (process.Process, error) {
	var p process.Process
	err := files.ReadJSON(filepath.Join(dir, recordFile), &p)
	return p, err
}

func writeRecord(dir *os.Root, p process.Process) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	temp := recordFile + ".tmp"
	f, err := dir.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return dir.Rename(temp, recordFile)
}

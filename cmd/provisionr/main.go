// Command provisionr is the command line, the server and the local provider's helper in one binary.
package main

import (
	"os"

	"github.com/provisionr/provisionr/cmd/provisionr/internal/cli"
	"github.com/provisionr/provisionr/cmd/provisionr/internal/host"
	"github.com/provisionr/provisionr/server/provider/local"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == local.InitCommand {
		os.Exit(local.Init(os.Args[2:]))
	}
	s := cli.System()
	os.Exit(cli.Main(cli.New(s, host.NewServer(s), host.NewDev(s)), s, os.Args[1:]))
}

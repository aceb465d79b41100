package aws

import (
	"context"
	"encoding/base64"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/provisionr/provisionr/server/provider"
)

// consoleLimit in bytes is what EC2 keeps of a console.
const consoleLimit = 64 << 10

// Console implements provider.Provider. An instance that has written nothing yet has an empty console.
func (p *Provider) Console(ctx context.Context, machineID, providerID string) (string, error) {
	found, err := p.describe(ctx, machineID)
	if err != nil {
		return "", err
	}
	var chosen *types.Instance
	for i := range found {
		if chosen == nil || awssdk.ToString(found[i].InstanceId) == providerID || !alive(*chosen) && alive(found[i]) {
			chosen = &found[i]
		}
		if awssdk.ToString(chosen.InstanceId) == providerID {
			break
		}
	}
	if chosen == nil {
		return "", provider.Errorf(provider.NotFound, "there is no instance of machine %q", machineID)
	}
	api, err := p.api(ctx)
	if err != nil {
		return "", err
	}
	// The latest output is for instances on the Nitro system only; others have what is posted after each change of state.
	out, err := api.ec2.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: chosen.InstanceId, Latest: awssdk.Bool(true)})
	if hasCode(err, "UnsupportedOperation", "InvalidParameterCombination", "InvalidParameterValue") {
		out, err = api.ec2.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: chosen.InstanceId})
	}
	if err != nil {
		return "", p.classify(ctx, "read the console of machine "+machineID, err)
	}
	text, err := base64.StdEncoding.DecodeString(awssdk.ToString(out.Output))
	if err != nil {
		return "", provider.Errorf(provider.Unknown, "cannot read the console of machine %s: %w", machineID, err)
	}
	if len(text) > consoleLimit {
		text = text[len(text)-consoleLimit:]
	}
	return strings.ToValidUTF8(string(text), ""), nil
}

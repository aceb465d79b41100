package aws

import (
	"maps"
	"slices"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// The tags of everything that is made.
const (
	tagCluster = "provisionr-cluster"
	tagPool    = "provisionr-pool"
	tagMachine = "provisionr-machine"
	tagSlot    = "provisionr-slot"
	tagName    = "Name"
	// tagKeep is on the volumes of a machine with a disk to be kept. The tags of a launch go to all of its volumes, but
	// those that are not to be kept are deleted with the instance: what is left of them is what was to be kept.
	tagKeep = "provisionr-keep"
)

// tagLimit is how many tags a resource may have ("Tag your Amazon EC2 resources", EC2 User Guide).
const tagLimit = 50

// machineTags are the tags of a machine's resources: the pool's labels, over which ours win, in the order of their keys.
func machineTags(r *provisionrv1.LaunchRequest) []types.Tag {
	all := map[string]string{}
	for key, value := range r.GetLabels() {
		if !strings.HasPrefix(strings.ToLower(key), "aws:") { // reserved
			all[key] = value
		}
	}
	all[tagCluster], all[tagPool], all[tagMachine] = r.GetClusterId(), r.GetPool(), r.GetMachineId()
	all[tagSlot], all[tagName] = r.GetSlot(), r.GetSlot()
	return tagsOf(all)
}

func tagsOf(all map[string]string) []types.Tag {
	var tags []types.Tag
	for _, key := range slices.Sorted(maps.Keys(all)) {
		tags = append(tags, types.Tag{Key: awssdk.String(key), Value: awssdk.String(all[key])})
	}
	return tags
}

// tag returns the value of a tag, "" where there is none.
func tag(tags []types.Tag, key string) string {
	for _, t := range tags {
		if awssdk.ToString(t.Key) == key {
			return awssdk.ToString(t.Value)
		}
	}
	return ""
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: awssdk.String(name), Values: values}
}

// own filters for what belongs to this cluster.
func (p *Provider) own() types.Filter { return filter("tag:"+tagCluster, p.config.ClusterID) }

// belongs reports whether tags are those of this cluster, and of a machine unless that is "". Filters ask for the same, but
// what would be changed or deleted must not hang on a server's heeding them.
func (p *Provider) belongs(tags []types.Tag, machineID string) bool {
	return tag(tags, tagCluster) == p.config.ClusterID && (machineID == "" || tag(tags, tagMachine) == machineID)
}

// escaped is a value of a filter that stands for itself: EC2 reads * and ? as wildcards.
func escaped(value string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`).Replace(value)
}

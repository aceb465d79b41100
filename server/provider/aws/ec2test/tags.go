package ec2test

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// The bounds of "Tag your Amazon EC2 resources", Tag restrictions.
const (
	maxTags     = 50
	maxTagKey   = 128
	maxTagValue = 256
)

// tagLog is all that was ever done to the tags of a resource, so that each call sees them as of its time.
type tagLog struct{ changes []tagChange }

type tagChange struct {
	at         time.Time
	key, value string
	deleted    bool
}

func (l *tagLog) set(at time.Time, key, value string) {
	l.changes = append(l.changes, tagChange{at: at, key: key, value: value})
}

func (l *tagLog) remove(at time.Time, key string) {
	l.changes = append(l.changes, tagChange{at: at, key: key, deleted: true})
}

// at returns the tags at a time.
func (l *tagLog) at(t time.Time) map[string]string {
	tags := make(map[string]string)
	for _, c := range l.changes {
		switch {
		case c.at.After(t):
		case c.deleted:
			delete(tags, c.key)
		default:
			tags[c.key] = c.value
		}
	}
	return tags
}

// tag is a tag in a request.
type tag struct{ Key, Value *string }

// tagSpec is a TagSpecification.
type tagSpec struct {
	ResourceType string
	Tags         []tag
}

// checkTags holds tags against the restrictions and returns them as a map.
func checkTags(tags []tag) (map[string]string, *apiError) {
	out := make(map[string]string, len(tags))
	for _, t := range tags {
		if t.Key == nil || *t.Key == "" {
			return nil, refuse("MissingParameter", "The request must contain the parameter Tag.Key")
		}
		key, value := *t.Key, ""
		if t.Value != nil {
			value = *t.Value
		}
		switch _, twice := out[key]; {
		case twice:
			return nil, refuse("InvalidParameterValue", "Duplicate tag key '%s' specified.", key)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, refuse("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
		case len([]rune(key)) > maxTagKey:
			return nil, refuse("InvalidParameterValue", "Tag key exceeds the maximum length of %d characters", maxTagKey)
		case len([]rune(value)) > maxTagValue:
			return nil, refuse("InvalidParameterValue", "Tag value exceeds the maximum length of %d characters", maxTagValue)
		}
		out[key] = value
	}
	if len(out) > maxTags {
		return nil, refuse("TagLimitExceeded", "More than %d tags specified", maxTags)
	}
	return out, nil
}

// tagsFor returns the tags of a request by resource type, all of which must be among those that the action makes.
func tagsFor(specs []tagSpec, allowed ...string) (map[string]map[string]string, *apiError) {
	out := make(map[string]map[string]string)
	for _, spec := range specs {
		if spec.ResourceType == "" {
			return nil, refuse("InvalidParameterValue", "Tag specification resource type must have a value")
		}
		if !slices.Contains(allowed, spec.ResourceType) {
			return nil, refuse("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", spec.ResourceType)
		}
		if _, twice := out[spec.ResourceType]; twice {
			return nil, refuse("InvalidParameterValue", "Duplicate resource type '%s' in tag specifications", spec.ResourceType)
		}
		if len(spec.Tags) == 0 {
			return nil, refuse("InvalidParameterValue", "Tag specification must have at least one tag")
		}
		tags, refused := checkTags(spec.Tags)
		if refused != nil {
			return nil, refused
		}
		out[spec.ResourceType] = tags
	}
	return out, nil
}

func newTags(at time.Time, tags map[string]string) tagLog {
	var l tagLog
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		l.set(at, key, tags[key])
	}
	return l
}

// xmlTag is a tag in an answer.
type xmlTag struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

// xmlTags is a tagSet: absent where there is no tag.
type xmlTags struct {
	Items []xmlTag `xml:"item"`
}

func tagSet(tags map[string]string) *xmlTags {
	if len(tags) == 0 {
		return nil
	}
	set := new(xmlTags)
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		set.Items = append(set.Items, xmlTag{key, tags[key]})
	}
	return set
}

type tagsIn struct {
	DryRun    bool
	Resources []string
	Tags      []tag
}

// done is the answer of actions that have no output.
type done struct {
	Return bool `xml:"return"`
}

func createTags(c *call, in *tagsIn) (any, *apiError) {
	logs, refused := c.taggable(in.Resources)
	if refused != nil {
		return nil, refused
	}
	tags, refused := checkTags(in.Tags)
	if refused != nil {
		return nil, refused
	}
	for _, l := range logs {
		after := l.at(c.now)
		maps.Copy(after, tags)
		if len(after) > maxTags {
			return nil, refuse("TagLimitExceeded", "You have reached the limit of %d tags", maxTags)
		}
	}
	for _, l := range logs {
		for _, key := range slices.Sorted(maps.Keys(tags)) {
			l.set(c.now, key, tags[key])
		}
	}
	return done{true}, nil
}

func deleteTags(c *call, in *tagsIn) (any, *apiError) {
	logs, refused := c.taggable(in.Resources)
	if refused != nil {
		return nil, refused
	}
	for _, l := range logs {
		now := l.at(c.now)
		if in.Tags == nil {
			for _, key := range slices.Sorted(maps.Keys(now)) {
				l.remove(c.now, key)
			}
		}
		for _, t := range in.Tags {
			if t.Key == nil {
				return nil, refuse("MissingParameter", "The request must contain the parameter Tag.Key")
			}
			// With a value, the tag goes only if it has that value.
			if value, ok := now[*t.Key]; ok && (t.Value == nil || *t.Value == value) {
				l.remove(c.now, *t.Key)
			}
		}
	}
	return done{true}, nil
}

// taggable finds the tags of all resources, or refuses if one is not there.
func (c *call) taggable(ids []string) ([]*tagLog, *apiError) {
	if len(ids) > 1000 {
		return nil, refuse("InvalidParameterValue", "Up to 1000 resources may be tagged at once")
	}
	var logs []*tagLog
	for _, id := range ids {
		l, refused := c.tagsOf(id)
		if refused != nil {
			return nil, refused
		}
		logs = append(logs, l)
	}
	return logs, nil
}

func (c *call) tagsOf(id string) (*tagLog, *apiError) {
	prefix, _, _ := strings.Cut(id, "-")
	switch prefix {
	case "i":
		i, refused := c.instance(id)
		if refused != nil {
			return nil, refused
		}
		return &i.tags, nil
	case "vol":
		v, refused := c.volume(id)
		if refused != nil {
			return nil, refused
		}
		return &v.tags, nil
	case "eni":
		n, refused := c.networkInterface(id)
		if refused != nil {
			return nil, refused
		}
		return &n.tags, nil
	case "sg":
		g, refused := c.group(id)
		if refused != nil {
			return nil, refused
		}
		return &g.tags, nil
	case "sgr":
		r, refused := c.rule(id)
		if refused != nil {
			return nil, refused
		}
		return &r.tags, nil
	case "sir":
		r, refused := c.spotRequest(id)
		if refused != nil {
			return nil, refused
		}
		return &r.tags, nil
	case "vpc":
		v, refused := c.vpc(id)
		if refused != nil {
			return nil, refused
		}
		return &v.tags, nil
	case "subnet":
		n, refused := c.subnet(id)
		if refused != nil {
			return nil, refused
		}
		return &n.tags, nil
	}
	return nil, refuse("InvalidID", "The ID '%s' is not valid", id)
}

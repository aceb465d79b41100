package ec2test

import (
	"strings"
	"testing"
)

// TestAnswersAreChecked proves that an answer that is not of the model is a violation.
func TestAnswersAreChecked(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := &call{server: s, service: "ec2", action: "DescribeRegions", id: s.uuid()}
	c.success(describeRegionsOut{Regions: []xmlRegion{{"x", "eu-central-1", "opted-in"}}})
	if v := s.Violations(); len(v) != 0 {
		t.Errorf("violations %q", v)
	}
	type wrong struct {
		Region string `xml:"region"`
	}
	c.success(wrong{"x"})
	if v := s.Violations(); len(v) != 1 || !strings.Contains(v[0], "not of the model's DescribeRegionsResult") {
		t.Errorf("violations %q", v)
	}
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"web", "web", true}, {"web", "Web", false}, {"w?b", "web", true}, {"w?b", "wb", false}, {"*", "", true}, {"*-1", "web-1", true},
		{"*-1", "web-12", false}, {`\*`, "*", true}, {`\*`, "x", false}, {"", "", true}, {"", "x", false}, {"a*b*c", "aXbYc", true}, {`a\?`, "a?", true},
	} {
		if got := glob(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%q of %q: %v", tt.pattern, tt.text, got)
		}
	}
}

func TestImplementedActionsAreOfTheModel(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for action := range ec2Actions() {
		if s.models.EC2.Operations[action] == nil {
			t.Errorf("%s is not an action", action)
		}
	}
	for _, typ := range s.types {
		if problems := s.models.EC2.XML("DescribeInstanceTypes", []byte(`<DescribeInstanceTypesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>`+s.uuid()+`</requestId><instanceTypeSet><item><instanceType>`+typ.name+`</instanceType></item></instanceTypeSet></DescribeInstanceTypesResponse>`)); len(problems) > 0 {
			t.Error(problems)
		}
	}
}

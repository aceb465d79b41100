package ec2test_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

// BenchmarkList lists 1,000 instances in one page, as a provider polls.
func BenchmarkList(b *testing.B) {
	c := start(b, ec2test.Config{})
	in := c.wish(b, "m-1")
	in.MinCount, in.MaxCount = aws.Int32(1000), aws.Int32(1000)
	c.run(b, in)
	for b.Loop() {
		c.all(b, 1000)
	}
}

// BenchmarkRun launches one instance.
func BenchmarkRun(b *testing.B) {
	c := start(b, ec2test.Config{})
	in := c.wish(b, "")
	in.ClientToken = nil
	c.SetQuota(1 << 30)
	for b.Loop() {
		in.ClientToken = nil
		id := *c.run(b, in).InstanceId
		if err := c.Fail(id); err != nil {
			b.Fatal(err)
		}
	}
}

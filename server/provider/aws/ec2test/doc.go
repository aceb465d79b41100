// Package ec2test is Amazon EC2 in memory, with the slices of SSM and STS that go with it, for tests.
//
// It is strict where the vendor is: every request must be signed (Signature Version 4, checked), name the API version,
// and hold only parameters of the vendor's published model with values of the right type; every answer is checked against
// the same model before it leaves. What does not fit is answered with the documented error code and recorded as a
// violation, and [Start] fails the test on any. An action or parameter that the model has but this server does not is a
// violation as well: nothing is ignored in silence.
//
// It is also as unkind as the vendor's documents allow. Reads are eventually consistent: each call sees the world as it
// was at a random moment within [Config.Lag], so that what was listed once may be missing from the next list. Client tokens
// replay the instances that they made, terminated ones included, and refuse changed parameters. Calls may be limited by
// the published token buckets. [Server.Inject] makes calls fail before or after they act.
//
// The server has no goroutine and no timer of its own. Time is time.Now, and the life of an instance is computed when it
// is looked at, so it works in testing/synctest bubbles: use [Server.Client], which speaks HTTP over net.Pipe. Over
// loopback a Server is an http.Handler for net/http/httptest.
//
//	server := ec2test.Start(t, ec2test.Config{Lag: 2 * time.Second})
//	server.Setenv(t) // credentials for the SDK's default chain
//	client := server.Client(t) // every host, every port leads to the server
//
// The account has one region with three zones (a, b, c), a default VPC vpc-… with a default subnet in each zone, a default
// security group, the images and instance types of catalog.go, a key pair "ops" and an instance profile "machines".
//
// What follows from documents alone: the Amazon EC2 API Reference (API version 2016-11-15) with its pages "Error codes for
// the Amazon EC2 API", "Ensuring idempotency in Amazon EC2 API requests", "Eventual consistency in the Amazon EC2 API",
// "Request throttling for the Amazon EC2 API", and the model in [github.com/aws/aws-sdk-go] that package model loads.
package ec2test

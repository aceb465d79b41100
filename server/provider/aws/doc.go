// Package aws launches the machines of one cluster as Amazon EC2 instances in one region of one account, through the EC2,
// Systems Manager (public parameters) and Security Token Service (assumed role) APIs.
//
// Everything that is made carries the tag provisionr-cluster=<cluster id> from the call that makes it: instances, their
// volumes and interfaces, spot requests, security groups. Only what carries it is listed, changed or deleted.
//
// Invariants:
//   - RunInstances makes one machine. Its ClientToken is the machine's id, with "-<attempt>" from the second attempt on, and
//     the request is a function of the committed LaunchRequest and the user-data alone: whoever repeats it, after a lost
//     response or a crash, sends the same bytes and gets the same instance. A machine that was terminated is not made
//     again by its token.
//   - Launch answers from the response of RunInstances. For [consistencyWindow] thereafter List adds what this process has
//     launched if EC2 does not show it yet: EC2's reads are eventually consistent ("Eventual consistency in the Amazon EC2
//     API", Amazon EC2 Developer Guide), and a list without the machine would say that there is none.
//   - An instance counts as absent when it is terminated. One that is shutting down is listed as stopped.
//   - No call is made without the Limiter: a middleware of all clients waits for it. The SDK's retries are off.
//   - Credentials come from the SDK's default chain at the first call, and never get into an error or a log.
//   - What EC2's answers say of ownership is looked at here as well: no filter is trusted with what is changed or deleted.
//   - A volume whose disk is to be kept outlives its machine and is never deleted by this package.
//
// The endpoints may be those of other servers, of which some know less of EC2. Each thing that is done without is logged
// once:
//   - Without an endpoint of its own, the Parameter Store is not asked where EC2 is not AWS's, and roles are assumed at EC2's
//     address. Debian's image is then found by owner and name, or by name alone.
//   - Where EC2 is not AWS's, each Launch first looks for the machine's instance, for want of trust in client tokens, and a
//     launch that is refused for its kinds of tags is repeated with those of the instance alone.
//   - Actions that only add to what is known (notices, offerings, types, regions, key pairs, placement groups, leftovers)
//     may be missing. That they fail is an error as ever, but for notices.
//   - What an answer leaves out of an image or a type is no reason against it.
package aws

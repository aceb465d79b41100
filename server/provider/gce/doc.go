// Package gce is the provider of Google Compute Engine: one region of one project, through the vendor's own client library.
//
// Idempotency. A launch is instances.insert with a request id made from cluster, machine id and attempt, and with a name
// made from the machine id. The request id has the API replay the first request's operation, its failure too; the name is
// refused a second time within a zone even where the API has forgotten the request id. The outcome is that of the
// operation, which is waited for: stock-outs and quotas show in it only. NoCapacity, QuotaExceeded and Invalid are
// returned after a look that found no such instance.
//
// instances.bulkInsert is not used. Its instances share their metadata: perInstanceProperties has a host name only
// (discovery document, schema BulkInsertInstanceResourcePerInstanceProperties), and each machine's user-data holds its own
// one-time token.
//
// Ownership. Instances and disks carry our labels, and what lacks the cluster's is never changed or deleted: that is checked
// here and not left to the API's filters. A disk that its instance shall leave behind carries no machine label.
//
// Firewall groups are network tags. A pool's machines carry its tag; firewall rules that target this tag alone are the
// group, whoever made them: one for each source at priority 1000, and two at 1001 that deny all else, since networks may
// come with rules that allow (as default-allow-ssh). Rules have no labels: their descriptions say cluster, region and pool.
// Rules that a person made at priority 1000 or above for other targets, or for all, still count: they are that person's own.
//
// Absence. Lists that name unreachable zones of the region or carry any warning but an empty page are errors. After an
// uncertain launch there is no trust in a list: names are looked up in every zone.
//
// Every call waits for the limiter in a RoundTripper of its own, below which are only the credentials. Nothing is retried
// here but waiting for an operation.
//
// The endpoint may be that of another server, which knows less of the API. Each thing that is done without is logged once:
// operations are asked for where they cannot be waited for, zones are listed one by one where there are no aggregated lists,
// firewall rules are deleted and made anew where they cannot be patched, image families are looked up in the list of images;
// the region, its quotas and disk types are not checked where the server does not tell. Filters are not trusted: labels are
// looked at here. Where request ids are not heeded, names still keep launches apart, but a late launch may make again what
// was terminated.
package gce

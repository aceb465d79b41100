package conffile

// UpstreamsPath lists the DNS servers that the machine used before ours, one address a line.
const UpstreamsPath = StateDir + "/upstreams"

package gce

// startupScript has machines read their user-data whose image lacks what reads it: Google's Debian images run startup
// scripts (https://cloud.google.com/compute/docs/instances/startup-scripts/linux), but have no cloud-init. It runs at each
// boot and does nothing where cloud-init is there. The network is left as the image has set it up.
const startupScript = `#!/bin/sh
command -v cloud-init >/dev/null && exit 0
mkdir -p /etc/cloud/cloud.cfg.d
printf 'datasource_list: [GCE]\nnetwork: {config: disabled}\n' >/etc/cloud/cloud.cfg.d/99-provisionr.cfg
export DEBIAN_FRONTEND=noninteractive
until apt-get update -q && apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold cloud-init; do
	sleep 5
done
cloud-init init
cloud-init modules --mode=config
cloud-init modules --mode=final
`

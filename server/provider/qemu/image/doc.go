// Package image keeps the base images of virtual machines: read-only disks that machines have overlays on.
//
// An image is built from the distribution's packages, or is a user's own. The first kind is named by the hash of its
// recipe, the second by the SHA-256 of its content. Both are made beside their place, synced and renamed: what has the name
// is whole, and is never changed. Processes of the host wait for each other's builds and downloads.
package image

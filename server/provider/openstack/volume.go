package openstack

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// rootVolume reports whether the root disk is a volume: where it is asked for in words that only a volume has, or the
// flavor has no disk of its own, as Resolve has found.
func rootVolume(h *provisionrv1.Hardware, choice *provisionrv1.Choice) bool {
	root := h.GetRootDisk()
	return root.GetType() != "" || root.GetKeep() || choice.GetExtra()[extraRootGib] != ""
}

// devices are the block devices to boot with, after the API reference's block_device_mapping_v2; none for a root disk that is
// just the flavor's.
func devices(h *provisionrv1.Hardware, choice *provisionrv1.Choice, types bool) []servers.BlockDevice {
	volume := rootVolume(h, choice)
	if !volume && len(h.GetDisks()) == 0 {
		return nil
	}
	root := servers.BlockDevice{
		SourceType: servers.SourceImage, UUID: choice.GetImage(), DestinationType: servers.DestinationLocal, DeleteOnTermination: true,
	}
	if volume {
		root.DestinationType = servers.DestinationVolume
		root.VolumeSize = int(rootGib(h, choice))
		root.DeleteOnTermination = !h.GetRootDisk().GetKeep()
		if types {
			root.VolumeType = h.GetRootDisk().GetType()
		}
	}
	all := []servers.BlockDevice{root}
	for _, disk := range h.GetDisks() {
		device := servers.BlockDevice{
			SourceType: servers.SourceBlank, DestinationType: servers.DestinationVolume, BootIndex: -1,
			VolumeSize: int(disk.GetSizeGib()), DeleteOnTermination: !disk.GetKeep(),
		}
		if types {
			device.VolumeType = disk.GetType()
		}
		all = append(all, device)
	}
	return all
}

// volumes lists the volumes that signVolumes has signed.
func (p *Provider) volumes(ctx context.Context, s *session, machineID string) ([]volumes.Volume, error) {
	if s.volume == nil {
		return nil, nil
	}
	want := map[string]string{keyCluster: p.cluster}
	if machineID != "" {
		want[keyMachine] = machineID
	}
	all, err := pages(ctx, volumes.List(s.volume, volumes.ListOpts{Metadata: want, Limit: listPage}), volumes.ExtractVolumes)
	if err != nil {
		return nil, fail(err, "listing volumes")
	}
	return slices.DeleteFunc(all, func(v volumes.Volume) bool {
		return v.Metadata[keyCluster] != p.cluster || v.Metadata[keyMachine] == "" || machineID != "" && v.Metadata[keyMachine] != machineID
	}), nil
}

// signVolumes marks the volumes that are to end with a server before it is deleted. Nova makes them without a mark and
// deletes them with the server, unless Cinder fails then; nobody could tell whose they were afterwards.
func (p *Provider) signVolumes(ctx context.Context, s *session, machineID string, server *servers.Server) error {
	if s.volume == nil {
		return nil
	}
	for _, attached := range server.AttachedVolumes {
		volume, err := volumes.Get(ctx, s.volume, attached.ID).Extract()
		if missing(err) {
			continue
		}
		if err != nil {
			return fail(err, "looking at volume "+attached.ID)
		}
		// Whether a volume ends with its server is not part of what older versions list, so ask the one that we chose.
		ends, err := p.endsWith(ctx, s, server.ID, attached.ID)
		if err != nil {
			return err
		}
		if !ends || volume.Metadata[keyMachine] == machineID {
			continue
		}
		metadata := maps.Clone(volume.Metadata)
		if metadata == nil {
			metadata = map[string]string{}
		}
		metadata[keyCluster], metadata[keyMachine] = p.cluster, machineID
		name := portPrefix + machineID
		_, err = volumes.Update(ctx, s.volume, volume.ID, volumes.UpdateOpts{Name: &name, Metadata: metadata}).Extract()
		if err := absentOr(err, "marking volume "+volume.ID); err != nil {
			return err
		}
	}
	return nil
}

// endsWith reports whether the volume is deleted with the server ("os-extended-volumes:volumes_attached", since 2.3).
func (p *Provider) endsWith(ctx context.Context, s *session, serverID, volumeID string) (bool, error) {
	var answer struct {
		Volumes []struct {
			ID   string `json:"id"`
			Ends *bool  `json:"delete_on_termination"`
		} `json:"os-extended-volumes:volumes_attached"`
	}
	err := servers.Get(ctx, s.compute, serverID).ExtractInto(&answer)
	if err := absentOr(err, "looking at server "+serverID); err != nil {
		return false, err
	}
	for _, v := range answer.Volumes {
		if v.ID == volumeID && v.Ends != nil {
			return *v.Ends, nil
		}
	}
	return false, nil
}

// removeVolumes deletes what signVolumes has signed and Nova has left. Those of a server that is still being deleted are
// Nova's to delete; the ones that stay are listed, and deleted by the next call.
func (p *Provider) removeVolumes(ctx context.Context, s *session, machineID string) error {
	all, err := p.volumes(ctx, s, machineID)
	if err != nil {
		return err
	}
	for _, v := range all {
		if len(v.Attachments) == 0 && (v.Status == "available" || v.Status == "error") {
			err = errors.Join(err, absentOr(volumes.Delete(ctx, s.volume, v.ID, volumes.DeleteOpts{}).ExtractErr(), "deleting volume "+v.ID))
		}
	}
	return err
}

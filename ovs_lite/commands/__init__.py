"""The commands behind `ovs-lite`, one file each."""

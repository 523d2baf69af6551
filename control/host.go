package control

import (
	"context"
	"net/netip"

	"github.com/aethertunnel/aethertunnel/dataplane"
)

// HostPlan is the whole desired state of the host. It is a value; Host makes the differences.
type HostPlan struct {
	// Addresses of our NIC: one per family at most, as a host prefix (/32, /128).
	Addresses []netip.Prefix
	// Routes go out of our NIC.
	Routes []netip.Prefix
	// Granted are LAN prefixes behind this node which peers may reach: forwarding and masquerade are on for these and off
	// when there are none.
	Granted []netip.Prefix
	// Tunnel are the prefixes that tunnel addresses come from. Packets to them never leave by any other interface,
	// even while the NIC is gone, and they are the sources that masquerade applies to.
	Tunnel []netip.Prefix
}

// Host changes the operating system.
type Host interface {
	// Apply makes the host agree with the plan. Applying an equal plan again changes nothing, but may find that the host's
	// network has become another.
	Apply(ctx context.Context, plan HostPlan) (HostReport, error)
}

// HostReport is what a host has made of a plan.
type HostReport struct {
	// Routes are those of the plan that go out of our NIC. Left out are LANs that the host is connected to itself.
	Routes []netip.Prefix
	// Notices are what the operator should know, such as a foreign firewall rule that drops forwarded packets.
	Notices []string
}

// Dataplane is the part of [dataplane.Engine] that control uses.
type Dataplane interface {
	Apply(s dataplane.Snapshot) error
	Attach(ctx context.Context, id dataplane.PeerID, c dataplane.Carrier) error
}

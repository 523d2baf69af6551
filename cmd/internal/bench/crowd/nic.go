package crowd

import (
	"sync"

	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/tun"
)

// nic is the gateway's. Its host has a super-packet for every member whose turn it is, and takes what comes; neither
// costs anything, so the gateway's own part weighs all the more.
type nic struct {
	*tun.Memory
	crowd  *Crowd
	done   chan struct{}
	closed sync.Once
}

var _ tun.Device = (*nic)(nil)

func newNIC(c *Crowd) *nic {
	all := tun.Offloads{VirtioHeader: true, TCP: true, UDP: true}
	return &nic{Memory: tun.NewMemoryWithOffloads("crowd0", all), crowd: c, done: make(chan struct{})}
}

// ReadPackets waits for a member whose turn it is.
func (n *nic) ReadPackets(packets []tun.Packet, budgetBytes int) (int, error) {
	if len(packets) == 0 {
		return 0, nil
	}
	select {
	case m := <-n.crowd.flows[Down].ready:
		m.fillDown(&packets[0])
	case <-n.done:
		return 0, tun.ErrClosed
	}
	if budgetBytes > 0 {
		if budgetBytes -= len(packets[0].Data); budgetBytes <= 0 {
			return 1, nil
		}
	}
	count, err := n.TryReadPackets(packets[1:], budgetBytes)
	return 1 + count, err
}

// TryReadPackets takes what there is.
func (n *nic) TryReadPackets(packets []tun.Packet, budgetBytes int) (int, error) {
	bytes := 0
	for i := range packets {
		select {
		case m := <-n.crowd.flows[Down].ready:
			m.fillDown(&packets[i])
		case <-n.done:
			return i, tun.ErrClosed
		default:
			return i, nil
		}
		if bytes += len(packets[i].Data); budgetBytes > 0 && bytes >= budgetBytes {
			return i + 1, nil
		}
	}
	return len(packets), nil
}

// WritePacket counts the payload for the member that it comes from.
func (n *nic) WritePacket(pieces [][]byte, _ tun.Offload) error {
	m := n.crowd.sender(pieces[0])
	if m == nil {
		return nil
	}
	bytes := -headerBytes
	for _, p := range pieces {
		bytes += len(p)
	}
	n.crowd.flows[Up].arrived(m, &m.windows[Up], uint64(max(bytes, 0)))
	return nil
}

// sender returns the active member that a packet comes from, or nil.
func (c *Crowd) sender(p []byte) *member {
	if len(p) < headerBytes || p[0]>>4 != 4 || p[9] != protocolTCP {
		return nil
	}
	i := int(p[13]-1)<<16 | int(p[14])<<8 | int(p[15])
	if i >= len(c.members) || !c.members[i].active {
		return nil
	}
	return c.members[i]
}

// Close ends reading.
func (n *nic) Close() error {
	n.closed.Do(func() { close(n.done) })
	return n.Memory.Close()
}

// fillDown makes a super-packet for the member in a buffer of the gateway.
func (m *member) fillDown(p *tun.Packet) {
	m.windows[Down].depart(trainBytes)
	p.Data = p.Data[tun.Headroom : tun.Headroom+headerBytes+trainBytes]
	m.down.put(p.Data)
	p.Offload = trainOffload
}

const (
	headerBytes = ipv4HeaderBytes + tcpHeaderBytes

	ipv4HeaderBytes, tcpHeaderBytes = packet.MinIPv4HeaderBytes, 20
	protocolTCP                     = 6
)

// trainOffload is what is left to do to a super-packet of a train.
var trainOffload = tun.Offload{
	Segmentation: tun.SegmentTCP4, SegmentBytes: segmentBytes, PartialChecksum: true,
	ChecksumStart: ipv4HeaderBytes, ChecksumOffset: 16,
}

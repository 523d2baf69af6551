package udp

import "net/netip"

const (
	// MaxReceiveBytes is the capacity that each Message given to Receive must have: no datagram, and no row of
	// coalesced ones, is longer.
	MaxReceiveBytes = 65535
	// MaxSendBytes is the longest payload of one system call: a UDP datagram over IPv4 without options.
	MaxSendBytes = 65507
	// MaxSegments is how many datagrams the kernel cuts one send into (UDP_MAX_SEGMENTS before Linux 6.9).
	MaxSegments = 64
	// MaxBatch is how many messages one Receive takes at most.
	MaxBatch = 64
)

// Message is what one receive brought: a datagram, or several of the same sender, kind and size behind one another.
type Message struct {
	// Data has a capacity of at least MaxReceiveBytes, all of which Receive may write to. After Receive it is
	// what arrived.
	Data []byte
	// SegmentBytes is the length of every datagram in Data but the last, which may be shorter. It is len(Data) where
	// there is one datagram.
	SegmentBytes int
	// From is the sender. An IPv4 address is never written as an IPv6 one; the zone of a link-local address is
	// the number of the interface.
	From netip.AddrPort
	// Local is the address that the sender wrote to, and InterfaceIndex the interface where it came in. They are
	// not valid and 0 where the system does not tell.
	Local          netip.Addr
	InterfaceIndex uint32
	// ArrivedNanos is when the kernel received the first datagram in Data, in nanoseconds of Unix time by the host's
	// clock. It is 0 where the system does not tell.
	ArrivedNanos int64
	// ECN is the two bits of RFC 3168 section 5. All datagrams in Data have the same.
	ECN uint8
	// Fragmented says that the datagram came in fragments of IPv4, where the system tells.
	Fragmented bool
}

// Datagrams returns how many datagrams the message holds. An empty datagram is one.
func (m *Message) Datagrams() int {
	if m.SegmentBytes <= 0 || len(m.Data) <= m.SegmentBytes {
		return 1
	}
	return (len(m.Data) + m.SegmentBytes - 1) / m.SegmentBytes
}

// Outgoing is a send of a batch; its fields are the arguments of Send.
type Outgoing struct {
	Data         []byte
	SegmentBytes int
	ECN          uint8
	To           *Destination
}

// Offload is whether a fast path is in use.
type Offload struct {
	On bool `json:"on"`
	// Reason says why it is not.
	Reason string `json:"reason,omitempty"`
}

// Offloads says how a socket moves datagrams.
type Offloads struct {
	// Segmentation is UDP_SEGMENT: the kernel or the network card cuts one long send into datagrams.
	Segmentation Offload `json:"segmentation"`
	// Coalescing is UDP_GRO: datagrams that arrive in a row are received as one.
	Coalescing Offload `json:"coalescing"`
	// Batch is recvmmsg and sendmmsg: several messages per system call.
	Batch Offload `json:"batch"`
	// Fragments is whether QUIC's packets can go in fragments of IPv4, where the path is too narrow for them: see
	// [Conn.InFragments].
	Fragments Offload `json:"fragments"`
	// ReceiveBufferBytes and SendBufferBytes are what the kernel says that it gave; 0 where it does not tell.
	ReceiveBufferBytes int `json:"receive_buffer_bytes"`
	SendBufferBytes    int `json:"send_buffer_bytes"`
}

func (m *Outgoing) segmentBytes() int {
	if m.SegmentBytes <= 0 || m.SegmentBytes > len(m.Data) {
		return len(m.Data)
	}
	return m.SegmentBytes
}

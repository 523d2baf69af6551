package packet

import (
	"encoding/binary"

	"github.com/aethertunnel/aethertunnel/tun"
)

// Bounds of a Joiner.
const (
	// JoinPackets is how many packets a Joiner holds until it is emptied.
	JoinPackets = 512
	// JoinPieces is the most packets that become one super-packet, as in Linux (UDP_GRO_CNT_MAX).
	JoinPieces = 64
	// joinFlows is how many flows are open for further segments at once. Senders cut super-packets, so
	// segments of a flow mostly come in a row; the bound is for the search.
	joinFlows = 16
)

// JoinConfig says what a [Joiner] may join. With the zero value it only keeps packets in order.
type JoinConfig struct {
	TCP bool // segments of TCP connections
	UDP bool // UDP datagrams of one size, for a device with UDP segmentation
	// VerifyFull joins packets with full checksums too, once it has found them right; the result has a
	// partial one. Without it such packets pass alone.
	VerifyFull bool
	// Seed is a random secret of the caller's (see FlowHash).
	Seed uint64
}

// JoinResult is what Add did with a packet.
type JoinResult uint8

// The results of Add.
const (
	JoinTaken   JoinResult = iota // the packet is held until Next returns it
	JoinFull                      // nothing happened: take everything with Next, then add it again
	JoinRefused                   // nothing happened: the packet can not have a partial checksum; drop it
)

// Joined is one packet, or several in one super-packet.
type Joined struct {
	// Pieces are the first packet as a whole and the payloads of the others, in the buffers that were given
	// to Add. The slice itself is valid until the next call of Next.
	Pieces [][]byte
	// Bytes is the length of all pieces.
	Bytes int
	// Offload describes the packet that the pieces are.
	Offload tun.Offload
	// Tag is what Add was given. Packets with different tags are never joined.
	Tag uint32
}

// Joiner makes super-packets of the segments of TCP and UDP flows, as Linux does in generic receive offload
// (inet_gro_receive, tcp_gro_receive, udp_gro_receive): same headers but for length, IPv4 identification
// (counting up, or constant where fragmentation is forbidden), checksums and what is particular to the last
// segment; payloads of one size, of which only the last is shorter. It joins only what follows directly, and
// what it returns is ordered by first packets, so that no flow is reordered. Cutting a super-packet again
// gives the packets that were added, but for constant identifications, which count up then (they have no
// meaning, RFC 6864), and full checksums, which are partial.
//
// The caller adds a batch of received packets, takes all with Next, and only then reuses the packets'
// buffers. A Joiner is for one goroutine and allocates nothing after NewJoiner.
type Joiner struct {
	config JoinConfig

	packets int // used of pieces
	made    int // used of runs
	taken   int // runs that Next has returned
	pieces  [JoinPackets]piece
	runs    [JoinPackets]run

	open   [joinFlows]openFlow
	opened int // used of open
	latest int // the open flow that was used last
	oldest int // the one to give up when all are in use

	scratch [JoinPieces][]byte
}

// piece is a packet, or what of it belongs into a super-packet.
type piece struct {
	bytes []byte
	next  uint16 // the run's next piece
}

// openFlow is a run that may grow.
type openFlow struct {
	hash uint32
	run  uint16
}

// run is a packet and those that follow it directly in its flow.
type run struct {
	first, last uint16 // pieces
	count       uint16
	segment     uint16 // payload bytes of the first packet
	bytes       int32
	tag         uint32
	sequence    uint32 // TCP: of the next segment
	id          uint16 // IPv4 identification of the first packet
	transport   uint8
	headerBytes uint8
	protocol    uint8
	lastFlags   uint8 // TCP: FIN and PSH of the last packet
	fixedID     bool  // all packets have the same identification
	partial     bool  // the first packet's checksum is partial
	verified    bool  // the first packet's full checksum was found right
}

// NewJoiner returns an empty Joiner.
func NewJoiner(config JoinConfig) *Joiner { return &Joiner{config: config} }

// Add takes the packet p, which [Parse] accepts, with a partial or a full checksum. A destination that is not
// to share super-packets with others has a tag of its own. p is not changed before Next.
func (j *Joiner) Add(p []byte, partial bool, tag uint32) JoinResult {
	if j.packets == JoinPackets {
		return JoinFull
	}
	v := look(p)
	if partial && v.kind != kindWhole {
		return JoinRefused
	}
	if v.kind < kindFlow {
		if v.kind == kindStray {
			// It may belong to any open flow, whose later packets must not overtake it.
			j.opened = 0
		}
		j.begin(p, partial, tag, v)
		return JoinTaken
	}
	flow, hash := j.find(p, v, tag)
	opens, ends := j.joinable(p, partial, v)
	if flow >= 0 {
		j.latest = flow
		r := &j.runs[j.open[flow].run]
		if opens && j.follows(r, p, partial, v) {
			j.extend(r, p, v)
			if ends || len(p)-v.headerBytes < int(r.segment) || r.count == JoinPieces {
				j.close(flow)
			}
			return JoinTaken
		}
		hash = j.open[flow].hash
	}
	made := j.begin(p, partial, tag, v)
	switch {
	case opens && !ends:
		j.reopen(flow, openFlow{hash: hash, run: made})
	case flow >= 0:
		j.close(flow)
	}
	return JoinTaken
}

// begin makes a run of one packet.
func (j *Joiner) begin(p []byte, partial bool, tag uint32, v view) (made uint16) {
	at := uint16(j.packets)
	made = uint16(j.made)
	j.pieces[at] = piece{bytes: p}
	j.packets++
	j.made++
	r := &j.runs[made]
	*r = run{
		first: at, last: at, count: 1, bytes: int32(len(p)), tag: tag,
		transport: uint8(v.transport), protocol: v.protocol, partial: partial,
	}
	if v.kind == kindWhole {
		r.headerBytes, r.segment = uint8(v.headerBytes), uint16(len(p)-v.headerBytes)
		r.id = binary.BigEndian.Uint16(p[4:6])
		r.sequence = binary.BigEndian.Uint32(p[v.transport+4:]) + uint32(r.segment)
	}
	return made
}

// extend appends the payload of a packet that follows the run.
func (j *Joiner) extend(r *run, p []byte, v view) {
	at := uint16(j.packets)
	payload := p[v.headerBytes:]
	j.pieces[at] = piece{bytes: payload}
	j.packets++
	j.pieces[r.last].next = at
	r.last = at
	r.count++
	r.bytes += int32(len(payload))
	if v.protocol == ProtocolTCP {
		r.sequence += uint32(len(payload))
		r.lastFlags = p[v.transport+tcpFlagsOffset] & (tcpFIN | tcpPSH)
	}
}

// find looks for the open run of p's flow. The hash is only made, and returned, if that is not the latest.
func (j *Joiner) find(p []byte, v view, tag uint32) (flow int, hash uint32) {
	if j.latest < j.opened && j.sameFlow(j.latest, p, v, tag) {
		return j.latest, 0
	}
	hash = FlowHash(p, j.config.Seed)
	for i := range j.opened {
		if j.open[i].hash == hash && j.sameFlow(i, p, v, tag) {
			return i, hash
		}
	}
	return -1, hash
}

func (j *Joiner) sameFlow(flow int, p []byte, v view, tag uint32) bool {
	r := &j.runs[j.open[flow].run]
	first := j.pieces[r.first].bytes
	if r.tag != tag || r.protocol != v.protocol || first[0]>>4 != p[0]>>4 ||
		binary.NativeEndian.Uint32(first[r.transport:]) != binary.NativeEndian.Uint32(p[v.transport:]) {
		return false
	}
	if p[0]>>4 == 6 {
		return [32]byte(first[8:40]) == [32]byte(p[8:40])
	}
	return [8]byte(first[12:20]) == [8]byte(p[12:20])
}

// reopen makes a run one that may grow, in place of the flow's earlier one, if any.
func (j *Joiner) reopen(flow int, o openFlow) {
	switch {
	case flow >= 0:
	case j.opened < joinFlows:
		flow = j.opened
		j.opened++
	default:
		flow = j.oldest
		j.oldest = (j.oldest + 1) % joinFlows
	}
	j.open[flow], j.latest = o, flow
}

// close ends the growth of a flow's run.
func (j *Joiner) close(flow int) {
	j.opened--
	j.open[flow] = j.open[j.opened]
}

// Next returns the next packet in order, or false, once, when the Joiner is empty. It closes all runs:
// packets added later are not joined to earlier ones.
func (j *Joiner) Next() (Joined, bool) {
	j.opened = 0
	if j.taken == j.made {
		j.taken, j.made, j.packets = 0, 0, 0
		return Joined{}, false
	}
	r := &j.runs[j.taken]
	j.taken++
	at := r.first
	for i := range int(r.count) {
		j.scratch[i] = j.pieces[at].bytes
		at = j.pieces[at].next
	}
	joined := Joined{Pieces: j.scratch[:r.count], Bytes: int(r.bytes), Tag: r.tag}
	if r.count > 1 {
		joined.Offload = r.finish(j.scratch[0])
	} else if r.partial {
		joined.Offload = r.offload()
	}
	return joined, true
}

// offload is that of a packet with a partial checksum.
func (r *run) offload() tun.Offload {
	o := tun.Offload{PartialChecksum: true, ChecksumStart: uint16(r.transport), ChecksumOffset: tcpChecksumOffset}
	if r.protocol == ProtocolUDP {
		o.ChecksumOffset = udpChecksumOffset
	}
	return o
}

// finish makes the first packet's headers those of the super-packet.
func (r *run) finish(first []byte) tun.Offload {
	o := r.offload()
	o.SegmentBytes = r.segment
	transport := first[r.transport:r.headerBytes]
	transportBytes := int(r.bytes) - int(r.transport)
	if first[0]>>4 == 6 {
		o.Segmentation = tun.SegmentTCP6
		binary.BigEndian.PutUint16(first[4:6], uint16(transportBytes))
	} else {
		o.Segmentation = tun.SegmentTCP4
		before := binary.BigEndian.Uint16(first[2:4])
		binary.BigEndian.PutUint16(first[2:4], uint16(r.bytes))
		binary.BigEndian.PutUint16(first[10:12], mend(binary.BigEndian.Uint16(first[10:12]), before, uint16(r.bytes)))
	}
	if r.protocol == ProtocolUDP {
		o.Segmentation = tun.SegmentUDP
		binary.BigEndian.PutUint16(transport[4:6], uint16(transportBytes))
	} else {
		o.CWR = transport[tcpFlagsOffset]&tcpCWR != 0
		transport[tcpFlagsOffset] |= r.lastFlags
	}
	field := transport[o.ChecksumOffset : o.ChecksumOffset+2]
	binary.BigEndian.PutUint16(field, seed(addPseudoHeader(first, r.protocol), transportBytes))
	return o
}

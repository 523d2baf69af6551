package dataplane

import (
	"github.com/aethertunnel/aethertunnel/dataplane/icmp"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/tun"
)

// inbound brings the packets of lanes to our own host and to other peers, neighbours of a flow joined. Every receiving
// thread has its own.
type inbound struct {
	e        *Engine
	sender   *sender
	joiner   *packet.Joiner // nil before the NIC is there
	nic      *nic
	snapshot *routing
	now      int64

	peer           *peer // that packets come from
	packets, bytes uint64
	others         []*peer // that packets go to; tag 0 is our own host, tag n others[n-1]

	// known is the last packet's way: the next one of the same flow goes the same way, if nothing else has changed.
	known struct {
		peer      *peer
		version   byte
		addresses [32]byte
		tag       uint32
	}
}

// begin starts a batch.
func (in *inbound) begin(nowNanos int64) {
	in.now = nowNanos
	if current := in.e.current.Load(); current != in.snapshot {
		in.snapshot, in.known.peer = current, nil
	}
	if in.joiner == nil {
		if in.nic = in.e.nic.Load(); in.nic != nil {
			in.joiner = packet.NewJoiner(in.nic.join)
		}
	}
}

// from says whose lane the next packets come from.
func (in *inbound) from(l *Lane) {
	in.count()
	in.peer = l.peer
}

func (in *inbound) count() {
	if in.packets > 0 {
		in.peer.receivedPackets.Add(in.packets)
		in.peer.receivedBytes.Add(in.bytes)
		in.packets, in.bytes = 0, 0
	}
}

// add takes one packet, whose bytes stay as they are until end. The error means that the device is gone.
func (in *inbound) add(p []byte, partial bool, outer packet.ECN) error {
	in.packets++
	in.bytes += uint64(len(p))
	tag, ok := in.route(p)
	if !ok {
		return nil
	}
	if outer != packet.NotECT && packet.Decapsulate(outer, p) == packet.DecapsulationDrop {
		in.e.drop(DropCongestion)
		return nil
	}
	if tag != 0 {
		packet.DecrementHopLimit(p) // it has more than one: route has looked
	}
	switch in.joiner.Add(p, partial, tag) {
	case packet.JoinTaken:
	case packet.JoinRefused:
		in.e.drop(DropOffload)
	case packet.JoinFull:
		if err := in.flush(); err != nil {
			return err
		}
		in.joiner.Add(p, partial, tag)
	}
	return nil
}

// route says where a packet goes, as a tag. It drops and answers what goes nowhere.
func (in *inbound) route(p []byte) (tag uint32, ok bool) {
	if in.joiner == nil {
		in.e.drop(DropNoSession) // no NIC yet
		return 0, false
	}
	if in.isKnown(p) {
		return in.known.tag, true
	}
	h, to, ok := in.e.fromPeer(in.snapshot, in.peer, p)
	if !ok {
		return 0, false
	}
	if to.peer != nil {
		tag = in.tagOf(to.peer)
		if h.HopLimit <= 1 {
			in.e.drop(DropHopLimit)
			in.e.answerTimeExceeded(in.snapshot, in.peer, p, h)
			return 0, false
		}
	}
	in.know(p, tag)
	return tag, true
}

// isKnown reports whether p has the addresses of the last packet that was routed, and comes from the same peer.
func (in *inbound) isKnown(p []byte) bool {
	if in.known.peer != in.peer || len(p) < packet.MinIPv4HeaderBytes || p[0]>>4 != in.known.version {
		return false
	}
	if in.known.version == 4 {
		return p[8] > 1 && [8]byte(p[12:20]) == [8]byte(in.known.addresses[:8]) && packet.Whole(p)
	}
	return len(p) >= packet.IPv6HeaderBytes && p[7] > 1 && [32]byte(p[8:40]) == in.known.addresses && packet.Whole(p)
}

func (in *inbound) know(p []byte, tag uint32) {
	in.known.peer, in.known.version, in.known.tag = in.peer, p[0]>>4, tag
	if in.known.version == 4 {
		copy(in.known.addresses[:], p[12:20])
		return
	}
	copy(in.known.addresses[:], p[8:40])
}

func (in *inbound) tagOf(p *peer) uint32 {
	for i, known := range in.others {
		if known == p {
			return uint32(i + 1)
		}
	}
	in.others = append(in.others, p)
	return uint32(len(in.others))
}

// end brings everything that was added on its way.
func (in *inbound) end() error {
	in.count()
	in.peer = nil
	err := in.flush()
	if len(in.others) > 0 {
		clear(in.others)
		in.others, in.known.peer = in.others[:0], nil
	}
	return err
}

// flush empties the joiner.
func (in *inbound) flush() error {
	if in.joiner == nil {
		return nil
	}
	err := in.empty()
	in.sender.commit(in.now)
	for in.sender.serve(in.now) {
	}
	return err
}

// empty takes everything out of the joiner, even if the device is gone: the packets' buffers are about to be used again.
func (in *inbound) empty() (err error) {
	in.e.writing.Lock()
	defer in.e.writing.Unlock()
	for {
		joined, ok := in.joiner.Next()
		switch {
		case !ok:
			return err
		case joined.Tag != 0:
			in.forward(in.others[joined.Tag-1], &joined)
		case err == nil:
			err = in.e.write(in.nic, &joined)
		}
	}
}

// forward hands a packet to another peer.
func (in *inbound) forward(to *peer, joined *packet.Joined) {
	b := in.e.buffers.get(joined.Bytes)
	if b == nil {
		in.e.drop(DropQueueFull)
		return
	}
	at := b.storage[tun.Headroom:]
	for _, piece := range joined.Pieces {
		at = at[copy(at, piece):]
	}
	b.setPacket(joined.Bytes, joined.Offload)
	b.header, _ = packet.Parse(b.packet.Data) // it was parsed when it was routed
	b.hash = b.header.FlowHash(b.packet.Data, in.e.seed)
	in.sender.stage(to, b, in.now)
}

// fromPeer checks a packet of a peer and finds where it goes. ok is false for one that goes nowhere, which was dropped
// and answered.
func (e *Engine) fromPeer(r *routing, from *peer, p []byte) (h packet.Header, to destination, ok bool) {
	h, ok = packet.Parse(p)
	switch {
	case !ok:
		e.drop(DropMalformed)
		return h, to, false
	case !packet.Forwardable(h.Dst) || !packet.Forwardable(h.Src):
		e.drop(DropNotForwardable)
		return h, to, false
	}
	if owner, found := r.lookup(h.Src); !found || owner.peer != from {
		e.drop(DropSource)
		e.answerUnreachable(r, from, p, h, icmp.SourceNotAllowed)
		return h, to, false
	}
	to, ok = r.lookup(h.Dst)
	switch {
	case !ok, to.peer == from:
		e.drop(DropNoRoute)
		e.answerUnreachable(r, from, p, h, icmp.NoRoute)
		return h, to, false
	case len(p) > tun.MaxPacketBytes:
		e.drop(DropTooBig) // IPv6 allows 40 bytes more than any NIC takes
		return h, to, false
	}
	return h, to, true
}

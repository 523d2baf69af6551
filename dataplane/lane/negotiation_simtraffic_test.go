package lane

import (
	"encoding/binary"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

// traffic seals a packet at each node now and then.
func (w *world) traffic() {
	gap := 2 * second
	if w.idle && !w.calm {
		gap = 100 * second
	}
	w.at(1+w.rng.Int64N(gap), w.traffic)
	for _, nd := range w.nodes {
		for _, l := range nd.lanes {
			nd.sealOne(l, "payload")
		}
	}
}

// move takes a new connection ID and retires the old one.
func (nd *node) move() {
	l := nd.newest()
	if l == nil || !l.n.Live() {
		return
	}
	if len(l.spare) > 0 {
		if !l.n.RetirePeerID(l.peerID.Sequence) {
			nd.w.failf("no connection ID %d to retire", l.peerID.Sequence)
		}
		l.peerID, l.spare = l.spare[0], l.spare[1:]
	}
}

// twin finds the same lane at the other node.
func (nd *node) twin(l *simLane) *simLane {
	id, _ := l.n.ID()
	for _, o := range nd.peer().lanes {
		if oid, ok := o.n.ID(); ok && oid == id {
			return o
		}
	}
	return nil
}

// sealOne seals a packet, checks that it may, and sends it.
func (nd *node) sealOne(l *simLane, payload string) {
	w := nd.w
	if l.seal == nil || l.n.Closed() {
		return
	}
	if age := w.now - l.born[l.epoch]; age > int64(SealFor) || l.born[l.epoch] == 0 {
		w.failf("node %d seals with epoch %d, %.3f s after its ratchet", nd.index, l.epoch, float64(age)/1e9)
	}
	o := nd.twin(l)
	if o == nil {
		w.failf("node %d seals on a lane that the other has not", nd.index)
		return
	}
	if !o.n.Closed() && o.open[l.epoch] == nil {
		w.failf("node %d seals with epoch %d, which the other cannot open", nd.index, l.epoch)
	}
	if !o.n.Closed() && !o.routes[l.peerID.ID] {
		w.failf("node %d sends to a connection ID that the other does not take", nd.index)
	}
	iv := l.seal.IV()
	var nonce [aead.NonceBytes + 8]byte
	binary.BigEndian.PutUint64(nonce[copy(nonce[:], iv[:]):], l.number)
	if w.nonces[nonce] {
		w.failf("nonce twice: epoch %d number %d", l.epoch, l.number)
	}
	w.nonces[nonce] = true
	number, epoch := l.number, l.epoch
	packet := l.seal.AEAD().Seal(nil, packetNonce(l.seal, number), []byte(payload), nil)
	l.number++
	if w.rng.Float64() < w.loss {
		return
	}
	sent := w.now
	for range 1 + btoi(w.rng.Float64() < w.duplicates) {
		w.at(w.rng.Int64N(maxUDPDelay), func() { nd.peer().receive(o, epoch, number, packet, sent) })
	}
}

func packetNonce(k *aead.PacketKey, number uint64) []byte {
	iv := k.IV()
	tail := binary.BigEndian.Uint64(iv[4:]) ^ number
	binary.BigEndian.PutUint64(iv[4:], tail)
	return iv[:]
}

// receive opens a packet.
func (nd *node) receive(l *simLane, epoch uint32, number uint64, packet []byte, sent int64) {
	w := nd.w
	if l.n.Closed() {
		return
	}
	key := l.open[epoch]
	if key == nil {
		w.failf("node %d cannot open epoch %d, %.3f s old", nd.index, epoch, float64(w.now-sent)/1e9)
		return
	}
	payload, err := key.AEAD().Open(nil, packetNonce(key, number), packet, nil)
	if err != nil {
		w.failf("node %d: keys of epoch %d differ", nd.index, epoch)
	}
	w.packets++
	l.highest = max(l.highest, number+1)
	nd.apply(l, l.n.Opened(epoch, nd.clock()))
	for _, older := range nd.lanes { // the new lane carries packets: the one before can go
		if older == l {
			break
		}
		if !older.n.Closed() {
			nd.apply(older, older.n.Drop(ReasonReplaced, nd.clock()))
		}
	}
	if string(payload) == "ping" {
		nd.sealOne(l, "answer")
	}
	nd.apply(l, l.n.Progress(l.number, l.highest, nd.clock()))
}

package netsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

const (
	// helloNanos is how often a client that dials says so until it is heard.
	helloNanos = 300 * millisecond
	// keepAliveNanos is how often a session keeps mappings on the way open.
	keepAliveNanos = 5 * second
)

// session stands for a CONNECT-IP session: a client and a server who share a secret and have a stream between them.
type session struct {
	w      *world
	serial uint64
	nodes  [2]*node // the client, then the server
	ends   [2]lane.Session
	up     [2]bool
	began  bool
	given  bool // up: the client has stopped to dial
	remote [2]netip.AddrPort
	queue  [2][][]byte // messages to each end, in order
	lastAt [2]int64
}

// newSession makes a session that is not up yet.
func (w *world) newSession(client, server *node) *session {
	w.serial++
	s := &session{w: w, serial: w.serial, nodes: [2]*node{client, server}}
	s.ends[0] = lane.Session{Role: keyschedule.Client, Export: s.export}
	s.ends[1] = lane.Session{Role: keyschedule.Server, Export: s.export}
	w.sessions = append(w.sessions, s)
	return s
}

// export stands for the TLS exporter (RFC 8446 section 7.5).
func (s *session) export(label string, context []byte, length int) ([]byte, error) {
	mac := hmac.New(sha256.New, binary.BigEndian.AppendUint64([]byte("secret of a session"), s.serial))
	fmt.Fprintf(mac, "%s %x", label, context)
	return mac.Sum(nil)[:length], nil
}

// end is which end of the session a node is.
func (s *session) end(nd *node) int {
	if s.nodes[0] == nd {
		return 0
	}
	return 1
}

func (s *session) peer(nd *node) *node { return s.nodes[1-s.end(nd)] }

// dial begins a session, unless one is being made. Its client has given up those that it had before.
func (w *world) dial(client, server *node) {
	for _, s := range w.sessions {
		if s.nodes != [2]*node{client, server} && s.nodes != [2]*node{server, client} {
			continue
		}
		if !s.began && !s.given && s.nodes[0] == client {
			return
		}
		if s.up[s.end(client)] {
			s.finish(client, false)
			w.net.After(w.between(0, w.style.knowsEndLate), func() { s.finish(server, false) })
		}
		s.given = true
	}
	w.newSession(client, server).sayHello()
}

// sayHello sends what opens mappings on the way and tells the server where the client is.
func (s *session) sayHello() {
	if s.given || s.began && !s.up[0] {
		return
	}
	client, server := s.nodes[0], s.nodes[1]
	to := server.socket.LocalAddr()
	if server.nat != nil {
		s.w.failf("node %d dials one behind a NAT", client.index)
		return
	}
	s.w.must(client.socket.Send(netip.Addr{}, to, 0, binary.BigEndian.AppendUint64([]byte{0xc0}, s.serial)))
	if s.began {
		s.w.net.After(keepAliveNanos, s.sayHello)
	} else {
		s.w.net.After(helloNanos, s.sayHello)
	}
}

// hello takes what a session's client says.
func (nd *node) hello(d *Datagram) {
	if len(d.Payload) != 9 || d.Corrupt {
		return
	}
	serial := binary.BigEndian.Uint64(d.Payload[1:])
	if serial == 0 || serial > uint64(len(nd.w.sessions)) {
		return
	}
	s := nd.w.sessions[serial-1]
	if s.nodes[1] != nd || s.given {
		return
	}
	s.remote[1] = d.From
	if s.began {
		return
	}
	s.began, s.up = true, [2]bool{true, true}
	s.remote[0] = nd.socket.LocalAddr()
	nd.w.logf("session %d is up: node %d is the client of node %d, at %v", serial, s.nodes[0].index, nd.index, d.From)
	for _, end := range s.nodes {
		end.parties[s.peer(end).index].begin(s)
		end.machine.attach(s)
	}
	s.nodes[0].parties[nd.index].offer(s)
}

// end ends the session at one node.
func (s *session) finish(nd *node, orderly bool) {
	at := s.end(nd)
	if !s.began {
		s.given = true
	}
	if !s.up[at] {
		return
	}
	s.w.logf("session %d ends at node %d, orderly %v", s.serial, nd.index, orderly)
	s.up[at] = false
	nd.machine.detach(s)
	nd.parties[s.peer(nd).index].ended(s, orderly)
}

// send puts a message on the way to the other end: in order, without loss, as long as that end has the session.
func (s *session) send(from *node, payload []byte) {
	w, to := s.w, 1-s.end(from)
	if !s.up[1-to] {
		return
	}
	w.logf("node %d: %v over session %d", from.index, lane.Kind(payload[0]), s.serial)
	s.queue[to] = append(s.queue[to], payload)
	at := max(w.net.Nanos()+w.oneWay(from, s.nodes[to])+w.between(0, w.style.messageDelayNanos), s.lastAt[to])
	s.lastAt[to] = at
	w.net.After(at-w.net.Nanos(), func() { s.take(to) })
}

// take delivers the oldest message under way to an end.
func (s *session) take(to int) {
	nd := s.nodes[to]
	if s.w.dead(s.nodes[0], s.nodes[1]) || nd.stalled > s.w.net.Nanos() {
		s.w.net.After(50*millisecond, func() { s.take(to) })
		return
	}
	payload := s.queue[to][0]
	s.queue[to] = s.queue[to][1:]
	if s.up[to] && s.w.fault == "" {
		nd.parties[s.peer(nd).index].message(s, payload)
	}
}

// oneWay is how long the way between two nodes is at least.
func (w *world) oneWay(from, to *node) int64 {
	return from.host.Up().DelayNanos + to.host.Down().DelayNanos
}

// dead reports whether a link between two nodes is.
func (w *world) dead(a, b *node) bool {
	return a.host.Up().Dead || a.host.Down().Dead || b.host.Up().Dead || b.host.Down().Dead
}

// lastBegun is the newest session between two nodes that has come up. An offer that a later session has overtaken is of
// a client that has gone on without it.
func (w *world) lastBegun(a, b *node) *session {
	for _, s := range slices.Backward(w.sessions) {
		if s.began && (s.nodes == [2]*node{a, b} || s.nodes == [2]*node{b, a}) {
			return s
		}
	}
	return nil
}

package crowd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// errSealing is why a member's key came to its end, which takes more packets than a crowd has time for.
var errSealing = errors.New("member cannot seal")

// member is the other end of a lane.
type member struct {
	crowd   *Crowd
	at      *gatewayPeer
	index   int
	active  bool
	port    *port
	to      *udp.Destination // the gateway
	session lane.Session
	n       *lane.Negotiation
	offered []byte // exact bytes, until they are answered
	ids     []lane.ConnectionID
	params  *lane.Params
	context uint8 // of packets with partial checksums, to send with
	opener  *lane.Opener
	heard   atomic.Bool // something of the lane has been opened

	windows  [2]window // by direction
	up, down *header   // of super-packets; nil unless active

	mu       sync.Mutex // guards what is below
	sealer   *lane.Sealer
	reporter path.Reporter
}

// invite makes all members.
func (c *Crowd) invite() error {
	shared, err := c.newPort()
	if err != nil {
		return err
	}
	for i := range c.cfg.Peers {
		m := &member{crowd: c, index: i, port: shared}
		// The first of each equal part of all is active.
		if i*c.cfg.Active/c.cfg.Peers != (i-1)*c.cfg.Active/c.cfg.Peers || i == 0 {
			if err := c.activate(m); err != nil {
				return err
			}
		}
		c.members = append(c.members, m)
	}
	return nil
}

// startMembers has the members take part, once all lanes are agreed on: ports must know all connection IDs.
func (c *Crowd) startMembers() {
	for _, p := range c.ports {
		c.far.Go(p.run)
	}
	c.far.Go(func() { c.send(c.flows[Up]) })
	c.far.Go(c.mend)
}

// activate gives a member a socket of its own and packets.
func (c *Crowd) activate(m *member) error {
	m.active = true
	c.active = append(c.active, m)
	own := netip.AddrFrom4(memberAddress(m.index))
	m.up, m.down = newHeader(own, gatewayAddress), newHeader(gatewayAddress, own)
	var err error
	m.port, err = c.newPort()
	return err
}

// offer makes the member's end of a lane, and the offer.
func (m *member) offer() error {
	m.session = lane.Session{Role: keyschedule.Client, Export: exporter(m.index)}
	c := m.crowd.control
	config := c.laneConfig(peerID(m.index), dataplane.PeerID{})
	issue := config.Issue
	config.Issue = func() (lane.ConnectionID, lane.ResetToken) {
		id, token := issue()
		m.ids = append(m.ids, id)
		return id, token
	}
	var err error
	if m.n, err = lane.NewClient(config); err != nil {
		return err
	}
	out, err := m.n.Start(&m.session, c.now())
	if err == nil && len(out.Messages) != 1 {
		err = errors.New("no offer was made")
	}
	if err != nil {
		return err
	}
	m.offered = out.Messages[0].Payload
	for _, id := range m.ids {
		m.port.add(id, m)
	}
	m.to, err = m.port.conn.NewDestination(m.crowd.conn.LocalAddr(), netip.Addr{}, 0)
	return err
}

// accepted takes the answer to the offer.
func (m *member) accepted(answer []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	out, err := m.n.Step(&m.session, answer, m.crowd.control.now())
	if err != nil {
		return err
	}
	m.offered = nil
	for _, e := range out.Events {
		switch e.Kind {
		case lane.EventReady:
			m.params = e.Params
			for _, c := range e.Params.Send {
				if c.Kind == lane.ContextPartialChecksum {
					m.context = c.ID
				}
			}
		case lane.EventInstall:
			m.opener, err = lane.NewOpener(lane.OpenerConfig{
				Keys: lane.Keys{Epoch: e.Epoch, Key: e.Open}, Header: m.params.HeaderOpen,
			})
		case lane.EventSeal:
			m.sealer, err = lane.NewSealer(lane.SealerConfig{
				Keys: lane.Keys{Epoch: e.Epoch, Key: e.Seal}, Header: m.params.HeaderSeal,
				ID: m.params.PeerIDs[0].ID, MaxPacketBytes: m.params.SendBytes,
			})
		default: // IDs are in use already, and the crowd sends the PING
		}
		if err != nil {
			return err
		}
	}
	if m.opener == nil || m.sealer == nil || m.context == 0 {
		return errors.New("the lane lacks keys or the context for partial checksums")
	}
	return nil
}

// ping asks the gateway for an answer.
func (m *member) ping() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.say(lane.AppendPing(nil))
}

// say sends what the lane itself has to say. It is called with the lock held.
func (m *member) say(frames []byte) {
	var out [lane.OverheadBytes + lane.MaxReportBytes]byte
	n, verdict := m.sealer.Seal(out[:], frames)
	if verdict != lane.VerdictOK {
		m.crowd.fail(fmt.Errorf("%w: %v", errSealing, verdict))
		return
	}
	m.transmit(out[:n], 0)
}

// transmit sends lane packets. What the socket does not take is lost like anything else.
func (m *member) transmit(b []byte, segment int) {
	if err := m.port.conn.Send(b, segment, 0, m.to); err != nil && !errors.Is(err, udp.ErrClosed) &&
		!errors.Is(err, udp.ErrLost) {
		m.crowd.fail(fmt.Errorf("member %d: %w", m.index, err))
	}
}

// take opens a lane packet of the member.
func (m *member) take(datagram []byte, f *lane.Frames, nowNanos int64) {
	frames, _, verdict := m.opener.Open(datagram, nowNanos)
	if verdict != lane.VerdictOK {
		m.crowd.fail(fmt.Errorf("member %d: packet of the gateway: %v", m.index, verdict))
		return
	}
	m.heard.Store(true)
	if d, ok := lane.ParseDatagram(frames); ok {
		m.datagram(d)
		return
	}
	if !lane.ParseFrames(frames, f) {
		m.crowd.fail(fmt.Errorf("member %d: malformed packet of the gateway", m.index))
		return
	}
	m.mu.Lock()
	if path.Reportable(f) {
		m.reporter.Arrived(1)
	}
	if f.Set.Has(lane.HasPathChallenge) {
		m.say(lane.AppendPathResponse(nil, f.Challenge))
	}
	m.mu.Unlock()
	if f.Datagram.Payload != nil {
		m.datagram(f.Datagram)
	}
}

// datagram counts a packet of the host behind the gateway.
func (m *member) datagram(d lane.Datagram) {
	m.mu.Lock()
	m.reporter.Arrived(1)
	m.mu.Unlock()
	m.crowd.flows[Down].arrived(m, &m.windows[Down], uint64(max(len(d.Payload)-headerBytes, 0)))
}

// report tells the gateway how its packets have arrived, if it is time.
func (m *member) report(nowNanos int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.reporter.Due(nowNanos) {
		return
	}
	r, ok := m.opener.Report(nowNanos)
	if !ok {
		return
	}
	m.reporter.Sent(nowNanos)
	m.say(lane.AppendReport(nil, &r))
}

// header is what super-packets of one flow begin with.
type header struct {
	bytes    [headerBytes]byte
	sequence uint32
}

func newHeader(from, to netip.Addr) *header {
	h := &header{}
	p := h.bytes[:]
	const ect0 = 2 // so that congestion costs no packet
	p[0], p[1], p[8], p[9] = 0x45, ect0, 64, protocolTCP
	binary.BigEndian.PutUint16(p[2:], headerBytes+trainBytes)
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	binary.BigEndian.PutUint16(p[10:], ^packet.Sum(p[:ipv4HeaderBytes], 0))
	tcp := p[ipv4HeaderBytes:]
	binary.BigEndian.PutUint16(tcp, 40000)
	binary.BigEndian.PutUint16(tcp[2:], 443)
	tcp[12], tcp[13] = tcpHeaderBytes/4<<4, 0x10 // ACK
	binary.BigEndian.PutUint16(tcp[14:], 500)
	pseudo := [4]byte{1: protocolTCP}
	binary.BigEndian.PutUint16(pseudo[2:], tcpHeaderBytes+trainBytes)
	binary.BigEndian.PutUint16(tcp[16:], packet.Sum(pseudo[:], packet.Sum(p[12:20], 0)))
	return h
}

// put writes the header of the flow's next train.
func (h *header) put(p []byte) {
	binary.BigEndian.PutUint32(h.bytes[ipv4HeaderBytes+4:], h.sequence)
	h.sequence += trainBytes
	copy(p, h.bytes[:])
}

// send sends the trains of all members until the flow ends.
func (c *Crowd) send(f *flow) {
	buffer, out := make([]byte, tun.Headroom+headerBytes+trainBytes), make([]byte, udp.MaxSendBytes)
	for {
		select {
		case m := <-f.ready:
			m.sendTrain(buffer, out)
		case <-f.done:
			return
		}
	}
}

// sendTrain cuts a super-packet while it seals it, as the gateway does.
func (m *member) sendTrain(buffer, out []byte) {
	p := buffer[tun.Headroom:]
	m.up.put(p)
	cutter, ok := packet.NewCutter(p, trainOffload)
	if !ok {
		m.crowd.fail(errors.New("the members' super-packets are not well formed"))
		return
	}
	m.windows[Up].depart(trainBytes)
	used := 0
	m.mu.Lock()
	for k := range cutter.Segments() {
		at, n := cutter.Payload(k)
		frames := buffer[tun.Headroom+at-headerBytes-lane.DatagramHeaderBytes : tun.Headroom+at+n]
		cutter.PutHeader(frames[lane.DatagramHeaderBytes:], k, true)
		lane.PutDatagramHeader((*[lane.DatagramHeaderBytes]byte)(frames), m.params.QuarterStreamID, m.context)
		sealed, verdict := m.sealer.Seal(out[used:], frames)
		if verdict != lane.VerdictOK {
			m.mu.Unlock()
			m.crowd.fail(fmt.Errorf("%w: %v", errSealing, verdict))
			return
		}
		used += sealed
	}
	m.mu.Unlock()
	m.transmit(out[:used], maxPacketBytes)
}

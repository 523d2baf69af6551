package crowd

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

const (
	// controlTick is how often control looks at its lanes.
	controlTick = 250 * time.Millisecond
	// maxPacketBytes is the longest lane packet of both ends, and pathBytes what the session would know of the path.
	maxPacketBytes, pathBytes = 1452, 1252
	// fullInnerBytes is the longest inner packet in a packet of maxPacketBytes.
	fullInnerBytes = maxPacketBytes - lane.OverheadBytes - lane.DatagramHeaderBytes
)

var gatewayAddress = netip.AddrFrom4([4]byte{10, 0, 0, 1})

// memberAddress is the IPv4 address of a member, outside of the gateway's own 10.0.0.0/16.
func memberAddress(i int) [4]byte { return [4]byte{10, 1 + byte(i>>16), byte(i >> 8), byte(i)} }

// memberPrefixes are the addresses of a member: one of each family, as every member has.
func memberPrefixes(i int) []netip.Prefix {
	six := [16]byte{0: 0xfd}
	binary.BigEndian.PutUint32(six[12:], uint32(i))
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4(memberAddress(i)), 32), netip.PrefixFrom(netip.AddrFrom16(six), 128),
	}
}

// peerID names a member.
func peerID(i int) dataplane.PeerID {
	id := dataplane.PeerID{0: 1}
	binary.BigEndian.PutUint32(id[28:], uint32(i))
	return id
}

// control does for the lanes of a gateway what package control does: it negotiates them, has the engine do what was
// agreed, and gives them the time of day.
type control struct {
	crowd *Crowd
	ids   *lane.IDGenerator
	began time.Time
	news  chan *gatewayPeer
	rests atomic.Bool

	mu    sync.Mutex // guards what is in peers
	peers []*gatewayPeer
}

// gatewayPeer is the gateway's end of a lane.
type gatewayPeer struct {
	control *control
	index   int
	member  *member // at the other end
	session lane.Session
	n       *lane.Negotiation
	lane    *dataplane.Lane
	issued  []lane.ConnectionID
}

func newControl(c *Crowd) (*control, error) {
	ids, err := lane.NewIDGenerator(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("crowd: %w", err)
	}
	return &control{crowd: c, ids: ids, began: time.Now(), news: make(chan *gatewayPeer, 2*c.cfg.Peers)}, nil
}

func (c *control) now() int64 { return int64(time.Since(c.began)) }

// laneConfig is one end's part of a lane.
func (c *control) laneConfig(local, peer dataplane.PeerID) lane.Config {
	return lane.Config{
		Local: lane.NodeID(local), Peer: lane.NodeID(peer), MaxPacketBytes: maxPacketBytes,
		Suites:   aead.Preferred(aead.Policy{}),
		Contexts: []lane.ContextKind{lane.ContextPartialChecksum, lane.ContextPiece},
		Issue: func() (lane.ConnectionID, lane.ResetToken) {
			id := c.ids.Next(0)
			return id, lane.ResetToken(append(id[:], id[:]...)) // nobody sends resets here
		},
	}
}

// exporter stands for the exporter of the TLS session with a member (RFC 8446 section 7.5).
func exporter(i int) func(label string, context []byte, length int) ([]byte, error) {
	id := peerID(i)
	return func(label string, context []byte, length int) ([]byte, error) {
		mac := hmac.New(sha256.New, id[:])
		mac.Write([]byte(label))
		mac.Write(context)
		if length > mac.Size() {
			return nil, errors.New("more than the exporter has")
		}
		return mac.Sum(nil)[:length], nil
	}
}

// agree makes the lanes of all members.
func (c *Crowd) agree() error {
	ctl := c.control
	ctl.mu.Lock()
	ctl.peers = make([]*gatewayPeer, 0, len(c.members))
	ctl.mu.Unlock()
	for _, m := range c.members {
		err := m.offer()
		if err == nil {
			var answer []byte
			if answer, err = ctl.answer(m); err == nil {
				err = m.accepted(answer)
			}
		}
		if err != nil {
			return fmt.Errorf("lane with member %d: %w", m.index, err)
		}
	}
	c.startMembers()
	return nil
}

// answer makes the gateway's end of a lane.
func (c *control) answer(m *member) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &gatewayPeer{control: c, index: m.index, member: m}
	p.session = lane.Session{Role: keyschedule.Server, Export: exporter(m.index)}
	var err error
	if p.n, err = lane.NewServer(c.laneConfig(dataplane.PeerID{}, peerID(m.index))); err != nil {
		return nil, err
	}
	out, err := p.n.Step(&p.session, m.offered, c.now())
	if err == nil {
		err = p.obey(out)
	}
	if err == nil && (p.lane == nil || len(out.Messages) != 1) {
		err = errors.New("the offer was not accepted")
	}
	if err != nil {
		return nil, err
	}
	m.at = p
	c.peers = append(c.peers, p)
	return out.Messages[0].Payload, nil
}

// obey does what the negotiation asks for.
func (p *gatewayPeer) obey(out lane.Output) error {
	for _, e := range out.Events {
		if err := p.do(e); err != nil {
			return fmt.Errorf("%v: %w", e.Kind, err)
		}
	}
	return nil
}

func (p *gatewayPeer) do(e lane.Event) error {
	switch e.Kind {
	case lane.EventReady:
		return p.ready(e.Params)
	case lane.EventIssue:
		if p.lane == nil {
			p.issued = append(p.issued, e.ID)
			return nil
		}
		p.lane.Issue(e.ID)
	case lane.EventRetire:
		p.lane.Retire(e.ID)
	case lane.EventInstall:
		return p.lane.Install(e.Epoch, e.Open, e.Seal)
	case lane.EventSeal:
		return p.lane.Seal(e.Epoch, e.Seal)
	case lane.EventPing:
		p.lane.Ping()
	case lane.EventWipe:
		p.lane.Expire()
	case lane.EventSealStop:
		p.lane.SealStop()
	case lane.EventClosed:
		return fmt.Errorf("the lane was closed: %v", e.Reason)
	case lane.EventPeerIDs:
		p.lane.AddPeerIDs(e.PeerIDs)
	case lane.EventAdopted, lane.EventAdoptionFailed:
	}
	return nil
}

// ready makes the lane that both sides have agreed on.
func (p *gatewayPeer) ready(params *lane.Params) error {
	c := p.control
	conn := c.crowd.conn
	to, err := conn.NewDestination(p.member.port.conn.LocalAddr(), netip.Addr{}, 0)
	if err != nil {
		return err
	}
	p.lane, err = c.crowd.engine.NewLane(dataplane.LaneConfig{
		Peer: peerID(p.index), Conn: conn, To: to, Params: params, PacketBytes: pathBytes,
		Opened: func(uint32) {
			select {
			case c.news <- p:
			default: // the next tick tells
			}
		},
		Failed: func() {}, // members neither forge nor forget
	})
	if err != nil {
		return err
	}
	for _, id := range p.issued {
		p.lane.Issue(id)
	}
	p.issued = nil
	return nil
}

// heard reports whether a packet of the lane has been opened.
func (p *gatewayPeer) heard() bool {
	_, ok := p.lane.Epoch()
	return ok
}

// run gives lanes the time of day until ctx ends.
func (c *control) run(ctx context.Context) error {
	tick := time.NewTicker(controlTick)
	defer tick.Stop()
	for {
		var err error
		select {
		case p := <-c.news:
			err = c.opened(p)
		case <-tick.C:
			if !c.rests.Load() {
				err = c.tick()
			}
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *control) opened(p *gatewayPeer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	epoch, ok := p.lane.Epoch()
	if !ok || p.n == nil {
		return nil
	}
	return p.obey(p.n.Opened(epoch, c.now()))
}

func (c *control) tick() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for _, p := range c.peers {
		if p.n == nil {
			continue
		}
		sealed, opened := p.lane.Progress()
		if err := p.obey(p.n.Progress(sealed, opened, now)); err != nil {
			return err
		}
	}
	return nil
}
